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
