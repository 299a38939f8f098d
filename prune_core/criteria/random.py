"""Random scores: the control that every comparison needs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register("random", title="Random (control)")
def random(weight: Tensor, stats: LayerStats, *, seed: int = 0) -> Tensor:
    """Score each weight at random, the same way for the same seed and the same weights.

    Args:
        weight: (out, in); its first values and its shape enter the seed, so that layers of one
            shape do not share a mask.
        stats: not read.
        seed: whole number.

    Returns:
        (out, in) float32 in [0, 1).
    """
    import torch

    # float64 represents every narrower dtype exactly: the seed does not depend on the platform
    content = weight[:1, :64].cpu().double().numpy().tobytes()
    digest = hashlib.sha256(f"{seed} {tuple(weight.shape)}".encode() + content).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") % 2**63)
    return torch.rand(weight.shape, generator=generator).to(weight.device)
