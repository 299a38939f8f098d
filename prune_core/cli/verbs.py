"""The verbs of the command line: the one list, and how a verb's own file adds it to the parser.

The file of a verb is ``prune_core/cli/VERB.py`` and has three functions::

    def add(verbs):      # its options: new_verb(verbs, "VERB", run, show)
    def run(parsed):     # does it, and returns what --json prints
    def show(result):    # the same for people

Only the file of the verb that was typed is imported: starting one does not wait for what the others
need.
"""

from __future__ import annotations

import argparse
import importlib
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Result = dict[str, Any]

Verbs: TypeAlias = "argparse._SubParsersAction[Any]"
"""What ``add_subparsers`` gives, to which each verb adds its parser."""

VERBS: Mapping[str, str] = {
    "fetch": "Get or verify preset models and texts.",
    "inspect": "Statistics of every layer of a model.",
    "importance": "Importance of heads, neurons, blocks or layers.",
    "evaluate": "Apply a recipe and measure it on a text.",
    "compare": "Two to four recipes side by side.",
    "frontier": "Which runs of a store nothing beats, or what keeps a budget.",
    "sweep": "Measure a grid, cell by cell, into a store.",
    "runs": "List, search, note, delete and move runs.",
    "report": "Slides, a page and tables from a store's runs.",
    "generate": "Continue a prompt, dense and pruned.",
    "export": "Write a checkpoint that transformers loads.",
    "cost": "Parameters, bytes, FLOPs, and speed on this machine.",
}
"""What each verb does, in the order of ``--help``."""


def add_verbs(verbs: Verbs, only: str | None = None) -> None:
    """Add the verbs to a parser.

    Args:
        verbs: where to.
        only: the one that was typed: no other gets options; None for all.
    """
    for name, help_text in VERBS.items():
        if only in (None, name):
            importlib.import_module(f"prune_core.cli.{name}").add(verbs)
        else:
            verbs.add_parser(name, help=help_text)


def new_verb(
    verbs: Verbs,
    name: str,
    run: Callable[[argparse.Namespace], Result],
    show: Callable[[Result], None],
) -> argparse.ArgumentParser:
    """The parser of a verb, for its options.

    Args:
        verbs: that it is added to.
        name: one of :data:`VERBS`.
        run: does it.
        show: prints what it gave, for people.
    """
    sub: argparse.ArgumentParser = verbs.add_parser(name, help=VERBS[name], description=VERBS[name])
    sub.set_defaults(verb=run, show=show)
    sub.add_argument("--json", action="store_true", help="print one JSON object")
    return sub
