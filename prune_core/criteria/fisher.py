"""Fisher: what removing a weight does to the loss, by the squared gradient as curvature."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "fisher",
    reference="https://arxiv.org/abs/1801.05787",
    needs=frozenset({"gradient_square"}),
    texts={
        "en": {
            "title": "Fisher w² x gradient²",
            "short": "Fisher",
            "measures": "half of each weight's square times the mean square of its gradient: the "
            "change of the loss to second order.",
            "cost": "a forward and a backward pass over a calibration text, minutes once.",
            "fails": "with few windows, and far from the dense model: it holds for small steps.",
        },
        "zh": {
            "title": "Fisher w² × 梯度²",
            "short": "Fisher",
            "measures": "权重平方的一半乘以梯度平方的均值：损失的二阶变化。",
            "cost": "对校准文本做一次前向和一次反向传播，首次需几分钟。",
            "fails": "窗口太少时，以及远离稠密模型时：它只对小的改动成立。",
        },
    },
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
