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
