"""Checks of single values in a recipe."""

from __future__ import annotations

from prune_core.errors import RecipeError
from prune_core.patterns.base import checked_sparsity as checked_sparsity
from prune_core.sentences import Sentence

MAX_DIGITS = 9
"""Of the index of a block, a head or a neuron that is written as text."""


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
