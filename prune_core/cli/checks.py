"""What the command line refuses before a model is loaded, and where it writes what it says."""

from __future__ import annotations

import os
import sys
from typing import Any

from prune_core.errors import RecipeError


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


def say(sentence: str) -> None:
    """One line on standard error, in place of a progress line that may stand there."""
    clear = "\r\033[K" if sys.stderr.isatty() else ""
    print(f"{clear}{sentence}", file=sys.stderr)


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
