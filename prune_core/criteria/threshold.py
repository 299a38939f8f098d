"""Threshold: the cut at one value of |w|."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "threshold",
    reference="https://arxiv.org/abs/1506.02626",
    texts={
        "en": {
            "title": "Threshold (cut by value)",
            "short": "Threshold",
            "measures": "the absolute value of each weight against one cut for the whole model.",
            "cost": "nothing: no text is read.",
            "fails": "unevenly: layers whose weights are small as a whole lose nearly everything.",
            "value": "Weights below |w|",
        },
        "zh": {
            "title": "阈值（按数值截断）",
            "short": "阈值",
            "measures": "每个权重的绝对值，与整个模型共用的一条截断值比较。",
            "cost": "无：不读取文本。",
            "fails": "各层不均：整体权重较小的层会几乎被清空。",
            "value": "移除 |w| 小于此值的权重",
        },
    },
)
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
