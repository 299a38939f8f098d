"""Entropy: how widely a head spreads its attention."""

from __future__ import annotations

from prune_core.analysis.heads.methods import HeadRequest, HeadScores
from prune_core.jobs.heads import HEAD_METHODS


@HEAD_METHODS.register(
    "entropy",
    needs=frozenset({"text"}),
    falling=True,
    place=40,
    texts={
        "en": {
            "title": "Entropy",
            "measures": "How widely a head spreads its attention, in nats. The most spread out "
            "counts as the least important.",
        },
        "zh": {
            "title": "熵",
            "measures": "注意力分散的程度，单位奈特。最分散的头视为最不重要。",
        },
    },
)
def entropy(request: HeadRequest) -> HeadScores:
    """Score each head by the entropy of its attention; the most spread out matters least."""
    from prune_core.analysis.heads.patterns import pattern_scores

    model, structure = request.handle.model, request.handle.structure
    rows = pattern_scores(model, structure, request.windows, "entropy", progress=request.progress)
    return HeadScores(rows, "nats")
