"""What follows from single choices of a recipe: its pattern, and whether a text is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from prune_core.allocation import ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.recipes.checks import MAX_DIGITS
from prune_core.registry import Registry

OWN_PATTERN = "own"
"""Stands for the pattern that the criterion is meant for; a recipe always holds that one's name."""

RECONSTRUCTIONS: Registry[Callable[..., Any]] = Registry(
    "reconstruction", "prune_core.pruning.reconstructions"
)
"""What repairs the weights that stay; see ``prune_core.pruning.reconstructions``.

Texts of an entry: ``title``, ``short`` name, what it ``measures`` (what it does).
"""


def choices_read_calibration(
    criterion: str,
    allocation: str = "uniform",
    reconstruction: str = "none",
    *,
    neurons: bool = False,
    criterion_args: Mapping[str, Any] | None = None,
) -> bool:
    """True if a recipe of these choices reads a calibration text as soon as weights go.

    The one place that decides it: of a whole recipe ask :attr:`Recipe.reads_calibration`, and this
    where the share that goes is not chosen yet (a form, a grid, a search for the right share).

    Args:
        criterion: registered criterion.
        allocation: of ``prune_core.allocation.ALLOCATIONS``.
        reconstruction: of :data:`RECONSTRUCTIONS`.
        neurons: what neurons do on a text decides something, see :attr:`Recipe.reads_neurons`.
        criterion_args: of the criterion.

    Raises:
        UnknownNameError: no such criterion.
    """
    scored = bool(CRITERIA[criterion].needs_for(criterion_args or {}))
    measured = allocation in ALLOCATIONS and "increases" in ALLOCATIONS[allocation].needs
    return neurons or scored or measured or reconstruction != "none"


def own_pattern(criterion: str, allocation: str = "uniform") -> str:
    """The pattern that a criterion is meant for, or the only one that the allocation can be of.

    A criterion that is not registered has ``per-layer``.
    """
    only = ALLOCATIONS[allocation].pattern if allocation in ALLOCATIONS else ""
    if only or criterion not in CRITERIA:
        return only or "per-layer"
    return CRITERIA[criterion].pattern


def allocation_taking(name: str) -> str | None:
    """The allocation that an argument of this name belongs to; None if there is none.

    One that is named, or for a block's index ``manual``, for a role ``per-role``.
    """
    for entry in ALLOCATIONS.values():
        if name in entry.defaults:
            return entry.name
    if name.isdecimal():
        # no model has that many blocks, and Python reads no number that is much longer
        return "manual" if len(name) <= MAX_DIGITS else None
    return "per-role" if "." in name else None
