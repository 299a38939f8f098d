"""Passages where a neuron fires, each token shaded by how much."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.figures.theme import visible

_CSS = """
:host { display: block; }
.passages { display: grid; gap: .55rem; font-family: var(--st-font); color: var(--st-text-color); }
.passage { border: 1px solid var(--st-border-color); border-radius: .5rem; padding: .5rem .7rem;
  line-height: 1.75; overflow-wrap: anywhere; }
.passage .note { font-size: .8rem; opacity: .75; display: block; }
.token { border-radius: .2rem; padding: .08em .04em; white-space: pre-wrap; }
.token.at { outline: 2px solid var(--st-primary-color); outline-offset: 1px; font-weight: 600; }
"""
_JS = """
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".passages");
  frame.replaceChildren();
  for (const passage of data.passages) {
    const box = document.createElement("div"); box.className = "passage";
    const note = document.createElement("span"); note.className = "note";
    note.textContent = passage.note; box.appendChild(note);
    passage.tokens.forEach((token, index) => {
      const el = document.createElement("span");
      el.className = "token" + (index === passage.at ? " at" : "");
      // at the end of a line its space must not stay behind in a frame of its own
      const word = index === passage.at ? token.trimStart() || token : token;
      box.append(token.slice(0, token.length - word.length));
      el.textContent = word; el.title = passage.values[index].toPrecision(3);
      const share = Math.abs(passage.values[index]) / passage.most;
      const color = passage.values[index] < 0 ? "86, 180, 233" : "213, 94, 0";
      el.style.background = `rgba(${color}, ${Math.min(1, share) * 0.55})`;
      box.appendChild(el);
    });
    frame.appendChild(box);
  }
}
"""


def passages(found: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    """Draw passages: orange where the activation is above zero, blue below.

    Args:
        found: dicts with ``tokens``, ``activations`` and ``at`` (index of the strongest).
        notes: a line above each.
    """
    most = max((abs(x) for one in found for x in one["activations"]), default=1.0) or 1.0
    render = st.components.v2.component(
        "prunescope.passages", html='<div class="passages"></div>', css=_CSS, js=_JS
    )
    render(
        key="_passages",
        data={
            "passages": [
                {
                    "tokens": [visible(token, 30) for token in one["tokens"]],
                    "values": [round(float(x), 5) for x in one["activations"]],
                    "at": one["at"],
                    "most": most,
                    "note": note,
                }
                for one, note in zip(found, notes, strict=True)
            ]
        },
    )
