"""Which parts go when the least important share of them is to go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from prune_core.errors import RecipeError


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
        raise RecipeError(f"the fraction must lie between 0 and 1, got {fraction}.")
    if scope not in ("block", "global"):
        raise RecipeError(f"unknown scope {scope!r}; use block or global.")
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
    chosen = owner[np.argsort(values, kind="stable")[:total]]
    return [int(count) for count in np.bincount(chosen, minlength=len(rows))]
