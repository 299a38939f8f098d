"""Shares: how much of each layer goes, so that the whole is as sparse as asked, to one weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from prune_core.allocation.base import AllocationRequest, Cuts, Parts
from prune_core.patterns import Pattern, num_pruned


def _solve(mean: Callable[[float], float], target: float, low: float, high: float) -> float:
    """Where a rising function reaches ``target``; bisection to the last bit."""
    for _ in range(200):
        middle = (low + high) / 2
        if mean(middle) < target:
            low = middle
        else:
            high = middle
    return high


def scaled(values: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """``min(1, c * value)`` with the ``c`` that makes the mean over all weights the target.

    Values of 0 stay 0 unless the others cannot reach the target alone; then they share the rest.
    """
    names = list(parts)
    sizes = np.array([parts[n].numel for n in names], dtype=np.float64)
    weights = np.array([values.get(n, 1.0) for n in names], dtype=np.float64)
    total = sizes.sum()
    if not total:
        return dict.fromkeys(names, target)
    reachable = sizes[weights > 0].sum() / total
    if reachable <= target:
        rest = (target - reachable) / (1 - reachable) if reachable < 1 else 1.0
        shares = np.where(weights > 0, 1.0, rest)
    else:
        high = 1.0 / weights[weights > 0].min()
        factor = _solve(
            lambda c: float(sizes @ np.minimum(1.0, c * weights)) / total, target, 0, high
        )
        shares = np.minimum(1.0, factor * weights)
    return dict(zip(names, shares.tolist(), strict=True))


def shifted(values: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """``clip(value + d, 0, 1)`` with the ``d`` that makes the mean over all weights the target."""
    names = list(parts)
    sizes = np.array([parts[n].numel for n in names], dtype=np.float64)
    levels = np.array([values[n] for n in names], dtype=np.float64)
    total = sizes.sum()
    if not total:
        return dict.fromkeys(names, target)
    shift = _solve(
        lambda d: float(sizes @ np.clip(levels + d, 0, 1)) / total,
        target,
        -float(levels.max()),
        1 - float(levels.min()),
    )
    return dict(zip(names, np.clip(levels + shift, 0, 1).tolist(), strict=True))


def clipped(shares: Mapping[str, float]) -> tuple[str, ...]:
    """Layers of which everything goes because their share would exceed 1."""
    return tuple(name for name, share in shares.items() if share >= 1.0)


def exact_cuts(
    shares: Mapping[str, float], parts: Parts, pattern: Pattern, sparsity: float
) -> dict[str, int]:
    """Cuts of each layer whose removed weights sum to the target as nearly as the pattern can.

    Largest remainder: every layer gets the whole places of its share, the rest goes to the
    largest fractions. Per layer that is exact to one weight.
    """
    budget = num_pruned(sum(part.numel for part in parts.values()), sparsity)
    cuts, fractions = {}, {}
    for name, part in parts.items():
        places = pattern.places(part.rows, part.columns)
        exact = min(shares[name], 1.0) * places
        cuts[name] = min(int(exact + 1e-9), places)
        fractions[name] = exact - cuts[name] if cuts[name] < places else -1.0
    unit = {n: pattern.removed(p.rows, p.columns, 1) for n, p in parts.items()}
    remainder = budget - sum(cuts[n] * unit[n] for n in parts)
    for name in sorted(parts, key=lambda n: -fractions[n]):
        if fractions[name] >= 0 and unit[name] > 0 and unit[name] / 2 <= remainder:
            cuts[name] += 1
            remainder -= unit[name]
    return cuts


def cuts_of(shares: Mapping[str, float], request: AllocationRequest) -> Cuts:
    """Shares as cuts, with the layers that they remove whole."""
    full = clipped(shares) if request.sparsity < 1 else ()
    return Cuts(exact_cuts(shares, request.parts, request.pattern, request.sparsity), full)
