const make = (cls, text, parent) => {
  const el = document.createElement("span"); el.className = cls; el.textContent = text;
  parent.appendChild(el); return el;
};
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.className = "frame" + (data.stale ? " stale" : "") + (data.present ? " present" : "");
  data.answers.forEach((answer, index) => {
    let el = frame.children[index];
    if (!el) {
      el = document.createElement("section"); el.className = "answer";
      const head = document.createElement("div"); head.className = "head";
      make("", "", head); make("", "", head);
      const body = document.createElement("div"); body.className = "body";
      el.append(head, body); frame.appendChild(el);
    }
    el.dataset.testid = "answer-" + answer.id;
    el.dataset.finished = String(answer.finished);
    el.dataset.recipe = data.recipe;
    el.style.setProperty("--side", answer.color);
    const [name, note] = el.querySelectorAll(".head span");
    name.textContent = answer.name; note.textContent = answer.note;
    const body = el.querySelector(".body");
    body.replaceChildren();
    if (!answer.pieces.length) { make("empty", answer.empty, body); return; }
    const at = data.divergence;
    if (at === null) make("", answer.pieces.join(""), body);
    else {
      make("", answer.pieces.slice(0, at).join(""), body);
      if (at < answer.pieces.length) {
        const part = make("part", answer.pieces[at], body); part.title = data.part_help;
        make("after", answer.pieces.slice(at + 1).join(""), body);
      }
    }
    if (!answer.finished && data.writing) make("caret", "", body);
  });
}
