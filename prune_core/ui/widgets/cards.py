"""One card per recipe: its numbers, on a scale that all cards share. Texts are set as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

_CSS = """
:host { display: block; container-type: inline-size; }
.card { border: 1px solid var(--st-border-color); border-top: 5px solid var(--slot);
  border-radius: .6rem; padding: .7rem .9rem .75rem; font-family: var(--st-font);
  color: var(--st-text-color); background: var(--st-background-color); min-width: 0;
  min-height: 19.5rem; box-sizing: border-box; }
.card.here { outline: 3px solid var(--slot); outline-offset: 2px; }
.head { display: flex; align-items: baseline; gap: .5rem; min-width: 0; }
.mark { color: var(--slot); font-size: 1.25rem; }
.letter { font-weight: 700; font-size: 1.25rem; }
.title { font-weight: 600; overflow-wrap: anywhere; }
.detail { font-size: .82rem; opacity: .8; min-height: 1.3em; }
.label { font-size: .82rem; opacity: .8; margin-top: .35rem; }
.value { font-size: 2.3rem; font-weight: 600; line-height: 1.15; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.value.none { opacity: .45; }
.aside { font-size: .9rem; font-variant-numeric: tabular-nums; min-height: 1.35em; }
svg { width: 100%; height: 46px; display: block; overflow: visible; margin: .15rem 0 .3rem; }
.axis { stroke: var(--st-border-color); stroke-width: 2; }
.dense { stroke: var(--dense); stroke-width: 2; stroke-dasharray: 3 2; }
.other { fill: var(--st-text-color); opacity: .3; }
.band { stroke: var(--slot); stroke-width: 3; } .dot { fill: var(--slot); }
.small { font-size: 11px; fill: var(--st-text-color); opacity: .8; }
dl { display: grid; grid-template-columns: 1fr auto; gap: .1rem .6rem; margin: 0;
  font-size: .88rem; font-variant-numeric: tabular-nums; }
dt { opacity: .8; } dd { margin: 0; text-align: right; white-space: nowrap; }
dd small { opacity: .7; }
.note { font-size: .82rem; margin-top: .45rem; min-height: 1.3em; font-weight: 600; }
.note.bad { font-weight: 400; border-left: 3px solid var(--slot); padding-left: .6rem; }
.old .value, .old .aside, .old svg, .old dl { opacity: .42; }
.present { min-height: 0; }
.present .value { font-size: clamp(44px, 15cqw, 84px); }
.present .letter, .present .mark { font-size: 1.7rem; } .present .title { font-size: 1.3rem; }
.present .aside { font-size: 1.15rem; } .present dl { font-size: 1.05rem; }
.present .label, .present .detail, .present .note { font-size: 1rem; }
"""

_JS = """
const NS = "http://www.w3.org/2000/svg";
const draw = (name, attributes, parent) => {
  const el = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  parent.appendChild(el); return el;
};
function axis(svg, data) {
  svg.replaceChildren();
  const values = data.scale.filter((v) => v !== null);
  if (values.length < 1) return;
  const width = svg.clientWidth || 240, pad = 8, y = 16;
  let low = Math.min(...values), high = Math.max(...values);
  const log = low > 0 && high / low > 8, f = log ? Math.log : (v) => v;
  if (high - low < 1e-12) { low -= 1; high += 1; }
  const x = (v) => pad + (width - 2 * pad) * (f(Math.max(v, low)) - f(low)) / (f(high) - f(low));
  draw("line", { class: "axis", x1: pad, x2: width - pad, y1: y, y2: y }, svg);
  for (const v of data.others) if (v !== null)
    draw("circle", { class: "other", cx: x(v), cy: y, r: 4 }, svg);
  if (data.dense !== null) {
    draw("line", { class: "dense", x1: x(data.dense), x2: x(data.dense), y1: 4, y2: 28 }, svg);
    const text = draw("text", { class: "small", x: x(data.dense), y: 42 }, svg);
    text.textContent = data.dense_label;
    text.setAttribute("text-anchor", x(data.dense) > width * .7 ? "end" :
      x(data.dense) < width * .3 ? "start" : "middle");
  }
  if (data.value === null) return;
  if (data.low !== null && data.high !== null)
    draw("line", { class: "band", x1: x(data.low), x2: x(Math.min(data.high, high)), y1: y,
                   y2: y }, svg);
  draw("circle", { class: "dot", cx: x(data.value), cy: y, r: 6 }, svg);
}
export default function (component) {
  const { data, parentElement } = component;
  const card = parentElement.querySelector(".card");
  card.className = "card" + (data.here ? " here" : "") + (data.present ? " present" : "") +
    (data.state === "stale" ? " old" : "");
  card.style.setProperty("--slot", data.color);
  card.style.setProperty("--dense", data.dense_color);
  card.dataset.testid = "slot-" + data.slot;
  card.dataset.state = data.state;
  card.dataset.recipe = data.recipe;
  card.dataset.value = data.value === null ? "" : String(data.value);
  const set = (cls, text) => { parentElement.querySelector("." + cls).textContent = text; };
  set("mark", data.mark); set("letter", data.slot); set("title", data.title);
  set("detail", data.detail); set("label", data.label); set("value", data.shown);
  set("aside", data.aside);
  parentElement.querySelector(".value").classList.toggle("none", data.value === null);
  const note = parentElement.querySelector(".note");
  note.textContent = data.note; note.className = "note" + (data.state === "failed" ? " bad" : "");
  const svg = parentElement.querySelector("svg");
  svg.setAttribute("aria-label", data.alt);
  axis(svg, data);
  const list = parentElement.querySelector("dl");
  list.replaceChildren();
  for (const [name, value, more, help] of data.rows) {
    const dt = document.createElement("dt"), dd = document.createElement("dd");
    dt.textContent = name; dt.title = help; dd.textContent = value;
    if (more) { const small = document.createElement("small"); small.textContent = " " + more;
      dd.appendChild(small); }
    list.append(dt, dd);
  }
}
"""

_HTML = """<article class="card"><div class="head"><span class="mark" aria-hidden="true"></span>
<span class="letter"></span><span class="title"></span></div><div class="detail"></div>
<div class="label"></div><div class="value"></div><div class="aside"></div>
<svg role="img"></svg><dl></dl><div class="note" aria-live="polite"></div></article>"""


def card(slot: str, data: Mapping[str, Any]) -> None:
    """Draw one card.

    Args:
        slot: letter.
        data: ``mark``, ``title``, ``detail``, ``label``, ``value`` (number or None), ``shown`` (as
            text), ``aside``, ``low``, ``high``, ``dense``, ``dense_label``, ``scale`` (numbers
            that the axis must hold), ``others`` (values of the other cards), ``rows`` (name,
            value, more, help), ``note``, ``state`` (``waiting``, ``estimating``, ``settled``,
            ``stale``, ``stopped`` or ``failed``), ``recipe`` (fingerprint), ``alt``, ``color``,
            ``dense_color``, ``here`` (chosen), ``present``.
    """
    render = st.components.v2.component("prunescope.card", html=_HTML, css=_CSS, js=_JS)
    render(key=f"_card_{slot}", data={"slot": slot, **data})


def axis_scale(numbers: Sequence[float | None]) -> list[float]:
    """What the shared axis must hold: finite numbers below 1e6."""
    return [x for x in numbers if x is not None and abs(x) < 1e6]
