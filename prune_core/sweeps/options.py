"""Three options for people who choose: small, medium and large removals, each with its price. Pure.

The largest removal on the front whose quality lost stays below a bound: a perplexity at most 5 %,
25 % or 100 % above the dense model's, or for encoders a similarity at least 0.98, 0.95 or 0.85.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from prune_core.evaluation.metrics import LANGUAGE, METRICS, headline_of, metrics_of
from prune_core.sweeps.frontier import Frontier, Point, frontier
from prune_core.sweeps.records import Run

NAMES = ("small", "medium", "large")
BOUNDS = {"perplexity": (0.05, 0.25, 1.0), "similarity": (0.02, 0.05, 0.15)}


@dataclass(frozen=True, slots=True)
class Option:
    """One of the three.

    Attributes:
        name: ``small``, ``medium`` or ``large``.
        bound: how much quality the option may cost at most.
        run: the run behind it.
        point: its place.
        lost, low, high: share of perplexity above dense, or similarity lost, with its 95 %
            interval.
    """

    name: str
    bound: float
    run: Run
    point: Point
    lost: float
    low: float
    high: float


def quality_axis(runs: Sequence[Run]) -> str:
    """``perplexity``, or ``similarity`` where the runs are an encoder's."""
    measured = {str(run.numbers.get("metric")) for run in runs}
    plain = headline_of(LANGUAGE).name
    others = [row.name for row in metrics_of("headline") if row.name in measured - {plain}]
    return others[0] if others else plain


def lost(point: Point, dense: Point | None, quality: str) -> tuple[float, float, float] | None:
    """Quality lost against dense, and its interval; None where the dense value is not known."""
    value = point.quality
    best = METRICS[quality].unchanged
    if best is not None and METRICS[quality].more_is_better:
        return best - value.value, best - value.high, best - value.low
    if dense is None or not dense.quality.value:
        return None
    base = dense.quality.value
    return value.value / base - 1, value.low / base - 1, value.high / base - 1


def three_options(runs: Sequence[Run], front: Frontier | None = None) -> list[Option]:
    """Small, medium and large, as far as the runs hold them; no run stands for two.

    Args:
        runs: finished, measured alike.
        front: their front by size and quality, where it is known already.

    Raises:
        UnlikeRunsError: the runs were measured in different ways.
    """
    quality = quality_axis(runs)
    by_id = {run.id: run for run in runs}
    front = front or frontier(runs, "nonzero", quality)
    priced = []
    for point in front.front:
        price = lost(point, front.dense, quality)
        # what was zero before is no removal
        if point.run in by_id and point.added > 0 and price is not None:
            priced.append((point, price))
    options: list[Option] = []
    for name, bound in zip(NAMES, BOUNDS[quality], strict=True):
        fitting = [(point, price) for point, price in priced if price[0] <= bound]
        if not fitting:
            continue
        point, price = max(fitting, key=lambda pair: (pair[0].added, -pair[1][0]))
        if all(option.run.id != point.run for option in options):
            options.append(Option(name, bound, by_id[point.run], point, *price))
    return options
