"""Wanda: weights by magnitude times the norm of what they are multiplied with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "wanda",
    reference="https://arxiv.org/abs/2306.11695",
    needs=frozenset({"input_norm"}),
    pattern="per-row",
    comparable=False,  # input norms differ from layer to layer
    texts={
        "en": {
            "title": "Wanda |w| x input norm",
            "short": "Wanda",
            "measures": "the absolute value of each weight times the norm of the input that it "
            "multiplies, compared within an output row.",
            "cost": "one pass over a calibration text, about 20 seconds once on two cores; then "
            "every sparsity at once.",
            "fails": "where the calibration text is unlike the text the model is used on, and "
            "past about 60 %.",
            "how": "Wanda: weights are removed that are small and meet weak signals in a sample "
            "text.",
        },
        "zh": {
            "title": "Wanda |w| × 输入范数",
            "short": "Wanda",
            "measures": "每个权重的绝对值乘以其输入的范数，在同一输出行内比较。",
            "cost": "遍历一次校准文本，双核机器上约 20 秒；之后任何稀疏度都即时可得。",
            "fails": "校准文本与实际使用的文本差异很大时，以及稀疏度超过约 60 % 时。",
            "how": "Wanda：剪去本身小、且在样本文本中遇到的信号也弱的权重。",
        },
    },
)
def wanda(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by its absolute value times the norm of its input feature.

    Sun et al. 2023, arXiv 2306.11695; meant to compare within an output row. One pass over a
    calibration text; fails where that text is unlike the one the model is used on.

    Args:
        weight: (out, in).
        stats: ``input_norm``.

    Returns:
        (out, in) float32, >= 0.

    Raises:
        RecipeError: without statistics.
    """
    norm = required(stats.input_norm, "wanda", "input_norm")
    return weight.abs().float() * norm.to(weight.device).float()
