"""Confidence: how sure a head is of one place."""

from __future__ import annotations

from prune_core.analysis.heads.methods import HeadRequest, HeadScores
from prune_core.jobs.heads import HEAD_METHODS


@HEAD_METHODS.register(
    "confidence",
    reference="https://arxiv.org/abs/1905.09418",
    needs=frozenset({"text"}),
    place=30,
    texts={
        "en": {
            "title": "Confidence",
            "measures": "Mean of the largest share of attention a token gives (first token left "
            "out): high for a head that is sure where to look (Voita et al. 2019).",
        },
        "zh": {
            "title": "置信度",
            "measures": "每个词元给出的最大注意力份额的平均（不计首词元）：高表示该头明确知道看哪"
            "里（Voita 等，2019）。",
        },
    },
)
def confidence(request: HeadRequest) -> HeadScores:
    """Score each head by the largest share of attention a token gives, on average."""
    from prune_core.analysis.heads.patterns import pattern_scores

    model, structure = request.handle.model, request.handle.structure
    rows = pattern_scores(
        model, structure, request.windows, "confidence", progress=request.progress
    )
    return HeadScores(rows, "share")
