"""Unstructured patterns: single weights compete within the layer or within their row."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune_core.patterns.base import Ranks, Scores, num_pruned, sortable

_POSITION = np.uint64(0xFFFFFFFF)
_CHUNK = 65536
"""Weights ranked together: their keys stay in the processor's cache, half the time of a layer."""


@dataclass(frozen=True, slots=True)
class PerLayer:
    """All weights of the layer compete."""

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

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rounded share of the layer."""
        return num_pruned(rows * columns, sparsity)

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """One weight per rank."""
        return cut

    def places(self, rows: int, columns: int) -> int:
        """One for each weight."""
        return rows * columns


@dataclass(frozen=True, slots=True)
class PerRow:
    """The weights of each output row compete: Wanda's comparison group."""

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
