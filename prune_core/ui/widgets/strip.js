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
