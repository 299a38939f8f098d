"""Greedy removal: ablation, again after each step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.analysis.blocks.methods import STEPS, Asked
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
def greedy(asked: Asked) -> dict[str, Any]:
    """Score each block by what its removal costs first, and name those that go in turn."""
    steps = asked.steps
    if steps is None:
        blocks = asked.run(LoadModel(asked.source))["blocks"]
        steps = usual_steps(blocks, ends=asked.ends)
    job = GreedyBlocks(asked.source, asked.text, asked.seq_len, asked.windows, steps, asked.ends)
    result = asked.run(job)
    path = result["path"]
    return {**result, "scores": path[0]["costs"], "suggested": path[-1]["blocks"]}


def usual_steps(blocks: Sequence[Mapping[str, Any]], *, ends: bool) -> int:
    """Blocks that a greedy search removes where nobody said how many: those that can go, 1 to 4.

    Args:
        blocks: of a LoadModel result.
        ends: the first and the last block of a stack may go too; one of each stack stays.
    """
    return max(1, min(STEPS, most_removable([block["stack"] for block in blocks], ends=ends)))
