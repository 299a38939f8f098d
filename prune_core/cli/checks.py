"""What the command line refuses before a model is loaded, and where it writes its answer."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

from prune_core.errors import RecipeError
from prune_core.models.info import LICENCE
from prune_core.recipes.checks import MAX_DIGITS


def index_of(text: str, option: str) -> int:
    """Digits as a number.

    Raises:
        RecipeError: more of them than any model has use for; Python reads no number of thousands.
    """
    digits = text.lstrip("0") or "0"
    if len(digits) > MAX_DIGITS:
        raise RecipeError(
            "{where} takes numbers of at most {most} digits, got one of {count}.",
            where=option,
            most=MAX_DIGITS,
            count=len(digits),
        )
    return int(digits)


def check_name(value: str, option: str) -> None:
    """Refuse a place to write to that is not named in UTF-8.

    Raises:
        RecipeError: bytes that are no UTF-8; Python passes them on as half characters.
    """
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        raise RecipeError(
            "{option} is not valid UTF-8; choose another name.", option=option
        ) from None


def with_warnings(result: Any, core: Any, source: str) -> dict[str, Any]:
    """A job's result with what loading its model gave to say, which is said once here too.

    Args:
        result: of a job.
        core: that ran it.
        source: of its model.
    """
    warnings = core.warnings(source)
    known: set[str] = _SAID.setdefault(core, set())
    say_warnings([warning for warning in warnings if warning not in known])
    known.update(warnings)
    return {**result, "warnings": list(warnings)}


def say_warnings(warnings: Sequence[str]) -> None:
    """Each on a line of standard error, but for that of the licence."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    for warning in warnings:
        if not warning.startswith(LICENCE):
            print(f"{clear}{warning}", file=sys.stderr)


_SAID: WeakKeyDictionary[Any, set[str]] = WeakKeyDictionary()
"""Warnings that stand on standard error already, by the core that loaded the model."""


def belongs(given: Any, option: str, fits: bool, to: str) -> None:
    """Refuse an option that would be ignored.

    Args:
        given: its value; None or False where it was not given.
        option: its name.
        fits: what it belongs to was asked for.
        to: what that is, as options.

    Raises:
        RecipeError: it was given and does not fit.
    """
    if given is not None and given is not False and not fits:
        raise RecipeError("{option} belongs to {to}; leave it out.", option=option, to=to)


def leave_output() -> None:
    """Standard output goes nowhere from now on: Python writes what is left when it ends."""
    try:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    except (OSError, ValueError):
        pass  # not a file of the system's, so nothing is left to write
