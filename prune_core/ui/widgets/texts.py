"""The Studio's texts: two answers side by side, and the evaluation text shaded by damage.

Both are components that set text as text: tokens come from models and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

import streamlit as st

from prune_core.figures.theme import visible

_ANSWERS_CSS = """
:host { display: block; container-type: inline-size; }
.frame { display: grid; grid-template-columns: 1fr 1fr; gap: .8rem; font-family: var(--st-font);
  color: var(--st-text-color); }
.answer { border: 1px solid var(--st-border-color); border-top: 4px solid var(--side);
  border-radius: .6rem; padding: .7rem .9rem; min-height: 9.5rem; min-width: 0; }
.head { display: flex; justify-content: space-between; gap: .5rem; font-size: .82rem;
  font-weight: 600; margin-bottom: .35rem; }
.head span:last-child { font-weight: 400; opacity: .75; }
.body { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; font-size: 1rem; }
.stale .body { opacity: .42; }
.part { border-left: 3px solid var(--side); padding-left: .15em; margin-left: .05em;
  text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px;
  font-weight: 600; }
.after { opacity: .92; }
.caret::after { content: "▍"; animation: blink 1s steps(2) infinite; opacity: .6; }
@keyframes blink { 50% { opacity: 0; } }
.empty { opacity: .6; }
.present .body { font-size: 1.35rem; } .present .head { font-size: 1.1rem; }
@container (max-width: 480px) { .frame { grid-template-columns: 1fr; } }
"""

_ANSWERS_JS = """
const make = (cls, text, parent) => {
  const el = document.createElement("span"); el.className = cls; el.textContent = text;
  parent.appendChild(el); return el;
};
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.className = "frame" + (data.stale ? " stale" : "") + (data.present ? " present" : "");
  data.answers.forEach((answer, index) => {
    let el = frame.children[index];
    if (!el) {
      el = document.createElement("section"); el.className = "answer";
      const head = document.createElement("div"); head.className = "head";
      make("", "", head); make("", "", head);
      const body = document.createElement("div"); body.className = "body";
      el.append(head, body); frame.appendChild(el);
    }
    el.dataset.testid = "answer-" + answer.id;
    el.dataset.finished = String(answer.finished);
    el.dataset.recipe = data.recipe;
    el.style.setProperty("--side", answer.color);
    const [name, note] = el.querySelectorAll(".head span");
    name.textContent = answer.name; note.textContent = answer.note;
    const body = el.querySelector(".body");
    body.replaceChildren();
    if (!answer.pieces.length) { make("empty", answer.empty, body); return; }
    const at = data.divergence;
    if (at === null) make("", answer.pieces.join(""), body);
    else {
      make("", answer.pieces.slice(0, at).join(""), body);
      if (at < answer.pieces.length) {
        const part = make("part", answer.pieces[at], body); part.title = data.part_help;
        make("after", answer.pieces.slice(at + 1).join(""), body);
      }
    }
    if (!answer.finished && data.writing) make("caret", "", body);
  });
}
"""

_STRIP_CSS = """
:host { display: block; }
.frame { font-family: var(--st-font); color: var(--st-text-color); }
.text { line-height: 1.9; overflow-wrap: anywhere; max-height: 17rem; overflow-y: auto;
  padding: .2rem; }
.token { border-radius: 3px; padding: .08em 0; white-space: pre-wrap; cursor: default; }
.token:hover, .token:focus { outline: 2px solid var(--st-primary-color); }
.worse2 { text-decoration: underline; text-decoration-thickness: 2px; text-underline-offset: 3px; }
.read { font-size: .85rem; min-height: 1.5em; font-variant-numeric: tabular-nums; opacity: .85;
  margin-top: .4rem; }
.legend { display: flex; align-items: center; gap: .5rem; font-size: .8rem; opacity: .85;
  margin-bottom: .4rem; flex-wrap: wrap; }
