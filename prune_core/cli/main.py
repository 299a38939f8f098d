"""The command line: the library without a browser. Each verb runs one job, inline.

With ``--json`` standard output holds one JSON object and nothing else. The exit code is 0 only on
success; errors are one sentence on standard error.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NoReturn

from prune_core.cli.checks import leave_output, say
from prune_core.cli.verbs import Result, add_verbs
from prune_core.errors import Cancelled, PruneCoreError
from prune_core.models.sources import any_folder
from prune_core.texts.windows import START


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    try:
        try:
            with any_folder():
                return _main(arguments)
        finally:  # at the end of the program it is too late for a sentence; --help ends it too
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough, as with | head
        leave_output()
        return 128 + 13  # what a shell shows of SIGPIPE
    except OSError as error:
        leave_output()
        say(f"The answer could not be written: {error.strerror or error}.")
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    words = list(sys.argv[1:] if arguments is None else arguments)
    typed = next((word for word in words if not word.startswith("-")), "")
    parsed = command_parser(typed).parse_args(words)
    try:
        with _starting(getattr(parsed, "bos", None)):
            result: Result = parsed.verb(parsed)
    except KeyboardInterrupt:
        say("Cancelled.")
        return 130
    except PruneCoreError as error:
        say(str(error))
        return 130 if isinstance(error, Cancelled) else 1
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        say(f"{error.strerror or error}{where}.")
        return 1
    if parsed.json:
        print(json.dumps(_finite(result), allow_nan=False))
    else:
        parsed.show(result)
    return 0


@contextmanager
def _starting(chosen: str | None) -> Iterator[None]:
    """``--bos`` while a verb runs: in the environment, so that worker processes have it too."""
    before = os.environ.get(START)
    if chosen is not None:
        os.environ[START] = chosen
    try:
        yield
    finally:
        if before is not None:
            os.environ[START] = before
        else:
            os.environ.pop(START, None)


def _finite(value: Any) -> Any:
    """JSON has no NaN and no infinity: they become null."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return value


# ---- options ---------------------------------------------------------------------------------


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one sentence, where argparse would print the whole usage first."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{message[:1].upper()}{message[1:]}; --help says what is possible.\n")


def command_parser(only: str | None = None) -> argparse.ArgumentParser:
    """The parser of the command line; ``verb`` of what it returns runs the command.

    Args:
        only: the verb whose options are needed; None for those of all.
    """
    parser = _Parser(prog="python -m prune_core", description="Prunescope without a browser.")
    add_verbs(parser.add_subparsers(required=True, metavar="VERB"), only)
    return parser
