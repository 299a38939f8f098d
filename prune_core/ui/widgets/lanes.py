"""Texts side by side: answers to one prompt, and one passage with a lane for each recipe.

Both are components that set text as text: tokens come from models and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.figures.theme import visible
from prune_core.ui.widgets.texts import shade

_ANSWERS_CSS = """
:host { display: block; container-type: inline-size; }
.frame { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(15rem, 100%), 1fr));
  gap: .8rem; font-family: var(--st-font); color: var(--st-text-color); }
.answer { border: 1px solid var(--st-border-color); border-top: 4px solid var(--side);
  border-radius: .6rem; padding: .7rem .9rem; min-height: 9rem; min-width: 0; }
.answer.here { outline: 3px solid var(--side); outline-offset: 2px; }
.head { display: flex; gap: .45rem; align-items: baseline; font-size: .88rem; font-weight: 600; }
.mark { color: var(--side); }
.parted { font-size: .82rem; opacity: .85; margin: .2rem 0 .35rem; min-height: 1.3em;
  font-variant-numeric: tabular-nums; }
.ruler { display: flex; gap: 1px; height: 10px; margin-bottom: .5rem; }
.ruler i { flex: 1 1 0; max-width: 10px; border-radius: 1px; background: var(--dense);
  opacity: .55; }
.ruler i.other { background: transparent; box-shadow: inset 0 0 0 1px var(--side); opacity: 1; }
.ruler i.first { background: var(--side); opacity: 1; transform: scaleY(1.5); }
.body { white-space: pre-wrap; overflow-wrap: anywhere; line-height: 1.5; font-size: 1rem; }
.old .body, .old .ruler, .old .parted { opacity: .42; }
.part { border-left: 3px solid var(--side); padding-left: .15em; text-decoration: underline;
  text-decoration-thickness: 2px; text-underline-offset: 3px; font-weight: 600; }
.same { opacity: .72; }
.empty { opacity: .6; }
.caret::after { content: "▍"; animation: blink 1s steps(2) infinite; opacity: .6; }
@keyframes blink { 50% { opacity: 0; } }
.present .body { font-size: 1.3rem; } .present .head { font-size: 1.25rem; }
.present .parted { font-size: 1.05rem; } .present .ruler { height: 14px; }
"""

_ANSWERS_JS = """
const make = (tag, cls, text, parent) => {
  const el = document.createElement(tag); el.className = cls; el.textContent = text;
  parent.appendChild(el); return el;
};
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.className = "frame" + (data.present ? " present" : "");
  frame.style.setProperty("--dense", data.dense_color);
  frame.replaceChildren();
  for (const answer of data.answers) {
    const el = make("section", "answer" + (answer.here ? " here" : "") +
      (answer.old ? " old" : ""), "", frame);
    el.dataset.testid = "compare-answer-" + answer.id;
    el.dataset.finished = String(answer.finished);
    el.dataset.divergence = answer.divergence === null ? "" : String(answer.divergence);
    el.style.setProperty("--side", answer.color);
    const head = make("div", "head", "", el);
    if (answer.mark) make("span", "mark", answer.mark, head).setAttribute("aria-hidden", "true");
    make("span", "", answer.name, head);
    make("div", "parted", answer.parted, el);
    const at = answer.divergence;
    if (answer.id !== "dense") {
      const ruler = make("div", "ruler", "", el);
      ruler.setAttribute("role", "img"); ruler.setAttribute("aria-label", answer.parted);
      answer.same.forEach((same, index) => {
        const cell = make("i", index === at ? "first" : same ? "" : "other", "", ruler);
        cell.title = data.position.replace("[n]", index + 1);
      });
    }
    const body = make("div", "body", "", el);
    if (!answer.pieces.length) { make("span", "empty", answer.empty, body); continue; }
    if (at === null) make("span", "", answer.pieces.join(""), body);
    else {
      make("span", "same", answer.pieces.slice(0, at).join(""), body);
      if (at < answer.pieces.length) {
        make("span", "part", answer.pieces[at], body).title = data.part_help;
        make("span", "", answer.pieces.slice(at + 1).join(""), body);
      }
    }
    if (!answer.finished && answer.writing) make("span", "caret", "", body);
  }
}
"""

_LANES_CSS = """
:host { display: block; }
.frame { font-family: var(--st-font); color: var(--st-text-color); }
.legend { display: flex; align-items: center; gap: .45rem 1rem; font-size: .85rem;
  margin-bottom: .5rem; flex-wrap: wrap; }
.ramp { width: 8rem; height: .7rem; border-radius: 3px; display: inline-block; }
.text { display: flex; flex-wrap: wrap; row-gap: .55rem; max-height: 26rem; overflow-y: auto;
  padding: .2rem; }
.token { display: inline-flex; flex-direction: column; cursor: default; min-width: 6px; }
.token .word { white-space: pre; line-height: 1.35; }
.token:hover, .token:focus { outline: 2px solid var(--st-primary-color); border-radius: 3px; }
.cell { height: 13px; font-size: 9px; line-height: 13px; text-align: center; overflow: hidden;
  background: var(--st-secondary-background-color); margin-top: 1px; }
