"""RIA: relative importance and activations."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "ria",
    title="RIA",
    reference="https://openreview.net/forum?id=Tr0lPx9woF",
    needs=frozenset({"input_norm"}),
    pattern="per-row",
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
