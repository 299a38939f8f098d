"""None: what stays is left as it is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prune_core.patterns import Pattern
from prune_core.recipes.choices import RECONSTRUCTIONS

if TYPE_CHECKING:
    from torch import Tensor


@RECONSTRUCTIONS.register(
    "none",
    place=0,
    texts={
        "en": {
            "title": "None",
            "short": "not repaired",
            "measures": "the weights that stay are as they were.",
        },
        "zh": {
            "title": "无",
            "short": "未修复",
            "measures": "保留的权重不变。",
        },
    },
)
def none(
    weights: Sequence[Tensor],
    hessian: Tensor | None,
    pattern: Pattern,
    cuts: Sequence[int],
    masks: Sequence[Tensor | None],
) -> tuple[list[Tensor], list[Tensor], bool]:
    """Set what goes to zero and repair nothing.

    Args:
        weights: (out, in) each; not changed.
        hessian: not read.
        pattern: not read.
        cuts: not read.
        masks: of every layer.

    Returns:
        New weights; the masks; False.
    """
    keep = [mask for mask in masks if mask is not None]
    return [weight * mask for weight, mask in zip(weights, keep, strict=True)], keep, False
