"""Gradient: how the loss would change if a head were faded out."""

from __future__ import annotations

from prune_core.analysis.heads.methods import HeadRequest, HeadScores
from prune_core.jobs.heads import HEAD_METHODS


@HEAD_METHODS.register(
    "gradient",
    reference="https://arxiv.org/abs/1905.10650",
    needs=frozenset({"text", "loss"}),
    place=10,
    texts={
        "en": {
            "title": "Gradient",
            "measures": "How much the loss on the text would change if the head were faded out: "
            "|∂L/∂gate|, one backward pass (Michel et al. 2019).",
        },
        "zh": {
            "title": "梯度",
            "measures": "若逐渐关闭该头，文本上的损失会变化多少：|∂L/∂gate|，一次反向传播（Michel"
            " 等，2019）。",
        },
    },
)
def gradient(request: HeadRequest) -> HeadScores:
    """Score each head by its gate's loss gradient; without a loss by a curvature."""
    from prune_core.analysis.heads.scores import curvature_scores, gradient_scores

    model, structure = request.handle.model, request.handle.structure
    if not (request.handle.info.has_language_head or structure.classes):
        rows = curvature_scores(model, structure, request.windows, progress=request.progress)
        return HeadScores(rows, "1 - cosine, predicted")
    scores = gradient_scores(
        model, structure, request.windows, normalize=request.normalize, progress=request.progress
    )
    unit = "of the block's L2 norm" if request.normalize else "nats per unit of gate"
    return HeadScores(scores, unit)
