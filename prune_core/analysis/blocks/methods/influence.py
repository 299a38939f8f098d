"""Block influence."""

from __future__ import annotations

from typing import Any

from prune_core.analysis.blocks.methods import BlockRequest
from prune_core.jobs.blocks import BLOCK_METHODS, BlockImportance


@BLOCK_METHODS.register(
    "block-influence",
    reference="https://arxiv.org/abs/2403.03853",
    place=0,
    texts={
        "en": {
            "title": "Block influence",
            "measures": "1 minus the cosine between what a block is given and what it gives: how "
            "much it turns the stream.",
        },
        "zh": {
            "title": "块影响力",
            "measures": "1 减去块的输入与输出之间的余弦：它使残差流转动了多少。",
        },
    },
)
def influence(request: BlockRequest) -> dict[str, Any]:
    """Score each block by how much it turns the stream."""
    job = BlockImportance(request.source, request.text, request.seq_len, request.windows)
    result = request.run(job)
    return {**result, "scores": result["influence"]}
