"""Checks of single values in a recipe."""

from __future__ import annotations

import math

from prune_core.errors import RecipeError
from prune_core.sentences import Sentence

MAX_DIGITS = 9
"""Of the index of a block, a head or a neuron that is written as text."""


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


def checked_text(value: object, what: str) -> None:
    """A name that is text."""
    if not isinstance(value, str):
        raise RecipeError(
            "{what} must be text in quotes, got {value!r}.", what=Sentence(what), value=value
        )


def checked_whole(value: object, low: int, high: int, what: str) -> None:
    """A whole number within bounds."""
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise RecipeError(
            "{what} must be a whole number from {low} to {high}, got {value!r}.",
            what=Sentence(what),
            low=low,
            high=high,
            value=value,
        )


def checked_pairs(given: object, what: str) -> tuple[tuple[int, int], ...]:
    """Pairs of block and part, sorted, each once."""
    found = set()
    for pair in given if isinstance(given, tuple | list) else (given,):
        fits = isinstance(pair, tuple | list) and len(pair) == 2
        if not fits or not all(type(x) is int and x >= 0 for x in pair):
            raise RecipeError(
                "a {what} is a (block, {what}) pair of whole numbers, got {pair!r}.",
                what=Sentence(what),
                pair=pair,
            )
        found.add((pair[0], pair[1]))
    return tuple(sorted(found))


def checked_blocks(given: object) -> tuple[int, ...]:
    """Indices of blocks, sorted, each once."""
    found = given if isinstance(given, tuple | list) else (given,)
    for block in found:
        if type(block) is not int or block < 0:
            raise RecipeError(
                "a block is named by its index, a whole number, got {block!r}.", block=block
            )
    return tuple(sorted(set(found)))
