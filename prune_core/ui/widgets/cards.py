"""One card per recipe: its numbers, on a scale that all cards share. Texts are set as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.ui.widgets.mounting import component, source


def card(slot: str, data: Mapping[str, Any]) -> None:
    """Draw one card.

    Args:
        slot: letter.
        data: ``mark``, ``title``, ``detail``, ``label``, ``value`` (number or None), ``shown`` (as
            text), ``aside``, ``low``, ``high``, ``dense``, ``dense_label``, ``scale`` (numbers
            that the axis must hold), ``others`` (values of the other cards), ``rows`` (name,
            value, more, help), ``note``, ``state`` (``waiting``, ``estimating``, ``settled``,
            ``stale``, ``stopped`` or ``failed``), ``recipe`` (fingerprint), ``alt``, ``color``,
            ``dense_color``, ``here`` (chosen), ``present``.
    """
    component("card", source("card.html"))(key=f"_card_{slot}", data={"slot": slot, **data})


def axis_scale(numbers: Sequence[float | None]) -> list[float]:
    """What the shared axis must hold: finite numbers below 1e6."""
    return [x for x in numbers if x is not None and abs(x) < 1e6]
