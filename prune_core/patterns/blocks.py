"""Blocks of weights: squares that stay or go as one, so that a kernel may skip them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from prune_core.patterns.base import Ranks, Scores, num_pruned
from prune_core.patterns.unstructured import PerLayer


@dataclass(frozen=True, slots=True)
class Blocks:
    """Squares of ``size`` x ``size`` weights compete within the layer.

    A square's score is the mean (``avg``) or the largest (``max``) of its weights' scores, as
    TF-MOT's ``block_size`` and ``block_pooling_type``.
    """

    size: int
    pooling: str = "avg"

    def fits(self, rows: int, columns: int) -> bool:
        """Whole squares only."""
        return rows % self.size == 0 and columns % self.size == 0

    def rank(self, scores: Scores) -> Ranks:
        """Place of each weight's square within the layer; ties by row, then column of squares."""
        rows, columns = scores.shape
        b = self.size
        squares = scores.reshape(rows // b, b, columns // b, b)
        if self.pooling == "max":
            pooled = squares.max(axis=(1, 3), initial=-np.inf)
        else:
            pooled = squares.mean(axis=(1, 3), dtype=np.float64).astype(np.float32)
        places = PerLayer().rank(pooled)
        return np.repeat(np.repeat(places, b, axis=0), b, axis=1)

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rounded share of the squares."""
        return num_pruned(self.places(rows, columns), sparsity)

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """A whole square per rank."""
        return cut * self.size**2

    def places(self, rows: int, columns: int) -> int:
        """One for each square."""
        return rows * columns // self.size**2
