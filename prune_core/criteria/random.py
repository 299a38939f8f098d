"""Random scores: the control that every comparison needs."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "random",
    texts={
        "en": {
            "title": "Random (control)",
            "short": "Random",
            "measures": "nothing: a seeded draw.",
            "cost": "nothing.",
            "fails": "at once. It is the control that every other method has to beat.",
            "how": "Random: weights are removed by lot; a baseline, no method.",
            "seed": "Seed",
            "seed_help": "Another seed, another draw.",
        },
        "zh": {
            "title": "随机（对照）",
            "short": "随机",
            "measures": "什么也不衡量：按种子抽取。",
            "cost": "无。",
            "fails": "立刻失效。它是其他方法都必须胜过的对照。",
            "how": "随机：按抽签剪去权重，只作对照。",
            "seed": "种子",
            "seed_help": "换一个种子，换一次抽取。",
        },
    },
)
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
