"""What a model's parameters are, as one bar: never pruned, kept, zero before, removed.

The one place where a page says of which total a share is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import streamlit as st

from prune_core.figures.theme import Look
from prune_core.models.weight_counts import WeightCounts
from prune_core.ui.session.language import t
from prune_core.words.numbers import LEAST_SHOWN, count, counted_share

_CSS = """
:host { display: block; }
.frame { font-family: var(--st-font); color: var(--st-text-color); }
.bar { display: flex; height: .95rem; border-radius: .3rem; overflow: hidden; gap: 1px;
  background: var(--st-background-color); }
.bar span { display: block; min-width: 0; transition: flex-basis .25s, opacity .2s; }
.hatched { background-image: repeating-linear-gradient(135deg, transparent 0 3px,
  var(--st-background-color) 3px 5px); }
.said { font-size: .9rem; margin-bottom: .3rem; font-variant-numeric: tabular-nums; }
.legend { display: flex; flex-wrap: wrap; gap: .15rem 1.1rem; margin-top: .35rem;
  font-size: .8rem; font-variant-numeric: tabular-nums; }
.legend i { display: inline-block; width: .7em; height: .7em; border-radius: 2px;
  margin-right: .4em; }
.stale .bar, .stale .legend, .stale .said { opacity: .42; }
.present .legend, .present .said { font-size: 1.15rem; } .present .bar { height: 1.4rem; }
@media (prefers-reduced-motion: reduce) { .bar span { transition: none; } }
"""

_JS = """
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.className = "frame" + (data.stale ? " stale" : "") + (data.present ? " present" : "");
  let [said, bar, legend] = frame.children;
  if (!bar) {
    said = document.createElement("div"); said.className = "said";
    bar = document.createElement("div"); bar.className = "bar"; bar.setAttribute("role", "img");
    legend = document.createElement("div"); legend.className = "legend";
    frame.append(said, bar, legend);
  }
  said.textContent = data.said;
  bar.setAttribute("aria-label", data.alt);
  bar.dataset.testid = "weight-bar";
  data.parts.forEach((part, index) => {
    const piece = bar.children[index] || bar.appendChild(document.createElement("span"));
    piece.style.flex = `0 1 ${100 * part.share}%`;
    piece.style.backgroundColor = part.color;
    piece.className = part.hatched ? "hatched" : "";
    piece.title = part.text;
    piece.dataset.part = part.id; piece.dataset.count = String(part.count);
  });
  while (bar.children.length > data.parts.length) bar.lastChild.remove();
  legend.replaceChildren();
  for (const part of data.parts) {
    const item = document.createElement("span"), mark = document.createElement("i");
    mark.style.backgroundColor = part.color;
    if (part.hatched) mark.className = "hatched";
    item.append(mark, document.createTextNode(part.text)); legend.append(item);
  }
}
"""


def removed_said(counts: WeightCounts) -> str:
    """``of the prunable weights = 32 % of the model``, after the share that it belongs to."""
    return t("common.of_prunable", model=counted_share(counts.of_model(counts.removed)))


def both_said(counts: WeightCounts) -> str:
    """``40 % of the prunable weights = 32 % of the model``."""
    share = counted_share(counts.of_prunable(counts.removed))
    return t("common.both", share=share, model=counted_share(counts.of_model(counts.removed)))


def zeros_said(counts: WeightCounts) -> str:
    """What was zero, what is added and what it makes; empty where hardly any was before."""
    if not counts.was_sparse:
        return ""
    shares = (counts.zeros_before, counts.added, counts.zeros_after)
    before, added, after = (counted_share(counts.of_prunable(x)) for x in shares)
    return t("common.zeros_said", before=before, added=added, after=after)


def parts_of(counts: WeightCounts, look: Look) -> list[dict[str, Any]]:
    """The bar's pieces in order: ``id``, ``count``, ``share`` of the model, ``text``, colors.

    What rounds to 0 % of the model is left out.
    """
    pieces: Sequence[tuple[str, int, str, bool]] = (
        ("embeddings", counts.embeddings, look.muted, False),
        ("others", counts.others, look.grid, False),
        ("kept", counts.kept, look.dense, False),
        ("before", counts.zeros_after - counts.added, look.pruned, True),
        ("added", counts.added, look.pruned, False),
    )
    return [
        {
            "id": name,
            "count": number,
            "share": counts.of_model(number),
            "color": color,
            "hatched": hatched,
            "text": t(
                f"common.bar_{name}",
                count=count(number),
                share=counted_share(counts.of_model(number)),
            ),
        }
        for name, number, color, hatched in pieces
        if counts.of_model(number) >= LEAST_SHOWN
    ]


def weight_bar(
    counts: WeightCounts,
    look: Look,
    *,
    key: str,
    said: str = "",
    stale: bool = False,
    present: bool = False,
) -> None:
    """Draw the bar; its width is all parameters of the model.

    Args:
        counts: of the recipe that is shown.
        look: colors.
        key: unique on the page.
        said: a sentence above it.
        stale: the counts belong to an earlier recipe.
        present: larger type.
    """
    parts = parts_of(counts, look)
    render = st.components.v2.component(
        "prunescope.weight_bar", html='<div class="frame"></div>', css=_CSS, js=_JS
    )
    render(
        key=key,
        data={
            "parts": parts,
            "alt": t("common.bar_alt", parts="; ".join(part["text"] for part in parts)),
            "said": said,
            "stale": stale,
            "present": present,
        },
    )
