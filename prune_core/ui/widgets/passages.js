export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".frame");
  frame.replaceChildren();
  for (const passage of data.passages) {
    const box = document.createElement("div"); box.className = "passage";
    const note = document.createElement("span"); note.className = "note";
    note.textContent = passage.note; box.appendChild(note);
    passage.tokens.forEach((token, index) => {
      const el = document.createElement("span");
      el.className = "token" + (index === passage.at ? " at" : "");
      // at the end of a line its space must not stay behind in a frame of its own
      const word = index === passage.at ? token.trimStart() || token : token;
      box.append(token.slice(0, token.length - word.length));
      el.textContent = word; el.title = passage.values[index].toPrecision(3);
      const share = Math.abs(passage.values[index]) / passage.most;
      const color = passage.values[index] < 0 ? "86, 180, 233" : "213, 94, 0";
      el.style.background = `rgba(${color}, ${Math.min(1, share) * 0.55})`;
      box.appendChild(el);
    });
    frame.appendChild(box);
  }
}
