"""Cheap first: which cells deserve more windows. Pure; a decision depends on whole rounds only.

A first look at every cell reads a few windows. What lies on the front, or may lie on it, and is
not known well enough yet, is measured on twice as many, and so on: sequential testing in place of
one fixed budget. What a round decides is worked out from the windows that the round before read,
also where later numbers are known by now: a sweep that was killed and resumed decides the same.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

from prune_core.evaluation.estimate import Z95
from prune_core.sweeps.frontier import FRONT, UNCLEAR, frontier
from prune_core.sweeps.grid import FIRST_WINDOWS, Grid
from prune_core.sweeps.records import Run


def window_rounds(grid: Grid) -> list[int]:
    """Windows of each round: one round without an interval, else doubling from a few."""
    if grid.interval is None or grid.windows <= FIRST_WINDOWS:
        return [grid.windows]
    rounds = [FIRST_WINDOWS]
    while rounds[-1] < grid.windows:
        rounds.append(min(grid.windows, 2 * rounds[-1]))
    return rounds


def as_of(run: Run, windows: int) -> Run:
    """The run as its first ``windows`` windows alone show it: loss, perplexity and interval."""
    ours = list(run.numbers["window_nll"][:windows])
    dense = list(run.numbers["window_nll_dense"][:windows])
    count = len(ours)
    apart = [a - b for a, b in zip(ours, dense, strict=True)]
    delta, base = math.fsum(apart) / count, math.fsum(dense) / count
    error = None
    if count > 1:
        error = math.sqrt(math.fsum((d - delta) ** 2 for d in apart) / (count - 1) / count)
    loss = base + delta
    numbers = {
        **run.numbers,
        "window_nll": ours,
        "window_nll_dense": dense,
        "nll": loss,
        "delta_nll": delta,
        "delta_nll_stderr": error,
        "perplexity": _exp(loss),
        "perplexity_dense": _exp(base),
        "perplexity_low": None if error is None else _exp(loss - Z95 * error),
        "perplexity_high": None if error is None else _exp(loss + Z95 * error),
    }
    return replace(run, numbers=numbers)


def _exp(loss: float) -> float:
    return math.exp(loss) if loss < 700 else math.inf


def to_refine(runs: Sequence[Run], before: int, interval: float) -> list[str]:
    """Runs that the next round measures on more windows.

    Args:
        runs: of one model and text; those that are done count.
        before: windows that the round before read.
        interval: half width of the 95 % interval that suffices, as a share of the perplexity.

    Returns:
        Their ids, in the runs' order.
    """
    measured = [
        as_of(run, before)
        for run in runs
        if run.state == "done" and run.numbers.get("metric") == "perplexity"
    ]
    front = frontier(measured)
    points = [*front.points, *([front.dense] if front.dense and front.dense.run else [])]
    hopeful = {point.run for point in points if point.state in (FRONT, UNCLEAR)}
    hopeful |= set(front.unclear)
    return [run.id for run in measured if run.id in hopeful and half_width(run) > interval]


def half_width(run: Run) -> float:
    """Half the width of the 95 % interval as a share of the perplexity; infinite if unknown."""
    error = run.numbers.get("delta_nll_stderr")
    return math.inf if error is None else Z95 * float(error)


def windows_of(numbers: Mapping[str, Any]) -> int:
    """Windows that a run's numbers were measured on."""
    return int(numbers.get("windows") or 0)


def next_refinement(grid: Grid, runs: list[Run]) -> tuple[Run, int] | None:
    """The next run that deserves more windows, and how many; None where all is clear enough."""
    rounds = window_rounds(grid)
    if grid.interval is None:
        return None
    places = {(run.cell.source, run.cell.text) for run in runs}
    for before, windows in pairwise(rounds):
        for place in sorted(places, key=str):
            alike = [run for run in runs if (run.cell.source, run.cell.text) == place]
            ids = set(to_refine(alike, before, grid.interval))
            for run in alike:
                if run.id in ids and windows_of(run.numbers) < windows:
                    return run, windows
    return None
