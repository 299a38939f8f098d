"""ERK: density by the shape of each layer."""

from __future__ import annotations

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts, Parts
from prune_core.allocation.shares import cuts_of, scaled


def erk(parts: Parts, target: float) -> dict[str, float]:
    """Erdos-Renyi-Kernel: density in proportion to (in + out) / (in * out).

    Evci et al. 2019, arXiv 1911.11134. Small layers stay denser; a density that would exceed 1 is
    1, and the others make up for it.
    """
    density = {n: (p.rows + p.columns) / p.numel if p.numel else 0.0 for n, p in parts.items()}
    densities = scaled(density, parts, 1 - target)
    return {name: 1 - share for name, share in densities.items()}


@ALLOCATIONS.register(
    "erk",
    reference="https://arxiv.org/abs/1911.11134",
    place=40,
    texts={
        "en": {
            "title": "ERK",
            "short": "ERK",
            "measures": "density by the shape of each layer.",
        },
        "zh": {
            "title": "ERK",
            "short": "ERK",
            "measures": "密度取决于每层的形状。",
        },
    },
)
def by_shape(request: AllocationRequest) -> Cuts:
    """Share by Erdos-Renyi-Kernel, see :func:`erk`."""
    return cuts_of(erk(request.parts, request.sparsity), request)
