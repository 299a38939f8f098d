"""Ablation: the loss without a block."""

from __future__ import annotations

from typing import Any

from prune_core.analysis.blocks.methods import BlockRequest
from prune_core.jobs.blocks import BLOCK_METHODS, BlockAblation


@BLOCK_METHODS.register(
    "ablation",
    needs=frozenset({"loss"}),
    place=20,
    texts={
        "en": {
            "title": "Ablation",
            "measures": "the loss without the block minus the dense loss.",
        },
        "zh": {
            "title": "消融",
            "measures": "去掉该块后的损失减去稠密模型的损失。",
        },
    },
)
def ablation(request: BlockRequest) -> dict[str, Any]:
    """Score each block by the loss without it minus the dense loss."""
    parts = ("block", "attention", "mlp") if request.halves else ("block",)
    job = BlockAblation(request.source, request.text, request.seq_len, request.windows, parts)
    result = request.run(job)
    block = result["block"]
    return {**result, "scores": block["mean"], "stderr": block["stderr"]}
