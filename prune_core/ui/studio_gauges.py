"""The Studio's gauges: one light component that stays mounted while numbers come in.

No Plotly here: a chart costs a fifth of a second per update, this a few milliseconds. Texts are
set as text, never as markup.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

_CSS = """
:host { display: block; container-type: inline-size; }
.frame { display: grid; grid-template-columns: repeat(12, 1fr); gap: .6rem;
  font-family: var(--st-font); color: var(--st-text-color); }
.gauge { grid-column: span 3; border: 1px solid var(--st-border-color); border-radius: .6rem;
  padding: .7rem .9rem .6rem; background: var(--st-background-color); min-width: 0;
  position: relative; transition: opacity .2s; }
.gauge.main { grid-column: span 12; display: grid; grid-template-columns: auto 1fr; gap: 0 1.5rem;
  background: var(--st-secondary-background-color); padding: 1rem 1.2rem .9rem; }
.gauge[data-state="stale"] .value, .gauge[data-state="stale"] .detail,
.gauge[data-state="stale"] svg { opacity: .42; }
.name { font-size: .82rem; opacity: .8; }
.value { font-size: 1.55rem; font-weight: 600; line-height: 1.25; white-space: nowrap;
  font-variant-numeric: tabular-nums; }
.main .value { font-size: 3.1rem; line-height: 1.1; }
.main .value small { font-size: 1.15rem; font-weight: 400; opacity: .75; margin-left: .5rem; }
.detail { font-size: .8rem; opacity: .8; font-variant-numeric: tabular-nums; }
.note { font-size: .95rem; min-height: 1.2em; font-weight: 600; color: var(--st-primary-color); }
svg { width: 100%; height: 92px; display: block; align-self: center; overflow: visible; }
.band { fill: var(--pruned); opacity: .22; } .line { fill: none; stroke: var(--pruned);
  stroke-width: 2; } .dense { stroke: var(--dense); stroke-width: 1.5; stroke-dasharray: 5 4; }
.dot { fill: var(--pruned); } .label { font-size: .7rem; fill: var(--st-text-color);
  opacity: .75; text-anchor: end; dominant-baseline: central; }
.present .value { font-size: 2.6rem; } .present .main .value { font-size: 4.6rem; }
.present svg { height: 140px; } .present .label { font-size: 1rem; }
.present .name, .present .detail, .present .note { font-size: 1.15rem; }
@container (max-width: 860px) { .present .gauge:not(.main) { grid-column: span 6; } }
@container (max-width: 560px) { .gauge { grid-column: span 6; }
  .gauge.main { grid-template-columns: 1fr; } }
