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
    add("span", "word", word.replaceAll("\n", "⏎"), el);
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
    if (word.includes("\n")) add("span", "break", "", text);
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
