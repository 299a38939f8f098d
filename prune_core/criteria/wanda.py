"""Wanda: weights by magnitude times the norm of what they are multiplied with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "wanda",
    title="Wanda",
    reference="https://arxiv.org/abs/2306.11695",
    needs=frozenset({"input_norm"}),
    pattern="per-row",
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
