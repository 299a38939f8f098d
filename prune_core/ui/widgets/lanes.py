"""Texts side by side: answers to one prompt, and one passage with a lane for each recipe.

Both are components that set text as text: tokens come from models and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.figures.theme import visible
from prune_core.ui.widgets.mounting import component
from prune_core.ui.widgets.texts import shade


def compared_answers(
    answers: Sequence[Mapping[str, Any]],
    *,
    dense_color: str,
    part_help: str,
    position: str,
    present: bool,
) -> None:
    """Draw answers to one prompt; where each leaves the dense model's is marked.

    Args:
        answers: dense first; dicts with ``id``, ``mark``, ``name``, ``color``, ``pieces``,
            ``same`` (by token: as the dense answer has at that place), ``divergence`` (index of
            the first difference or None), ``parted`` (says it in words), ``finished``,
            ``writing``, ``old``, ``here``, ``empty``.
        dense_color: of tokens as in the dense answer.
        part_help: says what the mark means.
        position: tooltip of a place, with [n].
        present: larger type.
    """
    component("compared_answers")(
        key="_compared_answers",
        data={
            "answers": [dict(answer) for answer in answers],
            "dense_color": dense_color,
            "part_help": part_help,
            "position": position,
            "present": present,
        },
    )


def lanes(
    strips: Mapping[str, Sequence[Sequence[Any]]],
    ramp: Sequence[Sequence[Any]],
    *,
    labels: Mapping[str, str],
    dark: bool,
) -> None:
    """One passage, token by token, with a shaded cell for each recipe below every token.

    Args:
        strips: by slot, (text, dense loss, pruned loss) of the same tokens.
        ramp: diverging color stops (position, color), 0.5 = unchanged.
        labels: ``lanes``, ``better``, ``worse``, ``hint``, ``alt``, ``read`` (with [token],
            [dense]), ``lane`` (with [name], [loss], [change]).
        dark: the page is dark.
    """
    tokens = []
    for row in zip(*strips.values(), strict=True):
        text, dense = str(row[0][0]), float(row[0][1])
        cells = [[round(p, 3), *shade(p - d, ramp, dark)] for _, d, p in row]
        shown = "".join(c if c in "\n " else visible(c) for c in text)
        tokens.append([shown, round(dense, 3), *cells])
    component("lanes")(
        key="_lanes",
        data={
            "names": list(strips),
            "tokens": tokens,
            "labels": dict(labels),
            "ramp": [color for _, color in ramp],
        },
    )
