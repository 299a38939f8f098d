"""SparseGPT's scores: the loss a weight costs if the others may make up for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from prune_core.criteria.base import CRITERIA, LayerStats, required

if TYPE_CHECKING:
    from torch import Tensor


@CRITERIA.register(
    "sparsegpt",
    reference="https://arxiv.org/abs/2301.00774",
    needs=frozenset({"obs_diagonal"}),
    texts={
        "en": {
            "title": "SparseGPT scores (OBS)",
            "short": "SparseGPT scores",
            "measures": "the rise of the layer's squared error if the other weights may make up "
            "for this one.",
            "cost": "one pass with a Hessian of each layer, a minute or so once; with the "
            "reconstruction about a minute for each sparsity.",
            "fails": "without the reconstruction: it promises a repair that nobody makes. With "
            "few calibration tokens the Hessian is nearly singular.",
            "how": "SparseGPT scores: weights are removed whose loss the others can make up for.",
        },
        "zh": {
            "title": "SparseGPT 评分（OBS）",
            "short": "SparseGPT 评分",
            "measures": "若其余权重可以补偿，移除该权重后该层平方误差的增量。",
            "cost": "遍历一次并为每层求海森矩阵，约一分钟；若重建，每个稀疏度约一分钟。",
            "fails": "不做重建时：它所指望的补偿并未发生。校准词元太少时海森矩阵接近奇异。",
            "how": "SparseGPT 评分：剪去其损失可由其他权重弥补的权重。",
        },
    },
)
def sparsegpt(weight: Tensor, stats: LayerStats) -> Tensor:
    """Score each weight by its square over the squared diagonal of the inverse Hessian's factor.

    Frantar and Alistarh 2023, arXiv 2301.00774. The rise in the layer's squared output error if
    the weights to its right are corrected for the loss of this one: without the reconstruction
    it promises more than it keeps.

    Args:
        weight: (out, in).
        stats: ``obs_diagonal``.

    Returns:
        (out, in) float32, >= 0.

    Raises:
        RecipeError: without statistics.
    """
    diagonal = required(stats.obs_diagonal, "sparsegpt", "obs_diagonal")
    return (weight.float() / diagonal.to(weight.device).float()).square()
