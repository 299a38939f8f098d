"""SparseGPT: the weights that stay make up for those that go, block after block."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prune_core.patterns import Pattern
from prune_core.recipes.choices import RECONSTRUCTIONS

if TYPE_CHECKING:
    from torch import Tensor


@RECONSTRUCTIONS.register(
    "sparsegpt",
    reference="https://arxiv.org/abs/2301.00774",
    needs=frozenset({"hessian"}),
    criterion="sparsegpt",
    place=10,
    texts={
        "en": {
            "title": "SparseGPT",
            "short": "repaired by SparseGPT",
            "measures": "the weights that stay make up for those that go, block after block.",
        },
        "zh": {
            "title": "SparseGPT",
            "short": "经 SparseGPT 修复",
            "measures": "保留的权重逐块弥补被移除的权重。",
        },
    },
)
def sparsegpt(
    weights: Sequence[Tensor],
    hessian: Tensor,
    pattern: Pattern,
    cuts: Sequence[int],
    masks: Sequence[Tensor | None],
) -> tuple[list[Tensor], list[Tensor], bool]:
    """Choose what goes, where no mask says it, and repair what stays.

    Args:
        weights: (out, in) each; not changed.
        hessian: (in, in) of their common input.
        pattern: what competes.
        cuts: of each layer, as ``pattern.cut`` gives them.
        masks: a fixed mask (True keeps) in place of the choice, or None.

    Returns:
        New weights, float32; masks; whether the damping had to be raised.
    """
    from prune_core.pruning.sparsegpt import prune_together  # imports torch

    return prune_together(weights, hessian, pattern, cuts, masks)
