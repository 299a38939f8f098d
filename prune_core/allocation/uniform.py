"""Uniform: every layer loses the same share."""

from __future__ import annotations

from prune_core.allocation.base import ALLOCATIONS, AllocationRequest, Cuts


@ALLOCATIONS.register(
    "uniform",
    place=0,
    texts={
        "en": {
            "title": "Uniform",
            "short": "Uniform",
            "measures": "every layer loses the same share.",
        },
        "zh": {
            "title": "均匀",
            "short": "均匀",
            "measures": "每层移除相同的比例。",
        },
    },
)
def uniform(request: AllocationRequest) -> Cuts:
    """Name no layer: each loses the total, by its pattern."""
    return Cuts()
