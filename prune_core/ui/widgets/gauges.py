"""The Studio's gauges: one light component that stays mounted while numbers come in.

No Plotly here: a chart costs a fifth of a second per update, this a few milliseconds. Texts are
set as text, never as markup.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.ui.widgets.mounting import component
from prune_core.words.numbers import finite


def gauges(
    numbers: Sequence[Mapping[str, Any]],
    *,
    state: str,
    recipe: str,
    tokens: int,
    note: str,
    alt: str,
    spark: Sequence[Mapping[str, Any]],
    dense: float | None,
    dense_label: str,
    colors: Mapping[str, str],
    present: bool,
) -> None:
    """Draw the gauges; the first is the large one.

    Args:
        numbers: dicts with ``id``, ``name``, ``value`` (or None), ``text`` (the value as it is
            shown, or empty), ``aside`` (beside it), ``detail`` (below), ``help``.
        state: ``empty``, ``estimating``, ``settled`` or ``stale`` (dimmed).
        recipe: fingerprint of the recipe the numbers belong to.
        tokens: predictions they rest on.
        note: says the state in words.
        alt: says what the curve shows.
        spark: estimates in order, dicts with ``tokens``, ``total``, ``value``, ``low``, ``high``.
        dense: level of the dense model.
        dense_label: its name.
        colors: ``dense`` and ``pruned``.
        present: larger type.
    """
    component("gauges")(
        key="_gauges",
        data={
            "gauges": [{**n, "value": finite(n["value"])} for n in numbers],
            "state": state,
            "recipe": recipe,
            "tokens": tokens,
            "note": note,
            "alt": alt,
            "spark": [_capped(point) for point in spark],
            "dense": finite(dense),
            "dense_label": dense_label,
            "colors": dict(colors),
            "present": present,
        },
    )


def _capped(point: Mapping[str, Any]) -> dict[str, Any]:
    return {key: finite(content) for key, content in point.items()}
