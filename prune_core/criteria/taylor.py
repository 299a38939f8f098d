"""Taylor: what removing a weight does to the loss, to first order."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "taylor",
    reference="https://arxiv.org/abs/1906.10771",
    needs=lambda args: frozenset({"gradient_mean" if args["signed"] else "gradient_abs"}),
    texts={
        "en": {
            "title": "Taylor |w x gradient|",
            "short": "Taylor",
            "measures": "the absolute value of each weight times that of its loss gradient: the "
            "change of the loss to first order.",
            "cost": "a forward and a backward pass over a calibration text, minutes once.",
            "fails": "for weights that matter only together, and where a converged model has "
            "gradients near zero.",
            "signed": "Average before the absolute value",
            "signed_help": "1: gradients of different windows may cancel. 0: they may not.",
        },
        "zh": {
            "title": "Taylor |w × 梯度|",
            "short": "Taylor",
            "measures": "每个权重的绝对值乘以损失梯度的绝对值：损失的一阶变化。",
            "cost": "对校准文本做一次前向和一次反向传播，首次需几分钟。",
            "fails": "对只有合在一起才重要的权重，以及已收敛、梯度接近零的模型。",
            "signed": "先平均再取绝对值",
            "signed_help": "1：不同窗口的梯度可以相互抵消。0：不会抵消。",
        },
    },
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
