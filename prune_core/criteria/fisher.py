"""Fisher: what removing a weight does to the loss, by the squared gradient as curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "fisher",
    title="Fisher",
    reference="https://arxiv.org/abs/1801.05787",
    needs=frozenset({"gradient_square"}),
)
def fisher(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by half its square times the mean square of its loss gradient.

    Theis et al. 2018, arXiv 1801.05787. A forward and a backward pass over a calibration text;
    the gradient is that of a window's mean loss, so few windows make it noisy.

    Args:
        weight: (out, in).
        stats: ``gradient``, the mean square.

    Returns:
        (out, in) float32, >= 0.

    Raises:
        RecipeError: without statistics.
    """
    square = required(stats.gradient, "fisher", "gradient")
    return weight.float().square() * square.to(weight.device) / 2
