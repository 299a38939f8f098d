"""Taylor: what removing a weight does to the loss, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "taylor",
    title="Taylor",
    reference="https://arxiv.org/abs/1906.10771",
    needs=lambda args: frozenset({"gradient_mean" if args["signed"] else "gradient_abs"}),
)
def taylor(weight: Tensor, stats: LayerStats, *, signed: int = 0) -> Tensor:
    """Score each weight by its absolute value times that of its loss gradient.

    Molchanov et al. 2019, arXiv 1906.10771. A forward and a backward pass over a calibration
    text; blind to weights that matter together, and small where the model has converged.

    Args:
        weight: (out, in).
        stats: ``gradient``.
        signed: 1 averages gradients over windows before the absolute value is taken (they may
            cancel), 0 after.

    Returns:
        (out, in) float32, >= 0.

    Raises:
        RecipeError: without statistics.
    """
    gradient = required(stats.gradient, "taylor", "gradient")
    return (weight.float() * gradient.to(weight.device)).abs()
