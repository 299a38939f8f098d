"""Global ranking: all weights of all layers compete; layers with low scores lose more."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import numpy.typing as npt

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts
from prune_core.patterns import num_pruned


def global_counts(
    ordered: Mapping[str, npt.NDArray[np.float32]],
    sparsity: float,
    dropped: Mapping[str, npt.NDArray[np.float32]] | None = None,
) -> dict[str, int]:
    """How many of each layer's weights are among the lowest of all.

    Exact: a bisection over the float's bits finds the score at the cut, ties at it go by layer
    order (and, within a layer, by position, which the layer's ranks see to).

    Args:
        ordered: each layer's scores, sorted ascending, >= 0.
        sparsity: of all weights that are left.
        dropped: for layers of which parts are gone already, their scores, sorted ascending; they
            are among those of ``ordered`` and count nowhere.

    Returns:
        Layer name to count among what is left; the counts sum to round(sparsity * total).
    """
    nothing: npt.NDArray[np.float32] = np.empty(0, dtype=np.float32)
    without = {name: (dropped or {}).get(name, nothing) for name in ordered}
    sizes = {name: values.size - without[name].size for name, values in ordered.items()}
    total = sum(sizes.values())
    target = num_pruned(total, sparsity)
    if target in (0, total):
        return {name: size if target else 0 for name, size in sizes.items()}

    def count(name: str, value: np.float32, side: Literal["left", "right"]) -> int:
        position = int(np.searchsorted(ordered[name], value, side))
        return position - int(np.searchsorted(without[name], value, side))

    low, high = 0, 0x7F800000  # bits of +0.0 and of infinity: non-negative floats sort as integers
    while low < high:  # smallest score t with at least `target` scores <= t
        middle = (low + high) // 2
        value = np.uint32(middle).view(np.float32)
        if sum(count(name, value, "right") for name in ordered) >= target:
            high = middle
        else:
            low = middle + 1
    value = np.uint32(low).view(np.float32)
    below = {name: count(name, value, "left") for name in ordered}
    remainder = target - sum(below.values())
    for name in ordered:
        extra = min(remainder, count(name, value, "right") - below[name])
        below[name] += extra
        remainder -= extra
    return below


Scores = Mapping[str, npt.NDArray[np.float32]]


@ALLOCATIONS.register(
    "global",
    needs=frozenset({"ordered"}),
    pattern="per-layer",
    place=10,
    texts={
        "en": {
            "title": "Global",
            "short": "global ranking",
            "measures": "all layers compete; needs `per-layer`.",
        },
        "zh": {
            "title": "全局",
            "short": "全局排名",
            "measures": "所有层一起竞争；需要 `per-layer`。",
        },
    },
)
def global_ranking(request: AllocationRequest, ordered: tuple[Scores, Scores]) -> Cuts:
    """Cut all layers at one score, see :func:`global_counts`."""
    scores, dropped = ordered
    return Cuts(global_counts(scores, request.sparsity, dropped))
