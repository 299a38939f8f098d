"""Which parts go when the least important share of them is to go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from prune_core.errors import RecipeError
from prune_core.jobs.heads import HEAD_METHODS
from prune_core.recipes.parts import HEAD_FIELDS


def removable(stacks: Sequence[str], *, ends: bool) -> list[list[int]]:
    """Blocks that may go one by one, by stack.

    Args:
        stacks: of each block, in order.
        ends: the first and the last block of a stack may go too; one of each stack stays.
    """
    candidates = []
    for name in dict.fromkeys(stacks):
        blocks = [index for index, stack in enumerate(stacks) if stack == name]
        candidates.append(blocks if ends and len(blocks) > 1 else blocks[1:-1])
    return candidates


def most_removable(stacks: Sequence[str], *, ends: bool) -> int:
    """How many of :func:`removable` can go together."""
    return sum(len(blocks) - ends for blocks in removable(stacks, ends=ends) if blocks)


def importance(method: str, score: float) -> float:
    """A head's score as an importance: one that looks everywhere alike (entropy) matters least."""
    return -score if HEAD_METHODS[method].falling else score


def lowest_heads(
    sites: Sequence[Mapping[str, Any]], method: str, fraction: float, scope: str = "block"
) -> dict[str, tuple[tuple[int, int], ...]]:
    """The least important heads of all kinds of attention, as fields of a recipe.

    Args:
        sites: of a ``HeadImportance`` result.
        method: of that result.
        fraction: see :func:`lowest`.
        scope: see :func:`lowest`; ``block`` is each attention here, ``global`` all of them.

    Returns:
        ``drop_heads``, and ``drop_cross_heads`` where there is cross-attention: (block, head).

    Raises:
        RecipeError: see :func:`lowest`.
    """
    rows = [
        (str(site["kind"]), int(block), [importance(method, score) for score in scores])
        for site in sites
        for block, scores in zip(site["blocks"], site["scores"], strict=True)
    ]
    heads = lowest(range(len(rows)), [scores for _, _, scores in rows], fraction, scope)
    return {
        field: tuple(sorted((rows[r][1], head) for r, head in heads if rows[r][0] == kind))
        for kind, field in HEAD_FIELDS.items()
        if any(site["kind"] == kind for site in sites)
    }


def lowest(
    blocks: Sequence[int], scores: Sequence[Any], fraction: float, scope: str = "block"
) -> tuple[tuple[int, int], ...]:
    """The least important parts as (block, part) pairs, as recipes take them.

    Args:
        blocks: flat index of each row of ``scores``.
        scores: by block, over its parts: lists or arrays.
        fraction: 0 to 1, of each block's parts or of all; rounded.
        scope: ``block`` (the same share of each block) or ``global`` (all compete; a block keeps
            at least one part unless ``fraction`` is 1).

    Raises:
        RecipeError: a fraction out of range or another scope.
    """
    if not 0 <= fraction <= 1:
        raise RecipeError(
            "the fraction must lie between 0 and 1, got {fraction}.", fraction=fraction
        )
    if scope not in ("block", "global"):
        raise RecipeError("unknown scope {scope!r}; use block or global.", scope=scope)
    rows = [np.asarray(row, dtype=np.float64) for row in scores]
    orders = [np.argsort(row, kind="stable") for row in rows]  # ties by position
    if scope == "block":
        counts = [round(fraction * len(row)) for row in rows]
    else:
        counts = global_counts(rows, orders, fraction)
    return tuple(
        (int(block), part)
        for block, order, count in sorted(
            zip(blocks, orders, counts, strict=True), key=lambda row: row[0]
        )
        for part in np.sort(order[:count]).tolist()
    )


def global_counts(
    rows: Sequence[np.ndarray[Any, Any]], orders: Sequence[np.ndarray[Any, Any]], fraction: float
) -> list[int]:
    """How many parts each block loses when all compete: lowest first, ties by place.

    Args:
        rows: scores by block.
        orders: each row's own order, lowest first.
        fraction: 0 to 1, of all parts; rounded.
    """
    total = round(fraction * sum(len(row) for row in rows))
    if fraction == 1:
        return [len(row) for row in rows]
    # the best part of each block is spared
    spared = [row[order[:-1]] for row, order in zip(rows, orders, strict=True)]
    owner = np.repeat(np.arange(len(rows)), [len(row) for row in spared])
    values = np.concatenate(spared) if spared else np.zeros(0)
    owners = owner[np.argsort(values, kind="stable")[:total]]
    return [int(count) for count in np.bincount(owners, minlength=len(rows))]
