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
