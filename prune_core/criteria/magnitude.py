"""Weight magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "magnitude",
    reference="https://arxiv.org/abs/1506.02626",
    texts={
        "en": {
            "title": "Magnitude |w|",
            "short": "Magnitude",
            "measures": "the absolute value of each weight.",
            "cost": "nothing: no text is read; ranks are sorted once, in seconds.",
            "fails": "early where inputs differ much in size: a small weight on a large input "
            "counts for more than it shows.",
            "how": "Magnitude: the weights closest to zero are removed.",
        },
        "zh": {
            "title": "幅值 |w|",
            "short": "幅值",
            "measures": "每个权重的绝对值。",
            "cost": "无：不读取文本；只需排序一次，几秒钟。",
            "fails": "输入大小悬殊时很早失效：作用于大输入的小权重比看上去更重要。",
            "how": "幅值法：剪去最接近零的权重。",
        },
    },
)
def magnitude(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by its absolute value.

    Han et al. 2015, arXiv 1506.02626. Needs no text; ignores how large the inputs are, so it
    fails early where activations have outliers.

    Args:
        weight: (out, in).
        stats: not read.

    Returns:
        (out, in) float32, >= 0.
    """
    return weight.abs().float()
