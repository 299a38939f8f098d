"""Weight norm."""

from __future__ import annotations

from prune_core.analysis.heads.methods import HeadRequest, HeadScores
from prune_core.jobs.heads import HEAD_METHODS


@HEAD_METHODS.register(
    "weight-norm",
    place=0,
    texts={
        "en": {
            "title": "Weight norm",
            "measures": "The size of the head's weights: the Frobenius norm of what it writes "
            "and reads. No text needed, at once, crude.",
        },
        "zh": {
            "title": "权重范数",
            "measures": "该头权重的大小：读写权重的 Frobenius 范数。无需文本，立即可得，但较粗略。",
        },
    },
)
def weight_norm(request: HeadRequest) -> HeadScores:
    """Score each head by the norms of its weights; no text is read."""
    from prune_core.analysis.heads.scores import weight_norm_scores

    rows = weight_norm_scores(request.handle.model, request.handle.structure)
    return HeadScores(rows, "product of norms")
