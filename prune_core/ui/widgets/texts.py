"""The Studio's texts: two answers side by side, and the evaluation text shaded by damage.

Both are components that set text as text: tokens come from models and files.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from prune_core.figures.theme import visible
from prune_core.ui.widgets.mounting import component

WORST = 5.0  # nats of added loss at the end of the color ramp


def answers(
    sides: Sequence[Mapping[str, Any]],
    *,
    divergence: int | None,
    recipe: str,
    stale: bool,
    writing: bool,
    part_help: str,
    present: bool,
) -> None:
    """Draw answers side by side, the first differing token marked.

    Args:
        sides: dicts with ``id``, ``name``, ``note``, ``pieces``, ``finished``, ``color``,
            ``empty`` (shown before there is text).
        divergence: index of the first differing token.
        recipe: fingerprint of the pruned side's recipe.
        stale: belongs to an earlier recipe or prompt.
        writing: tokens are still coming.
        part_help: says what the mark means.
        present: larger type.
    """
    component("answers")(
        key="_answers",
        data={
            "answers": [dict(side) for side in sides],
            "divergence": divergence,
            "recipe": recipe,
            "stale": stale,
            "writing": writing,
            "part_help": part_help,
            "present": present,
        },
    )


def strip(
    tokens: Sequence[Sequence[Any]],
    ramp: Sequence[Sequence[Any]],
    *,
    labels: Mapping[str, str],
    stale: bool,
    dark: bool,
) -> None:
    """The evaluation text, each token shaded by how much worse it became.

    Args:
        tokens: (text, dense loss, pruned loss) each, in nats.
        ramp: diverging color stops (position, color), 0.5 = unchanged.
        labels: ``better``, ``worse``, ``hint``, ``alt``, ``read`` (with [token], [dense],
            [pruned], [change]).
        stale: belongs to an earlier recipe.
        dark: the page is dark.
    """
    shaded = [
        [_shown(str(text)), round(dense, 3), round(pruned, 3), *shade(pruned - dense, ramp, dark)]
        for text, dense, pruned in tokens
    ]
    component("strip")(
        key="_strip",
        data={
            "tokens": shaded,
            "labels": dict(labels),
            "stale": stale,
            "ramp": [color for _, color in ramp],
        },
    )


def _shown(token: str) -> str:
    """A token with control characters made visible; line breaks and spaces stay as they are."""
    return "".join(c if c in "\n " else visible(c) for c in token)


def shade(change: float, ramp: Sequence[Sequence[Any]], dark: bool) -> tuple[str, str]:
    """Background and ink of a token; a change too small to matter has none."""
    if abs(change) < 0.1:
        return "", ""
    place = 0.5 + 0.5 * max(-1.0, min(1.0, change / WORST))
    for (left, low), (right, high) in pairwise(ramp):
        if place <= right:
            color = _mix(low, high, (place - left) / (right - left))
            break
    else:
        color = tuple(int(str(ramp[-1][1])[i : i + 2], 16) for i in (1, 3, 5))
    light = (0.299 * color[0] + 0.587 * color[1] + 0.114 * color[2]) / 255
    return f"rgb({color[0]},{color[1]},{color[2]})", "#14181D" if light > 0.5 else "#FFFFFF"


def _mix(low: str, high: str, share: float) -> tuple[int, ...]:
    ends = [[int(c[i : i + 2], 16) for i in (1, 3, 5)] for c in (low, high)]
    return tuple(round(a + (b - a) * share) for a, b in zip(*ends, strict=True))
