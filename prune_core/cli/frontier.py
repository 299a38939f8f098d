"""``frontier``: what nothing beats among a store's runs, and what keeps a budget."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from prune_core.cli.options import (
    add_options,
    calibration_from,
    calibration_options,
    check_allocation_arguments,
    check_criterion,
    known_criterion,
    said,
    text_options,
)
from prune_core.cli.running import ShownModel
from prune_core.cli.verbs import Result, Verbs, new_verb
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.questions import held_out_job, measure_job
from prune_core.models.sources import parse_source
from prune_core.recipes.forms import BY_FIELD, option_values, recipe_of
from prune_core.recipes.recipe import OWN_PATTERN, Recipe
from prune_core.sweeps.axes import COSTS, QUALITIES, alike_groups, same_question
from prune_core.sweeps.budget import FileSize, families, solve
from prune_core.sweeps.frontier import frontier
from prune_core.sweeps.limits import parse_promise
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.telling import (
    frontier_to_dict,
    removal,
    solution_to_dict,
    spoken_worse,
    table,
)
from prune_core.texts.reading import text_named
from prune_core.words.numbers import counted_share

FIELDS = ("criterion_args", "allocation", "allocation_args", "overrides", "reconstruction")
"""Of a recipe, the same for every criterion and pattern that is tried."""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "frontier", run, show)
    sub.add_argument("model", metavar="MODEL", nargs="?", help="needed for --budget")
    sub.add_argument("--store", metavar="URL", help="runs; default: PRUNE_STORE or the user's own")
    sub.add_argument("--sweep", metavar="ID", help="of this sweep only")
    sub.add_argument(
        "--cost", choices=COSTS, default="nonzero", help="what is to be small; default: nonzero"
    )
    sub.add_argument(
        "--quality",
        choices=QUALITIES,
        default="perplexity",
        help="what is to be good; default: perplexity",
    )
    sub.add_argument("--budget", metavar="LIMIT", help="5%% (worse perplexity) or 60MB (on disk)")
    sub.add_argument(
        "--criteria", metavar="C,…", help="to try; default: what the store has runs of, or wanda"
    )
    sub.add_argument(
        "--pattern",
        default=OWN_PATTERN,
        metavar="P,…",
        help="one or more, with commas; default: own, that of each criterion",
    )
    add_options(sub, [BY_FIELD[field] for field in FIELDS])
    sub.add_argument(
        "--held-out",
        metavar="FILE",
        help="text that confirms the answer; default: the windows after those of --text",
    )
    calibration_options(sub)
    text_options(sub, windows=8, seq_len=512)


def run(parsed: argparse.Namespace) -> Result:
    """The front of a store's runs or, with ``--budget``, what keeps it.

    Raises:
        StoreError: the store cannot be opened.
        UnlikeRunsError: the chosen runs were measured in different ways.
        BudgetError: the budget is not readable.
    """
    return _front(parsed) if parsed.budget is None else _budget(parsed)


def _front(parsed: argparse.Namespace) -> Result:
    store = RunStore(parsed.store)
    try:
        runs = [run for run in store.runs(sweep=parsed.sweep) if run.state == "done"]
        name = store.name
    finally:
        store.close()
    if parsed.model is not None:
        source = parse_source(parsed.model).text
        runs = [run for run in runs if run.cell.source == source]
    if not runs:
        raise PruneCoreError("the store {name} has no finished runs of that choice.", name=name)
    if parsed.sweep is None:
        # a store may hold any number of questions: the one most asked, and how many others
        groups = alike_groups(runs)
        runs, others = groups[0], len(groups) - 1
    else:
        others = 0
    found = frontier_to_dict(frontier(runs, parsed.cost, parsed.quality))
    return {"store": name, "runs": len(runs), "other_protocols": others, **found}


def _budget(parsed: argparse.Namespace) -> Result:
    from prune_core.models.info import ModelInfo

    promise = parse_promise(parsed.budget)
    if parsed.model is None:
        raise RecipeError("name the model whose budget is asked for: frontier MODEL --budget 5%.")
    text, source = text_named(parsed.text), parse_source(parsed.model).text
    question = Cell(source, text=text, seq_len=parsed.seq_len, windows=parsed.windows)
    store = RunStore(parsed.store) if parsed.store is not None else None
    known: list[Run] = []
    if store is not None:
        found = [run for run in store.runs(sweep=parsed.sweep) if same_question(question, run)]
        known = alike_groups(found)[0] if found else []
    if parsed.criteria is None and known:
        recipes = [run.cell.recipe for run in known]
    else:
        names = [name.strip() for name in (parsed.criteria or "wanda").split(",") if name.strip()]
        recipes = _recipes(parsed, [known_criterion(name) for name in names])
    ask = ShownModel(source, shows=False).run

    def measure(recipe: Recipe) -> Mapping[str, Any]:
        return ask(measure_job(question, recipe))

    def confirm(recipe: Recipe) -> Mapping[str, Any]:
        return ask(held_out_job(question, recipe, _held_out(parsed)))

    try:
        info = ModelInfo.from_dict(ask(LoadModel(source)))
        size = FileSize(info.parameters, info.prunable, info.bytes_in_memory, info.zeros)
        solution = solve(
            promise,
            families(recipes),
            measure,
            confirm=confirm,
            finished_runs=known,
            size=size,
            listener=_told,
        )
    finally:
        if store is not None:
            store.close()
        _clear()
    return {
        **solution_to_dict(solution),
        "model": parsed.model,
        "text": parsed.text,
        "held_out": parsed.held_out or f"{parsed.text}, the windows that follow",
        "seq_len": parsed.seq_len,
        "windows": parsed.windows,
        "warnings": list(info.warnings),
    }


def _held_out(parsed: argparse.Namespace) -> TextSpec | None:
    return None if parsed.held_out is None else text_named(parsed.held_out)


def _recipes(parsed: argparse.Namespace, criteria: Sequence[str]) -> list[Recipe]:
    """A recipe for each criterion and pattern, at some sparsity: the solver turns the dial."""
    values = option_values(said(parsed), [BY_FIELD[field] for field in FIELDS])
    check_allocation_arguments(values)
    calibration = calibration_from(parsed)
    recipes = []
    for criterion in criteria:
        for pattern in filter(None, (name.strip() for name in parsed.pattern.split(","))):
            share = {} if Recipe().with_pattern(pattern).kept_of else {"sparsity": 0.5}
            recipe = recipe_of({**values, "criterion": criterion, "pattern": pattern, **share})
            check_criterion(recipe)
            recipes.append(replace(recipe, calibration=calibration))
    return recipes


def _told(event: Mapping[str, Any]) -> None:
    if sys.stderr.isatty():
        method = " ".join(event["method"])
        line = (
            f"{method}: measuring {counted_share(event['sparsity'])} "
            f"({event['evaluations']} so far)"
        )
        print(f"\r\033[K{line}", end="", file=sys.stderr, flush=True)


def _clear() -> None:
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr, flush=True)


# ---- for people ------------------------------------------------------------------------------


def show(result: Result) -> None:
    """For people."""
    if "answers" in result:
        _show_solution(result)
        return
    dense = [result["dense"]] if result["dense"] else []
    print(f"{result['runs']} runs of {result['store']}; cost: {result['cost']}, ", end="")
    print(f"quality: {result['quality']}")
    print(table([*dense, *result["points"]]))
    if result["knee"]:
        knee = result["knee"]
        gone = removal(knee["sparsity"], knee["added"])
        print(f"knee at {gone}, {' '.join(knee['method'])}")
    for row in result["dominated"]:
        others = " or ".join(" ".join(method) for method in row["by"])
        print(f"{' '.join(row['method'])} is beaten everywhere, by {others}")
    if result["other_protocols"]:
        print(f"{result['other_protocols']} other ways of measuring in this store; see --sweep")


def _show_solution(result: Result) -> None:
    for answer in result["answers"]:
        line = f"{' '.join(answer['method']):32} {answer['state']:7}"
        if answer["recipe"] is not None:
            line += f" {counted_share(answer['sparsity']):>8}"
            line += f", {counted_share(answer['added'])} added"
        if answer["worse"] is not None:
            line += f"  {spoken_worse(answer)}"
        if answer["held_out"] is not None:
            line += f"  held out: {spoken_worse(answer['held_out'])} {answer['verdict'] or ''}"
        used = f"{answer['evaluations']} measured, {answer['reused']} reused"
        print(f"{line}  ({used}){'  ' + answer['error'] if answer['error'] else ''}")
    print(result["sentence"])
