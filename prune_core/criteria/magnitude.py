"""Weight magnitude."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register("magnitude", title="Magnitude", reference="https://arxiv.org/abs/1506.02626")
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
