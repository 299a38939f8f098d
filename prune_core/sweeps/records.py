"""Cells and runs: what a sweep asks for and what it found, as plain data. No torch here."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


@dataclass(frozen=True, slots=True)
class Cell:
    """One measurement: a model under a recipe on a text.

    Attributes:
        source: the model, as jobs name it.
        recipe: what is removed.
        text: what it is measured on.
        seq_len: tokens of a window.
        windows: windows asked for at most; a sweep may stop earlier where the interval is narrow.
        cost: also measure speed and memory of the model with the dropped parts cut out.
    """

    source: str
    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 512
    windows: int = 8
    cost: bool = False

    @property
    def key(self) -> str:
        """Hash over all fields: equal cells are measured once."""
        content = {**asdict(self), "recipe": self.recipe.to_dict()}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class Run:
    """A cell and what became of it.

    Attributes:
        id: unique in a store; the same cell of two sweeps is two runs.
        sweep: the sweep it belongs to, empty for one saved from the Studio.
        cell: what was asked.
        state: one of :data:`STATES`.
        numbers: empty until ``done``, then the result of ``engine.jobs.Evaluate`` without
            ``strip``, with ``cost``: ``parameters``, ``nonzero``, ``nonzero_dense`` (of the dense
            model), ``bytes_dense`` (all weights as stored), ``bytes_sparse`` (survivors and one bit
            a weight: an estimate), ``bytes_sparse_dense`` (the same of the dense model),
            ``bytes_shrunk`` (dropped parts cut out: exact), and where measured ``prefill``,
            ``decode`` (``median``, ``low``, ``high``: tokens per second) and ``peak_memory``
            (bytes), else None.
        error: one sentence where ``failed``.
        note: the user's own words.
        created: seconds since the epoch.
        finished: likewise, None while it is not.
        attempts: how often it was started.
    """

    id: str
    sweep: str
    cell: Cell
    state: str = "pending"
    numbers: Mapping[str, Any] = field(default_factory=dict)
    error: str | None = None
    note: str = ""
    created: float = 0.0
    finished: float | None = None
    attempts: int = 0


@dataclass(frozen=True, slots=True)
class Sweep:
    """A grid that was asked for.

    Attributes:
        id: unique in a store.
        name: what the user calls it.
        grid: as :meth:`prune_core.sweeps.grid.Grid.to_dict` gives it.
        created: seconds since the epoch.
        state: ``active``, ``paused`` or ``cancelled``; what its cells came to is in ``counts``.
        origin: ``cli`` or ``app``: who works on it.
        note: the user's own words.
        counts: runs by state, deleted ones left out.
    """

    id: str
    name: str
    grid: Mapping[str, Any]
    created: float
    state: str = "active"
    origin: str = "cli"
    note: str = ""
    counts: Mapping[str, int] = field(default_factory=dict)

    @property
    def cells(self) -> int:
        """How many runs it has."""
        return sum(self.counts.values())

    @property
    def ended(self) -> bool:
        """Nothing is left to do."""
        return not (self.counts.get("pending") or self.counts.get("running"))


class RunReader(Protocol):
    """What frontier, comparison and report need of a store."""

    def runs(
        self, *, sweep: str | None = None, ids: Sequence[str] | None = None, search: str = ""
    ) -> list[Run]:
        """Runs in the order they were asked for; deleted ones are left out."""
        ...
