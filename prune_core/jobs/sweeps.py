"""Jobs of a sweep: a cell, and the largest removal within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class MeasureCell(Job):
    """What a cell of a sweep asks for: a recipe's quality and its costs.

    ``start``: windows of the text that are left out at its beginning. ``cost``: measure speed and
    memory too.
    Events: as :class:`Evaluate`, then ``stage`` ``write`` and ``measure`` with ``done``, ``total``.
    Result: that of :class:`Evaluate` without ``strip``, and what
    ``prune_core.exporting.cost.cost_numbers`` gives.
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 512
    windows: int = 8
    start: int = 0
    cost: bool = False
    priority: ClassVar[int] = 3
    deadline: ClassVar[float] = 1800.0


@dataclass(frozen=True, slots=True)
class Budget(Job):
    """The largest removal that keeps a promise; see ``prune_core.sweeps.budget``.

    ``recipes``: one for each method that may be used. ``promise``: as ``5%`` or ``60MB``.
    ``known``: runs that answer already, as JSON (``sweeps.store.portable.run_to_dict``).
    Events: ``stage`` ``budget``, ``method`` (list), ``sparsity`` (measured now), ``evaluations``
    (of this method so far), ``limit`` (most of them), ``answers`` (of methods that are through).
    Result: ``budget``, ``answers`` (one for each method), ``best`` (of them, or None) and
    ``sentence``, see ``prune_core.sweeps.telling.solution_to_dict``; ``seconds``.
    """

    recipes: tuple[Recipe, ...] = ()
    promise: str = "5%"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 512
    windows: int = 8
    known: tuple[str, ...] = ()
    deadline: ClassVar[float] = 7200.0