"""

_JS = """
const NS = "http://www.w3.org/2000/svg";
const make = (name, cls, parent) => {
  const el = document.createElement(name); if (cls) el.className = cls;
  parent.appendChild(el); return el;
};
const draw = (name, attributes, parent) => {
  const el = document.createElementNS(NS, name);
  for (const [k, v] of Object.entries(attributes)) el.setAttribute(k, v);
  parent.appendChild(el); return el;
};
function spark(svg, points, dense, label) {
  svg.replaceChildren();
  if (!points.length) return;
  const width = svg.clientWidth || 320, height = svg.clientHeight || 92, top = 8, bottom = 16;
  const all = points.flatMap((p) => [p.value, p.low ?? p.value, p.high ?? p.value]);
  if (dense !== null) all.push(dense);
  let low = Math.min(...all), high = Math.max(...all);
  // nothing but rounding is no curve
  if (high - low <= 1e-6 * Math.abs(dense ?? high)) {
    const room = 0.05 * Math.abs(dense ?? high) || 1;
    low -= room; high += room;
  }
  const y = (v) => top + (height - top - bottom) * (1 - (v - low) / (high - low));
  const last = Math.max(points[points.length - 1].total, 1);
  let right = width - 8;
  if (dense !== null) {
    // its own width is kept free, whatever the language and the size of type
    const text = draw("text", { class: "label", x: width - 2 }, svg);
    text.textContent = label;
    const box = text.getBBox(), half = box.height / 2;
    text.setAttribute("y", Math.min(height - half, Math.max(half, y(dense))));
    right = width - box.width - 10;
    draw("line", { class: "dense", x1: 6, x2: right, y1: y(dense), y2: y(dense) }, svg);
  }
  const x = (p) => 6 + (right - 12) * (p.tokens / last);
  const band = points.filter((p) => p.low !== null && p.low !== undefined);
  if (band.length > 1) draw("path", { class: "band", d: "M " +
    band.map((p) => `${x(p)} ${y(p.high)}`).join(" L ") + " L " +
    band.slice().reverse().map((p) => `${x(p)} ${y(p.low)}`).join(" L ") + " Z" }, svg);
  draw("path", { class: "line", d: "M " + points.map((p) => `${x(p)} ${y(p.value)}`).join(" L ") },
       svg);
  for (const p of points) draw("circle", { class: "dot", cx: x(p), cy: y(p.value), r: 2.6 }, svg);
}
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.classList.toggle("present", data.present);
  frame.style.setProperty("--dense", data.colors.dense);
  frame.style.setProperty("--pruned", data.colors.pruned);
  data.gauges.forEach((gauge, index) => {
    let el = frame.children[index];
    if (!el) {
      el = make("div", index ? "gauge" : "gauge main", frame);
      const left = make("div", "", el);
      make("div", "name", left);
      const value = make("div", "value", left);
      make("span", "digits", value);
      make("small", "", value);
      make("div", "detail", left);
      // only the sentence is read aloud, not every number that comes in
      if (!index) make("div", "note", left).setAttribute("aria-live", "polite");
      if (!index) {
        const svg = draw("svg", { role: "img" }, el);
        new ResizeObserver(() => svg._draw && svg._draw()).observe(svg);
      }
    }
    el.dataset.testid = "gauge-" + gauge.id;
    el.dataset.state = data.state;
    el.dataset.recipe = data.recipe;
    el.dataset.value = gauge.value === null ? "" : String(gauge.value);
    el.dataset.tokens = String(data.tokens);
    el.title = gauge.help;
    el.querySelector(".name").textContent = gauge.name;
    // never a number between two: what stands here was measured or counted
    el.querySelector(".digits").textContent = gauge.text || "\u2013";
    el.querySelector("small").textContent = gauge.aside;
    el.querySelector(".detail").textContent = gauge.detail;
    if (!index) el.querySelector(".note").textContent = data.note;
    const svg = el.querySelector("svg");
    if (svg) {
      svg.setAttribute("aria-label", data.alt);
      svg._draw = () => spark(svg, data.spark, data.dense, data.dense_label);
      svg._draw();
    }
  });
  while (frame.children.length > data.gauges.length) frame.lastChild.remove();
}
"""


def gauges(
    numbers: Sequence[Mapping[str, Any]],
    *,
    state: str,
    recipe: str,
    tokens: int,
    note: str,
    alt: str,
    spark: Sequence[Mapping[str, Any]],
    dense: float | None,
    dense_label: str,
    colors: Mapping[str, str],
    present: bool,
) -> None:
    """Draw the gauges; the first is the large one.

    Args:
        numbers: dicts with ``id``, ``name``, ``value`` (or None), ``text`` (the value as it is
            shown, or empty), ``aside`` (beside it), ``detail`` (below), ``help``.
        state: ``empty``, ``estimating``, ``settled`` or ``stale`` (dimmed).
        recipe: fingerprint of the recipe the numbers belong to.
        tokens: predictions they rest on.
        note: says the state in words.
        alt: says what the curve shows.
        spark: estimates in order, dicts with ``tokens``, ``total``, ``value``, ``low``, ``high``.
        dense: level of the dense model.
        dense_label: its name.
        colors: ``dense`` and ``pruned``.
        present: larger type.
    """
    render = st.components.v2.component(
        "prunescope.gauges", html='<div class="frame"></div>', css=_CSS, js=_JS
    )
    render(
        key="_gauges",
        data={
            "gauges": [{**n, "value": finite(n["value"])} for n in numbers],
            "state": state,
            "recipe": recipe,
            "tokens": tokens,
            "note": note,
            "alt": alt,
            "spark": [_capped(point) for point in spark],
            "dense": finite(dense),
            "dense_label": dense_label,
            "colors": dict(colors),
            "present": present,
        },
    )


def finite(value: float | None) -> float | None:
    """JSON knows no infinity: 1e308 stands for it."""
    if value is None or math.isnan(value):
        return None
    return value if math.isfinite(value) else 1e308


def _capped(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: finite(content) for key, content in point.items()}
