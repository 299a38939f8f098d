"""Blocks of weights: squares that stay or go as one, so that a kernel may skip them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from prune_core.errors import RecipeError
from prune_core.patterns.base import PATTERNS, AnyRanks, Gone, Pattern, Ranks, Scores, num_pruned
from prune_core.patterns.unstructured import PerLayer

_VALUES = re.compile(r"(\d{1,4})(?::(avg|max))?")


@PATTERNS.register(
    "block",
    spelling="block:B",
    place=30,
    texts={
        "en": {
            "title": "Blocks {size} x {size}",
            "short": "{size} x {size} blocks",
            "measures": "squares of B x B weights go together, by the mean of their scores "
            "(`block:B:max`: the largest).",
        },
        "zh": {
            "title": "{size} x {size} 块",
            "short": "{size} x {size} 块",
            "measures": "B x B 的权重方块一起移除，按分数的均值（`block:B:max`：按最大值）。",
        },
    },
)
@dataclass(frozen=True)
class Blocks(Pattern):
    """Squares of ``size`` x ``size`` weights compete within the layer.

    A square's score is the mean (``avg``) or the largest (``max``) of its weights' scores, as
    TF-MOT's ``block_size`` and ``block_pooling_type``.
    """

    examples: ClassVar[tuple[str, ...]] = ("block:4",)

    size: int
    pooling: str = "avg"

    @classmethod
    def read(cls, values: str) -> Blocks | None:
        """``B`` or ``B:max``.

        Raises:
            RecipeError: no weight would be in a block.
        """
        match = _VALUES.fullmatch(values)
        if not match:
            return None
        if int(match.group(1)) < 1:
            raise RecipeError("a weight block has at least 1 x 1 weights.")
        return cls(int(match.group(1)), match.group(2) or "avg")

    @property
    def name(self) -> str:
        """``block:B``, or ``block:B:max``."""
        return f"block:{self.size}" + ("" if self.pooling == "avg" else f":{self.pooling}")

    @property
    def group(self) -> tuple[int, int]:
        """A square."""
        return self.size, self.size

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

    def left_shape(self, rows: int, columns: int, gone: Gone) -> tuple[int, int]:
        """Squares count while any weight of theirs is left."""
        gone_rows, gone_columns = (_gone_squares(side, self.size) for side in gone)
        return rows - self.size * len(gone_rows), columns - self.size * len(gone_columns)

    def counts_by_hand(self, rows: int, columns: int, gone: Gone) -> bool:
        """A square has lost some of its weights, not all."""
        left = rows - len(gone[0]), columns - len(gone[1])
        return self.left_shape(rows, columns, gone) != left

    def gaps(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """Of whole squares, by their first weight."""
        gone_rows, gone_columns = (_gone_squares(side, self.size) for side in gone)
        squares = ranks[:: self.size, :: self.size]
        return super().gaps(squares, (gone_rows, gone_columns))


def _gone_squares(gone: Sequence[int], size: int) -> list[int]:
    """Squares along one side that have lost all their rows (or columns)."""
    counts: dict[int, int] = {}
    for index in gone:
        counts[index // size] = counts.get(index // size, 0) + 1
    return [square for square, count in counts.items() if count == size]
