"""Attention as lines between two columns of tokens; hover or focus a token and only its lines stay.

After BertViz (Vig 2019, arXiv 1906.05714). Drawn by a small component: its node stays mounted, and
hovering costs no trip to the server. Token texts are set as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Sequence

import streamlit as st

ROW = 26  # pixels of a token's row
TALLEST = 560  # rows of a longer sentence get narrower, down to the smallest legible
NARROWEST = 15

_CSS = """
:host { display: block; }
.frame { position: relative; width: 100%; }
svg { width: 100%; display: block; overflow: visible; }
text { font-family: var(--st-font); fill: var(--st-text-color); }
.caption { opacity: .75; }
path { stroke: var(--st-primary-color); fill: none; stroke-linecap: round; }
g.token { cursor: default; outline: none; }
g.token rect { fill: transparent; rx: 5px; }
g.token:hover rect, g.token:focus-visible rect { fill: var(--st-secondary-background-color); }
g.token:focus-visible rect { stroke: var(--st-primary-color); }
.share { font-size: .8em; opacity: 0; }
"""

_JS = """
const NS = "http://www.w3.org/2000/svg";
function node(name, attributes, parent) {
  const made = document.createElementNS(NS, name);
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  parent.appendChild(made);
  return made;
}
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.replaceChildren();
  const { queries, keys, shares, labels, row, type } = data;
  const width = Math.max(300, frame.clientWidth || 480);
  const side = Math.min(11 * type, 0.32 * width), left = side, right = width - side, top = 2 * type;
  const height = top + row * Math.max(queries.length, keys.length) + 8;
  const svg = node("svg", { viewBox: `0 0 ${width} ${height}`, role: "group",
                            "font-size": type, "aria-label": labels.alt }, frame);
  node("text", { x: left - 8, y: type, "text-anchor": "end", class: "caption" }, svg)
    .textContent = labels.queries;
  node("text", { x: right + 8, y: type, class: "caption" }, svg).textContent = labels.keys;
  const y = (index) => top + row * (index + 0.5);
  const lines = [];
  shares.forEach((line, q) => line.forEach((share, k) => {
    if (share < 0.01) return;
    const middle = (left + right) / 2;
    const path = node("path", {
      d: `M ${left} ${y(q)} C ${middle} ${y(q)}, ${middle} ${y(k)}, ${right} ${y(k)}`,
      "stroke-width": 0.6 + 4 * share, opacity: 0.08 + 0.85 * share }, svg);
    lines.push({ q, k, share, path });
  }));
  const texts = { q: [], k: [] };
  const show = (side, index) => {
    for (const other of ["q", "k"]) texts[other].forEach((g) => {
      g.style.opacity = side === null ? 1 : 0.35;
      g.querySelector(".share").style.opacity = 0;
    });
    if (side !== null) texts[side][index].style.opacity = 1;
    for (const line of lines) {
      const on = side === null || line[side] === index;
      line.path.setAttribute("opacity", on
        ? (side === null ? 0.08 + 0.85 * line.share : 0.35 + 0.65 * line.share) : 0);
      if (on && side !== null) {
        const far = texts[side === "q" ? "k" : "q"][side === "q" ? line.k : line.q];
        far.style.opacity = 0.5 + 0.5 * Math.min(1, 2 * line.share);
        const share = far.querySelector(".share");
        share.textContent = `${(100 * line.share).toFixed(line.share < 0.1 ? 1 : 0)} %`;
        share.style.opacity = 1;
      }
    }
  };
  const column = (side, tokens, x, anchor) => tokens.forEach((token, index) => {
    const g = node("g", { class: "token", tabindex: 0, role: "listitem" }, svg);
    node("rect", { x: anchor === "end" ? 0 : x, y: y(index) - row / 2 + 1,
                   width: left, height: row - 2 }, g);
    node("text", { x: anchor === "end" ? x - 8 : x + 8, y: y(index) + 5,
                   "text-anchor": anchor }, g).textContent = token;
    node("text", { x: anchor === "end" ? 4 : width - 4, y: y(index) + 4, class: "share",
                   "text-anchor": anchor === "end" ? "start" : "end" }, g);
    g.addEventListener("pointerenter", () => show(side, index));
    g.addEventListener("pointerleave", () => show(null));
    g.addEventListener("focus", () => show(side, index));
    g.addEventListener("blur", () => show(null));
    texts[side].push(g);
  });
  column("q", queries, left, "end");
  column("k", keys, right, "start");
}
"""


def attention_lines(
    pattern: Sequence[Sequence[float]],
    tokens: Sequence[str],
    key_tokens: Sequence[str],
    *,
    queries: str,
    keys: str,
    alt: str,
    scale: float = 1.0,
) -> None:
    """Draw one head's attention as lines from each query token to the keys it looks at.

    Args:
        pattern: queries x keys, rows summing to 1; shares below 1 % are left out.
        tokens: texts of the queries, made visible (``theme.visible``).
        key_tokens: texts of the keys.
        queries: heading of the left column.
        keys: heading of the right column.
        alt: says in words what is drawn.
        scale: factor on type and rows.
    """
    longest = max(len(tokens), len(key_tokens), 1)
    row = round(scale * max(NARROWEST, min(ROW, TALLEST / longest)))
    render = st.components.v2.component(
        "prunescope.attention_lines", html='<div class="frame"></div>', css=_CSS, js=_JS
    )
    render(
        key="_attention_lines",
        data={
            "queries": list(tokens),
            "keys": list(key_tokens),
            "shares": [[round(share, 4) for share in row] for row in pattern],
            "labels": {"queries": queries, "keys": keys, "alt": alt},
            "row": row,
            "type": min(15 * scale, 0.85 * row),
        },
    )
