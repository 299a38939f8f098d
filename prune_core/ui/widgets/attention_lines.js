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
