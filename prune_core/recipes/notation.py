"""How values of a recipe are written as text: one reader and one writer for each kind."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from prune_core.errors import RecipeError
from prune_core.recipes.calibration import PRESET_TEXTS, TextSpec
from prune_core.recipes.checks import MAX_DIGITS
from prune_core.recipes.choices import OWN_PATTERN
from prune_core.recipes.recipe import Recipe

Reader = Callable[[str, str], Any]
"""(text, what it was said with) -> value; refuses other text with one sentence."""

MAX_CUT = 1e6

MAX_SEED = 2**63 - 1

MAX_LINK_SEED = 2**31 - 1
"""More than a browser's number field holds would break the page."""

_WHOLE = re.compile(r"^-?\d+$", re.ASCII)


def read_pairs(text: str, where: str) -> tuple[tuple[int, int], ...]:
    """``0:3,5:1`` as pairs of a block and a part of it.

    Args:
        text: what was said; empty for none.
        where: what it was said with, for the sentence of an error: an option or a key.

    Raises:
        RecipeError: not of that form, or a number longer than any model has use for.
    """
    pairs = []
    for pair in filter(None, text.split(",")):
        block, _, part = pair.strip().partition(":")
        if not (block.isdecimal() and part.isdecimal()):
            what = "NEURON" if "neuron" in where else "HEAD"
            raise RecipeError(
                "{where} takes BLOCK:{what} pairs such as 0:3,5:1, got {pair!r}.",
                where=where,
                what=what,
                pair=pair,
            )
        pairs.append((read_index(block, where), read_index(part, where)))
    return tuple(pairs)


def read_indices(text: str, where: str) -> tuple[int, ...]:
    """``3,5`` as indices of blocks; see :func:`read_pairs`."""
    parts = [part.strip() for part in text.split(",") if part]
    for part in parts:
        if not part.isdecimal():
            raise RecipeError(
                "{where} takes the indices of blocks such as 3,5, got {part!r}.",
                where=where,
                part=part,
            )
    return tuple(read_index(part, where) for part in parts)


def read_index(digits: str, where: str) -> int:
    """Digits as a number.

    Raises:
        RecipeError: more of them than any model has use for; Python reads no number of thousands.
    """
    digits = digits.lstrip("0") or "0"
    if len(digits) > MAX_DIGITS:
        raise RecipeError(
            "{where} takes numbers of at most {most} digits, got one of {count}.",
            where=where,
            most=MAX_DIGITS,
            count=len(digits),
        )
    return int(digits)


def read_numbers(text: str, where: str) -> dict[str, float | int]:
    """``power=0.5,seed=3`` as numbers by name; what is written as a whole number stays one.

    Raises:
        RecipeError: not of that form, or not finite.
    """
    numbers: dict[str, float | int] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, _, number = part.rpartition("=")
        try:
            numbers[name] = int(number) if _WHOLE.match(number) else float(number)
            fits = bool(name) and math.isfinite(numbers[name])
        except (ValueError, OverflowError):
            fits = False
        if not fits:
            raise RecipeError(
                "{where} takes NAME=NUMBER such as power=0.5, got {part!r}.",
                where=where,
                part=part[:60],
            )
    return numbers


def read_overrides(text: str, where: str) -> dict[str, float]:
    """``role:mlp.down=0.3,block:2=0.5`` as sparsities of single parts.

    Raises:
        RecipeError: not of that form, or no override of a recipe.
    """
    numbers = read_numbers(text, where)
    return dict(Recipe(overrides=numbers).overrides)


def number_between(low: float, high: float) -> Reader:
    """A reader of numbers within bounds."""

    def read(text: str, where: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = math.nan
        if not low <= number <= high:
            raise RecipeError(
                "{where} takes a number from {low:g} to {high:g}, got {text!r}.",
                where=where,
                low=low,
                high=high,
                text=text,
            )
        return number

    return read


def whole_between(low: int, high: int, *, optional: bool = False) -> Reader:
    """A reader of whole numbers within bounds; an empty text is None where it is optional."""

    def read(text: str, where: str) -> int | None:
        if optional and not text:
            return None
        try:
            number = int(text)
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            raise RecipeError(
                "{where} takes a whole number from {low} to {high}, got {text!r}.",
                where=where,
                low=low,
                high=high,
                text=text[:60],
            )
        return number

    return read


def one_of(options: Collection[str]) -> Reader:
    """A reader of names."""

    def read(text: str, where: str) -> str:
        if text not in options:
            raise RecipeError(
                "{where} takes {options:list}; got {text!r}.",
                where=where,
                options=options,
                text=text[:60],
            )
        return text

    return read


def read_flag(text: str, where: str) -> bool:
    """``1`` or ``true`` as True, ``0`` or ``false`` as False."""
    if text.lower() not in ("1", "0", "true", "false"):
        raise RecipeError("{where} takes 1 or 0, got {text!r}.", where=where, text=text[:60])
    return text.lower() in ("1", "true")


def read_name(text: str, where: str) -> str:
    """Any name: whether it is known is for whoever looks it up to say, with the nearest one."""
    return text


def read_pattern(text: str, where: str) -> str:
    """A pattern by name; ``own`` for the criterion's."""
    Recipe().with_pattern(text)
    return text


def read_text_name(text: str, where: str) -> TextSpec | None:
    """A preset's name, else the path of a file; None for an empty text: the usual one."""
    return TextSpec("preset" if text in PRESET_TEXTS else "file", text) if text else None


def read_preset(text: str, where: str) -> TextSpec | None:
    """A preset's name, or nothing for the usual text."""
    # a link must not make a server read a file
    return read_text_name(one_of(("", *PRESET_TEXTS))(text, where), where)


def read_link_pattern(text: str, where: str) -> str:
    """A pattern as links of every version name it."""
    # a session holds the pattern itself: its widget shows it
    if text in ("", OWN_PATTERN):
        raise RecipeError(
            "{where} takes the name of a pattern, got {text!r}.", where=where, text=text
        )
    return read_pattern(text, where)


def write_pairs(pairs: Sequence[tuple[int, int]]) -> str:
    """What :func:`read_pairs` reads."""
    return ",".join(f"{block}:{part}" for block, part in pairs)


def write_indices(blocks: Sequence[int]) -> str:
    """What :func:`read_indices` reads."""
    return ",".join(map(str, blocks))


def write_numbers(numbers: Mapping[str, float | int]) -> str:
    """What :func:`read_numbers` reads, exactly."""
    return ",".join(f"{name}={number!r}" for name, number in sorted(numbers.items()))


def write_plain(value: object) -> str:
    """A name or number in the shortest text that reads as exactly this value; None is empty."""
    if isinstance(value, bool):
        return "1" if value else "0"
    if isinstance(value, float):
        return repr(value).removesuffix(".0")
    return "" if value is None else str(value)


def write_text_name(text: TextSpec | None) -> str:
    """A preset's name or a path; pasted text has neither."""
    return "" if text is None or text.kind == "inline" else text.value
