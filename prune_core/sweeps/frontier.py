"""Size against quality: which runs nothing beats, where it turns, and what is not yet certain.

Pure: no torch, no Plotly. A run *beats* another if it costs no more and is better, or costs less
and is no worse. On the axis of cost, differences up to ``TIE`` of the dense model's value are ties:
criteria that compare within rows round the same sparsity a little differently.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from prune_core.evaluation.estimate import Z95
from prune_core.evaluation.metrics import METRICS
from prune_core.models.weight_counts import added_share
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import (
    LOSS,
    MORE_IS_BETTER,
    Value,
    check_alike,
    cost_value,
    dense_cost,
    exact,
    method_of,
    paired,
    quality_value,
)
from prune_core.sweeps.records import Run

TIE = 0.005
LEAST_BEND = 0.05
"""A front whose deepest point lies less below its chord, both axes being 1 long, has no knee."""

FRONT, UNCLEAR, DOMINATED = "front", "unclear", "dominated"


@dataclass(frozen=True, slots=True)
class Point:
    """One run in the picture.

    Attributes:
        run: id of the run; empty for the dense model where no run measured it.
        method: see ``axes.method_of``; empty for the dense model.
        recipe: what was removed.
        sparsity: counted: removed over all prunable weights.
        added: of the prunable weights, those that are zero by the recipe alone.
        cost, quality: places on the two axes.
        state: ``front`` (nothing beats it), ``unclear`` (something seems to, but the difference
            lies within the error) or ``dominated`` (something surely does).
        beaten_by: methods of the points that beat it, best first.
    """

    run: str
    method: tuple[str, ...]
    recipe: Recipe
    sparsity: float
    added: float
    cost: Value
    quality: Value
    state: str = FRONT
    beaten_by: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True, slots=True)
class Frontier:
    """The picture's content.

    Attributes:
        cost, quality: names of the axes.
        points: of all runs that could be placed, the dense model left out, in the runs' order.
        dense: the dense model, None where its place on the axis of cost is not known.
        front: points that nothing beats, the dense model among them, cheapest first.
        knee: the point of the front after which quality is lost fastest; None where the front
            does not bend.
        dominated: methods of which every point is surely beaten, with the methods that do it.
        left_out: ids of runs that have no place (not measured on an axis, or not finite).
        unclear: ids of runs that more windows could move onto the front or off it.
    """

    cost: str
    quality: str
    points: tuple[Point, ...]
    dense: Point | None
    front: tuple[Point, ...]
    knee: Point | None
    dominated: Mapping[tuple[str, ...], tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    left_out: tuple[str, ...] = ()
    unclear: tuple[str, ...] = ()


def frontier(runs: Sequence[Run], cost: str = "nonzero", quality: str = "perplexity") -> Frontier:
    """Place finished runs on two axes and find the front.

    Args:
        runs: of one protocol; those not ``done`` are passed over.
        cost: one of ``axes.COSTS``.
        quality: one of ``axes.QUALITIES``.

    Raises:
        UnlikeRunsError: the runs were measured in different ways.
    """
    done = [run for run in runs if run.state == "done"]
    check_alike(done)
    dense_loss = _dense_loss(done)
    placed: list[Point] = []
    measured: dict[str, Run] = {}
    left_out: list[str] = []
    dense: Point | None = None
    for run in done:
        x, y = cost_value(run, cost), quality_value(run, quality, dense_loss)
        if x is None or y is None:
            left_out.append(run.id)
            continue
        share, added = float(run.numbers.get("sparsity") or 0.0), added_share(run.numbers)
        point = Point(run.id, method_of(run.cell.recipe), run.cell.recipe, share, added, x, y)
        measured[run.id] = run
        if run.cell.recipe.is_dense:
            dense = point
        else:
            placed.append(point)
    dense = dense or _dense_point(done, cost, quality, dense_loss)
    rivals = [*placed, *([dense] if dense else [])]
    tie = TIE * dense.cost.value if dense and cost in ("nonzero", "bytes", "memory") else 0.0
    ranking = _Ranking(cost, quality, tie, measured)
    judged = {point.run: ranking.judge(point, rivals) for point in rivals}
    points = tuple(judged[point.run] for point in placed)
    sign = -1 if cost in MORE_IS_BETTER else 1
    front = sorted(
        (point for point in judged.values() if point.state == FRONT),
        key=lambda point: (sign * point.cost.value, point.run),
    )
    return Frontier(
        cost,
        quality,
        points,
        judged[dense.run] if dense else None,
        tuple(front),
        knee(front, cost, quality),
        _dominated_methods(points),
        tuple(left_out),
        tuple(sorted(run for run in ranking.undecided if run)),
    )


def _dense_loss(runs: Sequence[Run]) -> float | None:
    """Mean dense loss over all windows, of the run that read most."""
    longest = max(
        runs, key=lambda run: len(run.numbers.get("window_nll_dense") or []), default=None
    )
    if longest is None or not longest.numbers.get("perplexity_dense"):
        return None
    return math.log(longest.numbers["perplexity_dense"])


def _dense_point(
    runs: Sequence[Run], cost: str, quality: str, dense_loss: float | None
) -> Point | None:
    """The dense model as the runs know it: every one carries its size and its perplexity."""
    for run in runs:
        place = dense_cost(run.numbers, cost)
        worth = METRICS[quality].unchanged
        if METRICS[quality].paired == LOSS:
            worth = None if dense_loss is None else math.exp(dense_loss)
        if place is not None and worth is not None:
            return Point("", (), Recipe(), 0.0, 0.0, place, exact(worth))
    return None


class _Ranking:
    """Compares points on two axes; less is better on both after a change of sign."""

    def __init__(self, cost: str, quality: str, tie: float, runs: Mapping[str, Run]) -> None:
        self.cost_sign = -1 if cost in MORE_IS_BETTER else 1
        self.quality_sign = -1 if quality in MORE_IS_BETTER else 1
        self.tie = tie
        self.pairs = runs if METRICS[quality].paired == LOSS else {}
        self.undecided: set[str] = set()

    def judge(self, point: Point, rivals: Sequence[Point]) -> Point:
        """The point with its state, given all others."""
        beaten: list[tuple[float, Point]] = []
        sure = False
        for rival in rivals:
            if rival.run == point.run or not self._seems_beaten(point, rival):
                continue
            beaten.append((self.quality_sign * rival.quality.value, rival))
            sure = sure or self._surely_beaten(point, rival)
        if not beaten:
            return point
        methods = [rival.method for _, rival in sorted(beaten, key=lambda pair: pair[0])]
        state = DOMINATED if sure else UNCLEAR
        if not sure:
            self.undecided |= {point.run, *(rival.run for _, rival in beaten)}
        return replace(point, state=state, beaten_by=tuple(dict.fromkeys(methods)))

    def _seems_beaten(self, point: Point, rival: Point) -> bool:
        dearer = self.cost_sign * (rival.cost.value - point.cost.value)
        worse = self.quality_sign * (rival.quality.value - point.quality.value)
        return (dearer <= self.tie and worse < 0) or (dearer < -self.tie and worse <= 0)

    def _surely_beaten(self, point: Point, rival: Point) -> bool:
        if self.cost_sign > 0:
            cheap = rival.cost.high <= point.cost.low + self.tie
        else:
            cheap = rival.cost.low >= point.cost.high - self.tie
        return cheap and self._surely_better(rival, point)

    def _surely_better(self, one: Point, other: Point) -> bool:
        """By the paired difference of losses where there is one, else by the two intervals."""
        if one.run in self.pairs and other.run in self.pairs:
            apart = paired(self.pairs[one.run], self.pairs[other.run])
            if apart is not None:
                return apart[0] < -Z95 * apart[1]
        if self.quality_sign > 0:
            return one.quality.high < other.quality.low
        return one.quality.low > other.quality.high


def _dominated_methods(
    points: Sequence[Point],
) -> dict[tuple[str, ...], tuple[tuple[str, ...], ...]]:
    """Methods that are surely beaten at every point, and by which others, most often first."""
    dominators: dict[tuple[str, ...], tuple[tuple[str, ...], ...]] = {}
    for method in dict.fromkeys(point.method for point in points):
        mine = [point for point in points if point.method == method]
        if any(point.state != DOMINATED for point in mine):
            continue
        others = [rival for point in mine for rival in point.beaten_by if rival and rival != method]
        if not others:
            continue  # beaten by its own other points or by the dense model only
        dominators[method] = tuple(
            sorted(set(others), key=lambda name: (-others.count(name), name))
        )
    return dominators


def knee(front: Sequence[Point], cost: str, quality: str) -> Point | None:
    """Where a front turns: the point farthest below the chord between its two ends.

    Kneedle's criterion (Satopaa et al. 2011) with both axes scaled to [0, 1]; costs and
    perplexity enter by their logarithms (``Metric.scale``), other qualities as they are. None
    below three points, or where none lies more than ``LEAST_BEND`` below the chord.
    """
    if len(front) < 3:
        return None
    by_log = METRICS[quality].scale == "logarithmic"
    across = [_scaled(point.cost.value, by_log=True) for point in front]
    up = [_scaled(point.quality.value, by_log=by_log) for point in front]
    x0, x1, y0, y1 = min(across), max(across), min(up), max(up)
    if x1 <= x0 or y1 <= y0:
        return None
    flip_x, flip_y = cost in MORE_IS_BETTER, quality in MORE_IS_BETTER

    def depth(index: int) -> float:
        x, y = (across[index] - x0) / (x1 - x0), (up[index] - y0) / (y1 - y0)
        x, y = (1 - x if flip_x else x), (1 - y if flip_y else y)
        return (1 - x - y) / math.sqrt(2)  # below the chord from (0, 1) to (1, 0)

    best = max(range(1, len(front) - 1), key=depth)
    return front[best] if depth(best) > LEAST_BEND else None


def _scaled(value: float, *, by_log: bool) -> float:
    return math.log(max(value, 1e-12)) if by_log else value