.ramp { width: 9rem; height: .7rem; border-radius: 3px; }
.stale .text { opacity: .42; }
"""

_STRIP_JS = """
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.classList.toggle("stale", data.stale);
  frame.replaceChildren();
  const add = (tag, cls, text, parent) => {
    const el = document.createElement(tag); el.className = cls; el.textContent = text;
    parent.appendChild(el); return el;
  };
  const legend = add("div", "legend", "", frame);
  add("span", "", data.labels.better, legend);
  const ramp = add("span", "ramp", "", legend);
  ramp.style.background = `linear-gradient(90deg, ${data.ramp.join(",")})`;
  add("span", "", data.labels.worse, legend);
  const text = add("div", "text", "", frame);
  text.setAttribute("role", "group"); text.setAttribute("aria-label", data.labels.alt);
  const read = add("div", "read", data.labels.hint, frame);
  data.tokens.forEach(([token, dense, pruned, color, ink]) => {
    const el = add("span", "token" + (pruned - dense > 2 ? " worse2" : ""), token, text);
    if (color) { el.style.background = color; el.style.color = ink; }
    const show = () => { read.textContent = data.labels.read
      .replace("[token]", () => JSON.stringify(token)).replace("[dense]", dense.toFixed(2))
      .replace("[pruned]", pruned.toFixed(2))
      .replace("[change]", (pruned - dense >= 0 ? "+" : "") + (pruned - dense).toFixed(2)); };
    el.tabIndex = -1;
    el.addEventListener("pointerenter", show); el.addEventListener("focus", show);
  });
  // one stop for the tab key, arrows inside: five hundred tokens must not trap the keyboard
  if (text.firstChild) text.firstChild.tabIndex = 0;
  text.addEventListener("keydown", (event) => {
    const here = event.target, next = event.key === "ArrowRight" ? here.nextSibling
      : event.key === "ArrowLeft" ? here.previousSibling : null;
    if (next) { event.preventDefault(); next.focus(); }
  });
}
"""

WORST = 5.0  # nats of added loss at the end of the color ramp


def answers(
    sides: Sequence[Mapping[str, Any]],
    *,
    divergence: int | None,
    recipe: str,
    stale: bool,
    writing: bool,
    part_help: str,
    present: bool,
) -> None:
    """Draw answers side by side, the first differing token marked.

    Args:
        sides: dicts with ``id``, ``name``, ``note``, ``pieces``, ``finished``, ``color``,
            ``empty`` (shown before there is text).
        divergence: index of the first differing token.
        recipe: fingerprint of the pruned side's recipe.
        stale: belongs to an earlier recipe or prompt.
        writing: tokens are still coming.
        part_help: says what the mark means.
        present: larger type.
    """
    render = st.components.v2.component(
        "prunescope.answers", html='<div class="frame"></div>', css=_ANSWERS_CSS, js=_ANSWERS_JS
    )
    render(
        key="_answers",
        data={
            "answers": [dict(side) for side in sides],
            "divergence": divergence,
            "recipe": recipe,
            "stale": stale,
            "writing": writing,
            "part_help": part_help,
            "present": present,
        },
    )


def strip(
    tokens: Sequence[Sequence[Any]],
    ramp: Sequence[Sequence[Any]],
    *,
    labels: Mapping[str, str],
    stale: bool,
    dark: bool,
) -> None:
    """The evaluation text, each token shaded by how much worse it became.

    Args:
        tokens: (text, dense loss, pruned loss) each, in nats.
        ramp: diverging color stops (position, color), 0.5 = unchanged.
        labels: ``better``, ``worse``, ``hint``, ``alt``, ``read`` (with [token], [dense],
            [pruned], [change]).
        stale: belongs to an earlier recipe.
        dark: the page is dark.
    """
    render = st.components.v2.component(
        "prunescope.strip", html='<div class="frame"></div>', css=_STRIP_CSS, js=_STRIP_JS
    )
    shaded = [
        [_shown(str(text)), round(dense, 3), round(pruned, 3), *shade(pruned - dense, ramp, dark)]
        for text, dense, pruned in tokens
    ]
    render(
        key="_strip",
        data={
            "tokens": shaded,
            "labels": dict(labels),
            "stale": stale,
            "ramp": [color for _, color in ramp],
        },
    )


def _shown(token: str) -> str:
    """A token with control characters made visible; line breaks and spaces stay as they are."""
    return "".join(c if c in "\n " else visible(c) for c in token)


def shade(change: float, ramp: Sequence[Sequence[Any]], dark: bool) -> tuple[str, str]:
    """Background and ink of a token; a change too small to matter has none."""
    if abs(change) < 0.1:
        return "", ""
    place = 0.5 + 0.5 * max(-1.0, min(1.0, change / WORST))
    for (left, low), (right, high) in pairwise(ramp):
        if place <= right:
            color = _mix(low, high, (place - left) / (right - left))
            break
    else:
        color = tuple(int(str(ramp[-1][1])[i : i + 2], 16) for i in (1, 3, 5))
    light = (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]) / 255
    return f"rgb({color[0]},{color[1]},{color[2]})", "#14181D" if light > 0.5 else "#FFFFFF"


def _mix(low: str, high: str, share: float) -> tuple[int, ...]:
    ends = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (low, high)]
    return tuple(round(a + (b - a) * share) for a, b in zip(*ends, strict=True))
