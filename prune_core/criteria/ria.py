"""RIA: relative importance and activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "ria",
    reference="https://openreview.net/forum?id=Tr0lPx9woF",
    needs=frozenset({"input_norm"}),
    pattern="per-row",
    comparable=False,  # input norms differ from layer to layer
    texts={
        "en": {
            "title": "RIA (relative, with activations)",
            "short": "RIA",
            "measures": "each weight's share of its row and of its column, times a power of its "
            "input's norm.",
            "cost": "the same pass as Wanda.",
            "fails": "as Wanda does; it only takes care that no row or column is emptied.",
            "how": "RIA: weights are removed that matter little in their row, their column and "
            "to the signals they meet.",
            "power": "Power of the input norm",
            "power_help": "0.5 in the paper; 0 ignores the inputs.",
        },
        "zh": {
            "title": "RIA（相对重要性与激活）",
            "short": "RIA",
            "measures": "每个权重在其行与列中的占比，乘以其输入范数的幂。",
            "cost": "与 Wanda 相同的一次遍历。",
            "fails": "与 Wanda 相同；它只是避免某行或某列被清空。",
            "how": "RIA：剪去在所在行、列以及信号中都不重要的权重。",
            "power": "输入范数的幂",
            "power_help": "论文中为 0.5；0 表示忽略输入。",
        },
    },
)
def ria(weight: Tensor, stats: LayerStats, *, power: float = 0.5) -> Tensor:
    """Score each weight by its share of its row and column times a power of its input's norm.

    Zhang et al., ICLR 2024, "Plug-and-Play". A row or column of small weights keeps some of them,
    where Wanda would empty a column. One pass over a calibration text.

    Args:
        weight: (out, in).
        stats: ``input_norm``.
        power: of the input norm; 0.5 in the paper.

    Returns:
        (out, in) float32, >= 0; 0 in a row or column of zeros.

    Raises:
        RecipeError: without statistics.
    """
    norm = required(stats.input_norm, "ria", "input_norm").to(weight.device).float()
    size = weight.abs().float()
    # a sum of 0 means that every weight in it is 0: any divisor gives 0
    tiny = 1e-38
    of_column = size / size.sum(dim=0, keepdim=True).clamp_min(tiny)
    of_row = size / size.sum(dim=1, keepdim=True).clamp_min(tiny)
    return (of_column + of_row) * norm.pow(power)
