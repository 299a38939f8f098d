"""Unstructured patterns: single weights compete within the layer or within their row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prune_core.patterns.base import (
    PATTERNS,
    AnyRanks,
    Gone,
    Kept,
    Pattern,
    Ranks,
    Scores,
    num_pruned,
    sortable,
)

_POSITION = np.uint64(0xFFFFFFFF)
_CHUNK = 65536
"""Weights ranked together: their keys stay in the processor's cache, half the time of a layer."""


@PATTERNS.register(
    "per-layer",
    place=0,
    texts={
        "en": {
            "title": "Per layer",
            "short": "per layer",
            "measures": "weights of a layer compete with each other.",
        },
        "zh": {
            "title": "按层",
            "short": "按层",
            "measures": "同一层的权重彼此竞争。",
        },
    },
)
@dataclass(frozen=True)
class PerLayer(Pattern):
    """All weights of the layer compete."""

    examples: ClassVar[tuple[str, ...]] = ("per-layer",)

    @classmethod
    def read(cls, values: str) -> PerLayer | None:
        """It has no values."""
        return None if values else cls()

    @property
    def name(self) -> str:
        """``per-layer``."""
        return "per-layer"

    def fits(self, rows: int, columns: int) -> bool:
        """Always."""
        return True

    def rank(self, scores: Scores) -> Ranks:
        """Place within the layer; ties by row, then column."""
        keys = sortable(scores.reshape(-1))
        keys |= np.arange(keys.size, dtype=np.uint64)
        keys.sort()
        ranks = np.empty(keys.size, dtype=np.int32)
        ranks[(keys & _POSITION).astype(np.int64)] = np.arange(keys.size, dtype=np.int32)
        return ranks.reshape(scores.shape)

    def keep(self, scores: Scores, cut: int) -> Kept:
        """All but the lowest, without a sort; ties by position."""
        if cut <= 0:
            return np.ones(scores.shape, dtype=bool)
        values = scores.reshape(-1)
        at = np.partition(values, cut - 1)[cut - 1]
        gone = values < at
        ties = np.flatnonzero(values == at)[: cut - int(gone.sum())]
        gone[ties] = True
        return ~gone.reshape(scores.shape)

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rounded share of the layer."""
        return num_pruned(rows * columns, sparsity)

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """One weight per rank."""
        return cut

    def places(self, rows: int, columns: int) -> int:
        """One for each weight."""
        return rows * columns


@PATTERNS.register(
    "per-row",
    place=10,
    texts={
        "en": {
            "title": "Per output row",
            "short": "per row",
            "measures": "weights of one output row compete.",
        },
        "zh": {
            "title": "按输出行",
            "short": "按行",
            "measures": "同一输出行的权重彼此竞争。",
        },
    },
)
@dataclass(frozen=True)
class PerRow(Pattern):
    """The weights of each output row compete: Wanda's comparison group."""

    examples: ClassVar[tuple[str, ...]] = ("per-row",)

    @classmethod
    def read(cls, values: str) -> PerRow | None:
        """It has no values."""
        return None if values else cls()

    @property
    def name(self) -> str:
        """``per-row``."""
        return "per-row"

    def fits(self, rows: int, columns: int) -> bool:
        """Always."""
        return True

    def rank(self, scores: Scores) -> Ranks:
        """Place within the row; ties by column."""
        rows, columns = scores.shape
        ranks = np.empty((rows, columns), dtype=np.int32)
        step = max(1, _CHUNK // max(1, columns))
        column = np.arange(columns, dtype=np.uint64)
        places = np.tile(np.arange(columns, dtype=np.int32), step)
        for first in range(0, rows, step):
            keys = sortable(scores[first : first + step])
            # the position within the chunk: it orders ties by column and says where to write
            keys |= column + (np.arange(len(keys), dtype=np.uint64) * np.uint64(columns))[:, None]
            keys.sort(axis=1)
            order = (keys & _POSITION).astype(np.int64).reshape(-1)
            ranks[first : first + step].reshape(-1)[order] = places[: order.size]
        return ranks

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rounded share of a row."""
        return num_pruned(columns, sparsity)

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """As many in every row."""
        return rows * cut

    def places(self, rows: int, columns: int) -> int:
        """One for each weight of a row."""
        return columns

    def gaps(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """By row: those of its columns."""
        return ranks[:, list(gone[1])] if len(gone[1]) else None
