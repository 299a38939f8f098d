"""OWL: blocks with outlying scores keep more."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts, Parts
from prune_core.allocation.shares import cuts_of, shifted


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


@ALLOCATIONS.register(
    "owl",
    reference="https://arxiv.org/abs/2310.05175",
    needs=frozenset({"outliers"}),
    place=50,
    texts={
        "en": {
            "title": "OWL",
            "short": "OWL",
            "measures": "blocks with outlying scores keep more.",
        },
        "zh": {
            "title": "OWL",
            "short": "OWL",
            "measures": "离群分数多的块保留更多。",
        },
    },
)
def by_outliers(
    request: AllocationRequest,
    outliers: Callable[[float], Sequence[float]],
    *,
    m: float = 5.0,
    spread: float = 0.08,
) -> Cuts:
    """Share by outlying scores, see :func:`owl`.

    Args:
        request: what is asked.
        outliers: from a limit to each block's share of scores above it times the block's mean.
        m: that limit.
        spread: lambda of the paper.
    """
    shares = owl(outliers(m), request.parts, request.sparsity, spread=spread)
    return cuts_of(shares, request)
