"""What a pattern is, and the one place that rounds."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import numpy.typing as npt

from prune_core.recipes.checks import checked_sparsity

Scores = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.int32]


def num_pruned(total: int, sparsity: float) -> int:
    """How many of ``total`` weights a sparsity in [0, 1] removes: rounded to the nearest.

    Raises:
        RecipeError: the sparsity is no number in [0, 1].
    """
    return round(total * checked_sparsity(sparsity))


class Pattern(Protocol):
    """Weights are ranked within groups; the lowest ranks of each group go.

    A pattern is cut by one number per layer: all ranks below it are removed.
    """

    def fits(self, rows: int, columns: int) -> bool:
        """False if a layer of this shape cannot be grouped: it is left dense, and said."""
        ...

    def rank(self, scores: Scores) -> Ranks:
        """(out, in) scores to each weight's place within its group; 0 goes first, ties by position.

        Slow (a sort) and the same for every sparsity: cached.
        """
        ...

    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rank below which weights are removed at a sparsity."""
        ...

    def removed(self, rows: int, columns: int, cut: int) -> int:
        """How many weights of the layer a cut removes; proportional to ``cut``."""
        ...

    def places(self, rows: int, columns: int) -> int:
        """The cut that removes every weight."""
        ...


def sortable(scores: Scores) -> npt.NDArray[np.uint64]:
    """Float32 scores as integers of the same order, in the upper half of 64 bits.

    The lower half is free for the position: one integer sort is then a stable argsort, and numpy
    sorts integers with vector instructions (about 4 times faster than a stable float argsort).
    """
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.uint32)
    # a negative float's bits sort backwards: flip all of them; else set the sign bit
    flipped = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    return flipped.astype(np.uint64) << np.uint64(32)
