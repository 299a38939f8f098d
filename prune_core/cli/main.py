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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from prune_core.cli import checks
from prune_core.cli import compare as cli_compare
from prune_core.cli import export as cli_export
from prune_core.cli import frontier as cli_frontier
from prune_core.cli import importance as cli_importance
from prune_core.cli import report as cli_report
from prune_core.cli import sweep as cli_sweep
from prune_core.cli.evaluate import evaluate, show_evaluation
from prune_core.cli.fetch import fetch, show_fetch
from prune_core.cli.generate import generate, show_generation
from prune_core.cli.inspect import inspect, show_rows
from prune_core.cli.options import add_options, calibration_options, recipe_options, text_options
from prune_core.cli.running import Result, say
from prune_core.cli.runs import runs, runs_options, show_runs
from prune_core.errors import Cancelled, PruneCoreError
from prune_core.models.sources import any_folder
from prune_core.recipes.forms import BY_FIELD
from prune_core.texts.windows import START

if TYPE_CHECKING:
    pass


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; returns the exit code."""
    try:
        try:
            with any_folder():
                return _main(arguments)
        finally:  # at the end of the program it is too late for a sentence; --help ends it too
            sys.stdout.flush()
    except BrokenPipeError:  # whoever read has enough, as with | head
        checks.leave_output()
        return 128 + 13  # what a shell shows of SIGPIPE
    except OSError as error:
        checks.leave_output()
        say(f"The answer could not be written: {error.strerror or error}.")
        return 1


def _main(arguments: Sequence[str] | None) -> int:
    parsed = command_parser().parse_args(arguments)
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


def command_parser() -> argparse.ArgumentParser:
    """The parser of the command line; ``verb`` of what it returns runs the command."""
    parser = _Parser(prog="python -m prune_core", description="Prunescope without a browser.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")

    def verb(
        name: str, run: Callable[..., Result], show: Callable[[Result], None], help_text: str
    ) -> argparse.ArgumentParser:
        sub = verbs.add_parser(name, help=help_text, description=help_text)
        sub.set_defaults(verb=run, show=show)
        sub.add_argument("--json", action="store_true", help="print one JSON object")
        return sub

    sub = verb("fetch", fetch, show_fetch, "Get or verify preset models and texts.")
    sub.add_argument("names", nargs="*", metavar="NAME", help="default: smollm2-135m and grimm")

    sub = verb("inspect", inspect, show_rows, "Statistics of every layer of a model.")
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("--scores", metavar="CRITERION", help="what a criterion gives each layer too")
    add_options(sub, [BY_FIELD["criterion_args"]])
    calibration_options(sub)

    cli_importance.add_verb(verb, text_options)

    sub = verb("evaluate", evaluate, show_evaluation, "Apply a recipe and measure it on a text.")
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    text_options(sub, windows=16, seq_len=512)

    sub = verb("compare", cli_compare.run, cli_compare.show, "Two to four recipes side by side.")
    cli_compare.options(sub)
    text_options(sub, windows=16, seq_len=512)

    sub = verb(
        "frontier",
        cli_frontier.run,
        cli_frontier.show,
        "Which runs of a store nothing beats, or what keeps a budget.",
    )
    cli_frontier.options(sub)
    calibration_options(sub)
    text_options(sub, windows=8, seq_len=512)

    sub = verb(
        "sweep",
        cli_sweep.sweep,
        cli_sweep.show_sweep,
        "Measure a grid, cell by cell, into a store.",
    )
    cli_sweep.sweep_options(sub)

    sub = verb("runs", runs, show_runs, "List, search, note, delete and move runs.")
    runs_options(sub)

    sub = verb(
        "report", cli_report.run, cli_report.show, "Slides, a page and tables from a store's runs."
    )
    cli_report.options(sub)

    sub = verb("generate", generate, show_generation, "Continue a prompt, dense and pruned.")
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    sub.add_argument("--prompt", required=True, metavar="TEXT", help="what both models continue")
    sub.add_argument(
        "--max-new-tokens",
        type=int,
        default=64,
        metavar="TOKENS",
        help="most tokens that each answer gets, 1 to 1024; default: 64",
    )
    sub.add_argument(
        "--seed",
        type=int,
        default=0,
        metavar="N",
        help="the same number draws the same text again, 0 to 2^63 - 1; default: 0",
    )
    sub.add_argument("--greedy", action="store_true", help="always the likeliest token")
    sub.add_argument(
        "--temperature",
        type=float,
        default=0.8,
        metavar="T",
        help="0.01 to 10: above 1 unlikely tokens come more often, below 1 less; default: 0.8",
    )
    sub.add_argument(
        "--top-p",
        type=float,
        default=0.95,
        metavar="P",
        help="draw from the likeliest tokens that have this probability together, above 0 to 1; "
        "default: 0.95",
    )
    sub.add_argument("--chat", action="store_true", help="wrap the prompt in the chat template")

    cli_export.add_verbs(verb, recipe_options, text_options)
    return parser


# ---- verbs -----------------------------------------------------------------------------------


# ---- for people ------------------------------------------------------------------------------
