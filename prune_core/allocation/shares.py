"""Shares: how much of each layer goes, so that the whole is as sparse as asked, to one weight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from prune_core.patterns import Pattern, num_pruned


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
    left = budget - sum(cuts[n] * unit[n] for n in parts)
    for name in sorted(parts, key=lambda n: -fractions[n]):
        if fractions[name] >= 0 and unit[name] > 0 and unit[name] / 2 <= left:
            cuts[name] += 1
            left -= unit[name]
    return cuts


def by_role(multipliers: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """Shares in proportion to a multiplier for each role; 1 where none is given."""
    return scaled({n: multipliers.get(p.role, 1.0) for n, p in parts.items()}, parts, target)


def by_hand(multipliers: Mapping[str, float], parts: Parts, target: float) -> dict[str, float]:
    """Shares in proportion to a multiplier for each block index (as text); 1 where none is."""
    return scaled({n: multipliers.get(str(p.block), 1.0) for n, p in parts.items()}, parts, target)


def erk(parts: Parts, target: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel: density in proportion to (in + out) / (in * out).

    Evci et al. 2019, arXiv 1911.11134. Small layers stay denser; a density that would exceed 1 is
    1, and the others make up for it.
    """
    density = {n: (p.rows + p.columns) / p.numel if p.numel else 0.0 for n, p in parts.items()}
    kept = scaled(density, parts, 1 - target)
    return {name: 1 - share for name, share in kept.items()}


def owl(
    outliers: Sequence[float], parts: Parts, target: float, *, spread: float = 0.08
) -> dict[str, float]:
    """Outlier-weighed: blocks with many outlying scores keep more.

    Yin et al. 2023, arXiv 2310.05175: the outlier shares D are rescaled to [0, 2 * spread], and
    block b keeps D_b - mean(D) + (1 - target). Where all blocks have the same share: uniform.

    Args:
        outliers: for each block, its share of scores above M times the block's mean score.
        parts: the layers.
        target: sparsity of all weights together.
        spread: lambda of the paper.
    """
    share = np.array(outliers, dtype=np.float64)
    width = share.max() - share.min() if share.size else 0.0
    if width <= 0:
        return dict.fromkeys(parts, target)
    rescaled = (share - share.min()) / width * 2 * spread
    sparsity = target - (rescaled - rescaled.mean())
    return shifted({n: float(sparsity[p.block]) for n, p in parts.items()}, parts, target)
