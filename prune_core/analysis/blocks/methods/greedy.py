"""Greedy removal: ablation, again after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.analysis.blocks.methods import STEPS, BlockRequest
from prune_core.analysis.selection import most_removable
from prune_core.jobs.base import LoadModel
from prune_core.jobs.blocks import BLOCK_METHODS, GreedyBlocks


@BLOCK_METHODS.register(
    "greedy",
    needs=frozenset({"loss"}),
    place=30,
    texts={
        "en": {
            "title": "Greedy removal",
            "measures": "the loss without each block, measured again after each removal: the "
            "block that costs least goes.",
        },
        "zh": {
            "title": "贪心移除",
            "measures": "去掉每个块后的损失，每移除一块后重新测量：代价最小的块先移除。",
        },
    },
)
def greedy(request: BlockRequest) -> dict[str, Any]:
    """Score each block by what its removal costs first, and name those that go in turn."""
    steps = request.steps
    if steps is None:
        blocks = request.run(LoadModel(request.source))["blocks"]
        steps = usual_steps(blocks, ends=request.ends)
    job = GreedyBlocks(
        request.source, request.text, request.seq_len, request.windows, steps, request.ends
    )
    result = request.run(job)
    path = result["path"]
    return {**result, "scores": path[0]["costs"], "suggested": path[-1]["blocks"]}


def usual_steps(blocks: Sequence[Mapping[str, Any]], *, ends: bool) -> int:
    """Blocks that a greedy search removes where nobody said how many: those that can go, 1 to 4.

    Args:
        blocks: of a LoadModel result.
        ends: the first and the last block of a stack may go too; one of each stack stays.
    """
    return max(1, min(STEPS, most_removable([block["stack"] for block in blocks], ends=ends)))
