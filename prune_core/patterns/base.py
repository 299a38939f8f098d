"""What a pattern is, the registry of patterns, and the one place that rounds."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from prune_core.errors import RecipeError
from prune_core.registry import Registry
from prune_core.sentences import Sentence

Scores = npt.NDArray[np.float32]
Ranks = npt.NDArray[np.int32]
Kept = npt.NDArray[np.bool_]
AnyRanks = npt.NDArray[Any]
"""Ranks as they are stored: float32 or int32."""

Gone = tuple[Sequence[int], Sequence[int]]
"""Rows and columns of a layer that dropped parts take."""


def checked_sparsity(value: object, what: str = "sparsity") -> float:
    """A sparsity as a float in [0, 1]; anything else is refused with what it was.

    Raises:
        RecipeError: not a number (a bool or text is none), not finite, or outside [0, 1].
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise RecipeError(
            "{what} must be a number from 0 to 1, got {value!r}.", what=Sentence(what), value=value
        )
    if not math.isfinite(value) or not 0.0 <= value <= 1.0:
        raise RecipeError(
            "{what} must lie between 0 and 1, got {value}.", what=Sentence(what), value=value
        )
    return float(value)


def num_pruned(total: int, sparsity: float) -> int:
    """How many of ``total`` weights a sparsity in [0, 1] removes: rounded to the nearest.

    Raises:
        RecipeError: the sparsity is no number in [0, 1].
    """
    return round(total * checked_sparsity(sparsity))


class Pattern(ABC):
    """Weights are ranked within groups; the lowest ranks of each group go.

    A pattern is cut by one number per layer: all ranks below it are removed. What it asks of the
    layer that is pruned, of repair and of dropped parts it says itself: nobody asks which it is.

    Attributes:
        examples: names that the pages offer.
        as_reached: repair chooses what goes of a group when its first column is reached, not for
            all columns of a slab beforehand.
    """

    examples: ClassVar[tuple[str, ...]] = ()
    as_reached: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def read(cls, values: str) -> Pattern | None:
        """The pattern of what stands behind the first colon of its name; None if none is meant.

        Raises:
            RecipeError: values that no such pattern can have.
        """

    @property
    @abstractmethod
    def name(self) -> str:
        """Its name in a recipe, in the one spelling."""

    @property
    def kept_of(self) -> tuple[int, int] | None:
        """(N, M) where the pattern itself says how much goes: N of every M stay."""
        return None

    @property
    def sparsity(self) -> float | None:
        """The sparsity that it brings; None where any will do."""
        return None if self.kept_of is None else 1 - self.kept_of[0] / self.kept_of[1]

    @property
    def group(self) -> tuple[int, int]:
        """Rows and columns of what must not be torn apart; (1, 1) for single weights."""
        return 1, 1

    @abstractmethod
    def fits(self, rows: int, columns: int) -> bool:
        """False if a layer of this shape cannot be grouped: it is left dense, and said."""

    @abstractmethod
    def rank(self, scores: Scores) -> Ranks:
        """(out, in) scores to each weight's place within its group; 0 goes first, ties by position.

        Slow (a sort) and the same for every sparsity: cached.
        """

    def keep(self, scores: Scores, cut: int) -> Kept:
        """(out, in) True for what stays at a cut: for scores that are cut once and forgotten."""
        kept: Kept = self.rank(scores) >= cut
        return kept

    @abstractmethod
    def cut(self, rows: int, columns: int, sparsity: float) -> int:
        """The rank below which weights are removed at a sparsity."""

    @abstractmethod
    def removed(self, rows: int, columns: int, cut: int) -> int:
        """How many weights of the layer a cut removes; proportional to ``cut``."""

    @abstractmethod
    def places(self, rows: int, columns: int) -> int:
        """The cut that removes every weight."""

    # ---- where dropped parts have taken rows and columns of the layer; some of it is left --------

    def left_shape(self, rows: int, columns: int, gone: Gone) -> tuple[int, int]:
        """Rows and columns over which places are counted in what is left of a layer.

        Args:
            rows: of the whole layer.
            columns: of the whole layer.
            gone: what dropped parts take of it.
        """
        return rows - len(gone[0]), columns - len(gone[1])

    def counts_by_hand(self, rows: int, columns: int, gone: Gone) -> bool:
        """What a cut removes must be counted: dropped columns run through groups."""
        return False

    def gaps(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """Ranks that dropped parts take, unsorted: (count,), or (out, count) where rows compete.

        None where places are not counted over the layer or its rows, or nothing is gone.
        """
        gone_rows, gone_columns = list(gone[0]), list(gone[1])
        if not gone_rows and not gone_columns:
            return None
        kept = np.ones(ranks.shape[0], dtype=bool)
        kept[gone_rows] = False
        parts = [ranks[gone_rows].reshape(-1), ranks[kept][:, gone_columns].reshape(-1)]
        return np.concatenate(parts)

    def lifted(self, ranks: AnyRanks, gone: Gone) -> AnyRanks | None:
        """Ranks to cut in place of the layer's, where gaps within small groups would not do."""
        return None


PATTERNS: Registry[type[Pattern]] = Registry("pattern", "prune_core.patterns")
"""Texts of an entry: ``title``, ``short`` name, what it ``measures`` (who competes); the fields of
the pattern may stand in them."""


@lru_cache(maxsize=256)
def parse_pattern(name: str) -> Pattern:
    """The pattern of a name: ``per-layer``, ``per-row``, ``nm:N:M``, ``block:B[:avg|max]``.

    Raises:
        RecipeError: no pattern has this name, or its values are of no use.
    """
    kind, _, values = name.partition(":")
    pattern = PATTERNS[kind].fn.read(values) if kind in PATTERNS else None
    if pattern is None or (":" in name and not values):
        known = [entry.spelling for entry in PATTERNS.values()]
        raise RecipeError("unknown pattern {pattern!r}; use {known:or}.", pattern=name, known=known)
    return pattern


def pattern_text(name: str, language: str, text: str = "title") -> str:
    """A text of a pattern, with its values in it.

    Args:
        name: of the pattern in a recipe.
        language: of the reader.
        text: ``title`` or ``short``.

    Raises:
        RecipeError: no pattern has this name.
    """
    pattern = parse_pattern(name)
    return PATTERNS[name.partition(":")[0]].text(language, text, name).format(**vars(pattern))


def example_patterns() -> list[str]:
    """Names that the pages offer, in the order of lists."""
    return [name for entry in PATTERNS.values() for name in entry.fn.examples]


def sortable(scores: Scores) -> npt.NDArray[np.uint64]:
    """Float32 scores as integers of the same order, in the upper half of 64 bits.

    The lower half is free for the position: one integer sort is then a stable argsort, and numpy
    sorts integers with vector instructions (about 4 times faster than a stable float argsort).
    """
    bits = np.ascontiguousarray(scores, dtype=np.float32).view(np.uint32)
    # a negative float's bits sort backwards: flip all of them; else set the sign bit
    flipped = np.where(bits >> 31, ~bits, bits | np.uint32(0x80000000))
    return flipped.astype(np.uint64) << np.uint64(32)
