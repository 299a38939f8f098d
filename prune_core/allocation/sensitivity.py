"""Sensitivity: share the budget so that the measured loss increases add up to least."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts, Parts
from prune_core.allocation.shares import cuts_of, shifted

Increases = tuple[Sequence[float], Sequence[Sequence[float]]]
"""Sparsities, and for each block its measured loss increases at them."""

_STEPS = 400
Curve = npt.NDArray[np.float64]


def convex(values: Curve) -> Curve:
    """Lower convex envelope of values on an even grid."""
    hull: list[int] = []
    for index in range(len(values)):
        while len(hull) >= 2:
            a, b = hull[-2], hull[-1]
            if (values[b] - values[a]) * (index - a) >= (values[index] - values[a]) * (b - a):
                hull.pop()
            else:
                break
        hull.append(index)
    return np.interp(np.arange(len(values)), hull, values[hull])


def curve(sparsities: Sequence[float], increases: Sequence[float]) -> Curve:
    """Loss increase on a grid of sparsities 0 to 1, from a few measured ones.

    Between points the logarithm is interpolated (losses grow about exponentially), past the last
    it goes on as steeply; below the first it falls to 0 in a straight line.
    """
    grid = np.linspace(0, 1, _STEPS + 1)
    heights = np.maximum.accumulate(np.maximum(np.asarray(increases, dtype=np.float64), 1e-6))
    at = np.asarray(sparsities, dtype=np.float64)
    logs = np.log(heights)
    values = np.exp(np.interp(grid, at, logs))
    if len(at) > 1:
        slope = (logs[-1] - logs[-2]) / (at[-1] - at[-2])
        beyond = grid > at[-1]
        values[beyond] = np.exp(logs[-1] + slope * (grid[beyond] - at[-1]))
    below = grid < at[0]
    values[below] = heights[0] * grid[below] / at[0]
    return convex(values)


def least_loss(
    sparsities: Sequence[float],
    increases: Sequence[Sequence[float]],
    parts: Parts,
    target: float,
) -> dict[str, float]:
    """Shares with equal marginal loss: the least predicted total for convex curves.

    Args:
        sparsities: where each block was measured, ascending, above 0.
        increases: for each block, its loss increase in nats per token at those sparsities, alone.
        parts: the layers.
        target: sparsity of all weights together.
    """
    sizes = np.zeros(len(increases))
    for part in parts.values():
        sizes[part.block] += part.numel
    if not sizes.sum():
        return dict.fromkeys(parts, target)
    steps = []
    for block, measured in enumerate(increases):
        rises = np.diff(curve(sparsities, measured))
        # a step of a block costs its rise and removes its size: cheapest per weight first
        steps += [
            (rise / max(sizes[block], 1e-9), index, block) for index, rise in enumerate(rises)
        ]
    budget = target * sizes.sum()
    shares = np.zeros(len(increases))
    for _price, _index, block in sorted(steps):
        step = sizes[block] / _STEPS
        if step > budget:
            break
        shares[block] += 1 / _STEPS
        budget -= step
    return shifted({n: float(shares[p.block]) for n, p in parts.items()}, parts, target)


@ALLOCATIONS.register(
    "sensitivity",
    needs=frozenset({"increases"}),
    place=60,
    texts={
        "en": {
            "title": "Sensitivity",
            "short": "shares by sensitivity",
            "measures": "least predicted loss, from pruning each block alone on the calibration "
            "text.",
        },
        "zh": {
            "title": "敏感度",
            "short": "按敏感度分配",
            "measures": "先在校准文本上逐块单独剪枝，再使预测损失最小。",
        },
    },
)
def by_sensitivity(request: AllocationRequest, increases: Increases) -> Cuts:
    """Share by measured losses, see :func:`least_loss`."""
    return cuts_of(least_loss(*increases, request.parts, request.sparsity), request)
