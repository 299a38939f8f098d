export default function ({ data, parentElement }) {
  const frame = parentElement.querySelector("iframe");
  if (frame.dataset.key === data.key) return;
  frame.dataset.key = data.key;
  frame.title = data.title;
  frame.srcdoc = data.page;
}
