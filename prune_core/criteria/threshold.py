"""Threshold: the cut at one value of |w|."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register("threshold", title="Threshold", reference="https://arxiv.org/abs/1506.02626")
def threshold(weight: Tensor, stats: LayerStats, *, value: float = 0.0) -> Tensor:
    """Score each weight by its absolute value; all below one value go, in every layer.

    Han et al. 2015, arXiv 1506.02626. How much goes follows from the value and differs from layer
    to layer. With value 0 a sparsity decides, as with magnitude.

    Args:
        weight: (out, in).
        stats: not read.
        value: |w| below which weights go; read by the recipe, not here.

    Returns:
        (out, in) float32, >= 0.
    """
    return weight.abs().float()
