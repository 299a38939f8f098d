"""What an allocation is: how a total sparsity is shared over the layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from prune_core.errors import RecipeError
from prune_core.patterns import Pattern
from prune_core.registry import Registry


@dataclass(frozen=True, slots=True)
class Part:
    """A layer as allocation sees it."""

    rows: int
    columns: int
    block: int
    role: str

    @property
    def numel(self) -> int:
        """Number of weights."""
        return self.rows * self.columns


Parts = Mapping[str, Part]


@dataclass(frozen=True, slots=True)
class AllocationRequest:
    """What every allocation is asked.

    Attributes:
        parts: the layers that lose weights.
        pattern: how cuts count.
        sparsity: of all their weights together, above 0.
    """

    parts: Parts
    pattern: Pattern
    sparsity: float


@dataclass(frozen=True, slots=True)
class Cuts:
    """What an allocation answers.

    Attributes:
        counts: cut of each layer; one that is not named loses the total by its pattern.
        full: layers that go whole because their share would exceed 1.
    """

    counts: Mapping[str, int] = field(default_factory=dict)
    full: tuple[str, ...] = ()


SCORED = frozenset({"ordered", "outliers", "increases"})
"""Needs that the scores of all layers must be known for."""

ALLOCATIONS: Registry[Callable[..., Cuts]] = Registry("allocation", "prune_core.allocation")
"""An allocation takes :class:`AllocationRequest` and, by name, each of its needs:

``multipliers``: the recipe's ``allocation_args``. ``roles``, ``blocks``: those the model has.
``ordered``: each layer's scores, ascending, and those of parts that are gone; then it cannot be
used block by block. ``outliers``: from a limit to each block's share of outlying scores.
``increases``: measured losses, see ``prune_core.allocation.sensitivity``.

Its ``pattern`` is the only one that it can be of. Texts of an entry: ``title``, ``short`` name,
what it ``measures`` (who loses how much).
"""


def check_known(missing: set[str]) -> None:
    """Refuse shares of parts that the model does not have.

    Raises:
        RecipeError: any is missing; the first is named.
    """
    if missing:
        raise RecipeError(
            "this model has no {missing}; the recipe was made for another one.",
            missing=min(missing),
        )