.break { flex-basis: 100%; height: 0; }
.read { font-size: .9rem; min-height: 3.1em; font-variant-numeric: tabular-nums;
  margin-top: .4rem; }
"""

_LANES_JS = """
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  const drawn = JSON.stringify(data);
  if (frame._drawn === drawn) return;
  frame._drawn = drawn;
  frame.replaceChildren();
  const add = (tag, cls, text, parent) => {
    const el = document.createElement(tag); el.className = cls; el.textContent = text;
    parent.appendChild(el); return el;
  };
  const legend = add("div", "legend", "", frame);
  add("span", "", data.labels.lanes, legend);
  const key = add("span", "", data.labels.better + " ", legend);
  add("span", "ramp", "", key).style.background = `linear-gradient(90deg, ${data.ramp.join(",")})`;
  add("span", "", " " + data.labels.worse, key);
  const text = add("div", "text", "", frame);
  text.setAttribute("role", "group"); text.setAttribute("aria-label", data.labels.alt);
  const read = add("div", "read", data.labels.hint, frame);
  read.dataset.testid = "lanes-read";
  for (const [word, dense, ...lanes] of data.tokens) {
    const el = add("span", "token", "", text);
    add("span", "word", word.replaceAll("\\n", "⏎"), el);
    const parts = [];
    lanes.forEach(([loss, color, ink], index) => {
      const name = data.names[index], change = loss - dense;
      const cell = add("span", "cell", change > 2 ? name : "", el);
      if (color) { cell.style.background = color; cell.style.color = ink; }
      parts.push(data.labels.lane.replace("[name]", name).replace("[loss]", loss.toFixed(2))
        .replace("[change]", (change >= 0 ? "+" : "") + change.toFixed(2)));
    });
    const show = () => { read.textContent = data.labels.read
      .replace("[token]", () => JSON.stringify(word)).replace("[dense]", dense.toFixed(2)) +
      parts.join("; "); };
    el.tabIndex = -1;
    el.addEventListener("pointerenter", show); el.addEventListener("focus", show);
    if (word.includes("\\n")) add("span", "break", "", text);
  }
  // one stop for the tab key, arrows inside: hundreds of tokens must not trap the keyboard
  const tokens = text.querySelectorAll(".token");
  if (tokens.length) tokens[0].tabIndex = 0;
  tokens.forEach((el, index) => el.addEventListener("keydown", (event) => {
    const step = event.key === "ArrowRight" ? 1 : event.key === "ArrowLeft" ? -1 : 0;
    if (step && tokens[index + step]) {
      event.preventDefault(); event.stopPropagation(); tokens[index + step].focus(); }
  }));
}
"""


def compared_answers(
    answers: Sequence[Mapping[str, Any]],
    *,
    dense_color: str,
    part_help: str,
    position: str,
    present: bool,
) -> None:
    """Draw answers to one prompt; where each leaves the dense model's is marked.

    Args:
        answers: dense first; dicts with ``id``, ``mark``, ``name``, ``color``, ``pieces``,
            ``same`` (by token: as the dense answer has at that place), ``divergence`` (index of
            the first difference or None), ``parted`` (says it in words), ``finished``,
            ``writing``, ``old``, ``here``, ``empty``.
        dense_color: of tokens as in the dense answer.
        part_help: says what the mark means.
        position: tooltip of a place, with [n].
        present: larger type.
    """
    render = st.components.v2.component(
        "prunescope.compared_answers",
        html='<div class="frame"></div>',
        css=_ANSWERS_CSS,
        js=_ANSWERS_JS,
    )
    render(
        key="_compared_answers",
        data={
            "answers": [dict(answer) for answer in answers],
            "dense_color": dense_color,
            "part_help": part_help,
            "position": position,
            "present": present,
        },
    )


def lanes(
    strips: Mapping[str, Sequence[Sequence[Any]]],
    ramp: Sequence[Sequence[Any]],
    *,
    labels: Mapping[str, str],
    dark: bool,
) -> None:
    """One passage, token by token, with a shaded cell for each recipe below every token.

    Args:
        strips: by slot, (text, dense loss, pruned loss) of the same tokens.
        ramp: diverging color stops (position, color), 0.5 = unchanged.
        labels: ``lanes``, ``better``, ``worse``, ``hint``, ``alt``, ``read`` (with [token],
            [dense]), ``lane`` (with [name], [loss], [change]).
        dark: the page is dark.
    """
    render = st.components.v2.component(
        "prunescope.lanes", html='<div class="frame"></div>', css=_LANES_CSS, js=_LANES_JS
    )
    tokens = []
    for row in zip(*strips.values(), strict=True):
        text, dense = str(row[0][0]), float(row[0][1])
        cells = [[round(p, 3), *shade(p - d, ramp, dark)] for _, d, p in row]
        shown = "".join(c if c in "\n " else visible(c) for c in text)
        tokens.append([shown, round(dense, 3), *cells])
    render(
        key="_lanes",
        data={
            "names": list(strips),
            "tokens": tokens,
            "labels": dict(labels),
            "ramp": [color for _, color in ramp],
        },
    )
