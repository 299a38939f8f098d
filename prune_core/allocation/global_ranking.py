"""Global ranking: all weights of all layers compete; layers with low scores lose more."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from prune_core.patterns import num_pruned


def global_counts(
    ordered: Mapping[str, npt.NDArray[np.float32]], sparsity: float
) -> dict[str, int]:
    """How many of each layer's weights are among the lowest of all.

    Exact: a bisection over the float's bits finds the score at the cut, ties at it go by layer
    order (and, within a layer, by position, which the layer's ranks see to).

    Args:
        ordered: each layer's scores, sorted ascending, >= 0.
        sparsity: of all weights together.

    Returns:
        Layer name to count; the counts sum to round(sparsity * total).
    """
    total = sum(values.size for values in ordered.values())
    wanted = num_pruned(total, sparsity)
    if wanted in (0, total):
        return {name: values.size if wanted else 0 for name, values in ordered.items()}
    low, high = 0, 0x7F800000  # bits of +0.0 and of infinity: non-negative floats sort as integers
    while low < high:  # smallest score t with at least `wanted` scores <= t
        middle = (low + high) // 2
        value = np.uint32(middle).view(np.float32)
        if sum(int(np.searchsorted(v, value, "right")) for v in ordered.values()) >= wanted:
            high = middle
        else:
            low = middle + 1
    value = np.uint32(low).view(np.float32)
    below = {name: int(np.searchsorted(v, value, "left")) for name, v in ordered.items()}
    left = wanted - sum(below.values())
    for name, values in ordered.items():
        ties = int(np.searchsorted(values, value, "right")) - below[name]
        taken = min(left, ties)
        below[name] += taken
        left -= taken
    return below
