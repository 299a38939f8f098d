"""Angular distance of runs of blocks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from prune_core.analysis.blocks.methods import BlockRequest
from prune_core.errors import RecipeError
from prune_core.jobs.blocks import BLOCK_METHODS, BlockImportance


@BLOCK_METHODS.register(
    "angular",
    reference="https://arxiv.org/abs/2403.17887",
    place=10,
    texts={
        "en": {
            "title": "Angular distance",
            "measures": "the angle between what a run of blocks is given and what it gives "
            "(arXiv 2403.17887).",
        },
        "zh": {
            "title": "角距离",
            "measures": "一段连续块的输入与输出之间的夹角。",
        },
    },
)
def runs(request: BlockRequest) -> dict[str, Any]:
    """Score each run of blocks by its angle, under its first block."""
    job = BlockImportance(request.source, request.text, request.seq_len, request.windows)
    result = request.run(job)
    scores, suggested = angular(result["angular"], request.length)
    return {**result, "scores": scores, "run": request.length, "suggested": suggested}


def angular(stacks: Sequence[dict[str, Any]], length: int) -> tuple[list[float | None], list[int]]:
    """Distances of runs of ``length`` blocks by their first, and the run with the least.

    Args:
        stacks: ``angular`` of a BlockImportance result.
        length: blocks in a run.

    Returns:
        For each block the distance of the run that begins there, None where none does; the blocks
        of the run with the smallest distance.

    Raises:
        RecipeError: no run is that long, with one block of its stack left.
    """
    longest = max(len(stack["blocks"]) for stack in stacks) - 1
    if longest < 1:
        raise RecipeError("this model has one block only, and one must stay; no run can go.")
    if not 1 <= length <= longest:
        raise RecipeError(
            "--run takes between 1 and {longest} blocks, so that one stays, got {length}.",
            longest=longest,
            length=length,
        )
    scores: list[float | None] = [None] * sum(len(stack["blocks"]) for stack in stacks)
    best: tuple[float, list[int]] | None = None
    for stack in stacks:
        if length >= len(stack["blocks"]):
            continue
        for place, distance in enumerate(stack["distance"][length - 1]):
            if distance is None:
                continue
            blocks = list(stack["blocks"][place : place + length])
            scores[blocks[0]] = distance
            if best is None or distance < best[0]:
                best = (distance, blocks)
    return scores, best[1] if best is not None else []
