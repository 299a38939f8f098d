"""SparseGPT's scores: the loss a weight costs if the others may make up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "sparsegpt",
    title="SparseGPT (OBS)",
    reference="https://arxiv.org/abs/2301.00774",
    needs=frozenset({"obs_diagonal"}),
)
def sparsegpt(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by its square over the squared diagonal of the inverse Hessian's factor.

    Frantar and Alistarh 2023, arXiv 2301.00774. The rise in the layer's squared output error if
    the weights to its right are corrected for the loss of this one: without the reconstruction
    it promises more than it keeps.

    Args:
        weight: (out, in).
        stats: ``obs_diagonal``.

    Returns:
        (out, in) float32, >= 0.

    Raises:
        RecipeError: without statistics.
    """
    diagonal = required(stats.obs_diagonal, "sparsegpt", "obs_diagonal")
    return (weight.float() / diagonal.to(weight.device).float()).square()
