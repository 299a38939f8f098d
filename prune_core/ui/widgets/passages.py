"""Passages where a neuron fires, each token shaded by how much."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.figures.theme import visible
from prune_core.ui.widgets.mounting import component

GLUED = "##"
"""Begins a WordPiece token that goes on with the word before it."""
JOINS = ("'", "\u2019", "-")
OPENS = ("Ps", "Pi")
"""Unicode's categories of brackets and quotation marks that open."""

_JS = """
export default function (component) {
  const { data, parentElement } = component;
  const frame = parentElement.querySelector(".passages");
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
"""


def readable(passages: Sequence[Sequence[str]]) -> list[list[str]]:
    """Tokens that read as a text when put one after the other: WordPiece gets its spaces back.

    Tokens with spaces of their own, and those of writing that has none, stay as they are.
    """
    tokens = [token for passage in passages for token in passage]
    if any(token[:1].isspace() or token[-1:].isspace() for token in tokens):
        return [list(passage) for passage in passages]
    if not any(_continues(token) for token in tokens):
        words = [token for token in tokens if token.isalnum()]
        # whole words or single bytes and characters: only the former have spaces between them
        if sum(len(word) > 1 and not _wide(word[0]) for word in words) * 2 <= len(words):
            return [list(passage) for passage in passages]
    return [_joined(passage) for passage in passages]


def _joined(passage: Sequence[str]) -> list[str]:
    found = []
    for index, token in enumerate(passage):
        space = " " if _apart(passage[:index], token) else ""
        found.append(space + (token[len(GLUED) :] if _continues(token) else token))
    return found


def _continues(token: str) -> bool:
    return len(token) > len(GLUED) and token.startswith(GLUED)


def _apart(before: Sequence[str], token: str) -> bool:
    """Whether a space stands between a token and those before it."""
    if not before or not before[-1] or not token or _continues(token):
        return False
    last = before[-1]
    if _wide(last[-1]) and _wide(token[0]):
        return False
    if last in JOINS and len(before) > 1 and before[-2][-1:].isalnum():
        return False  # that's, well-known
    if len(last) == 1 and unicodedata.category(last) in OPENS:
        return False
    begun = unicodedata.category(token[0])
    return not begun.startswith("P") or begun in OPENS


def _wide(character: str) -> bool:
    """Of a writing without spaces: Chinese, Japanese, Korean."""
    return unicodedata.east_asian_width(character) in ("W", "F")


def passages(found: Sequence[Mapping[str, Any]], notes: Sequence[str]) -> None:
    """Draw passages: orange where the activation is above zero, blue below.

    Args:
        found: dicts with ``tokens``, ``activations`` and ``at`` (index of the strongest).
        notes: a line above each.
    """
    most = max((abs(x) for one in found for x in one["activations"]), default=1.0) or 1.0
    texts = readable([one["tokens"] for one in found])
    component("passages")(
        key="_passages",
        data={
            "passages": [
                {
                    "tokens": [visible(token, 30) for token in tokens],
                    "values": [round(float(x), 5) for x in one["activations"]],
                    "at": one["at"],
                    "most": most,
                    "note": note,
                }
                for one, tokens, note in zip(found, texts, notes, strict=True)
            ]
        },
    )
