"""The verb ``inspect``: statistics of every layer."""

from __future__ import annotations

import argparse
from dataclasses import replace

from prune_core.cli.checks import belongs
from prune_core.cli.options import (
    add_options,
    calibration_from,
    calibration_options,
    check_criterion,
    said,
)
from prune_core.cli.running import Result, run_job
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.jobs.weights import LayerTable
from prune_core.recipes.forms import BY_FIELD
from prune_core.recipes.options import option_values
from prune_core.recipes.recipe import Recipe

QUANTILES = ("q01", "q25", "q50", "q75", "q99")
"""Of |w|, in every row of ``inspect``."""


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "inspect", run, show)
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument("--scores", metavar="CRITERION", help="what a criterion gives each layer too")
    add_options(sub, [BY_FIELD["criterion_args"]])
    calibration_options(sub)


def run(parsed: argparse.Namespace) -> Result:
    """Statistics of every layer."""
    job = LayerTable(parsed.model)
    form = BY_FIELD["criterion_args"]
    belongs(parsed.criterion_arg, form.option, bool(parsed.scores), "--scores")
    if parsed.scores:
        arguments = option_values(said(parsed), [form]).get(form.field, {})
        recipe = Recipe(parsed.scores, criterion_args=arguments)
        check_criterion(recipe)
        recipe = replace(recipe, calibration=calibration_from(parsed))
        job = LayerTable(parsed.model, recipe, scored=True)
    result = run_job(job)
    for row in result["rows"]:
        row["shape"] = [row["rows"], row["columns"]]
        row["quantiles"] = {name: row[name] for name in QUANTILES}
    return result


def show(result: Result) -> None:
    """A table of layers, for people."""
    rows = result["rows"]
    scored = bool(rows) and "score_mean" in rows[0]
    head = f"{'layer':48} {'role':10} {'shape':>13} {'mean |w|':>10} {'std':>10} {'zeros':>8}"
    more = [f"{name:>11}" for name in ("mean score", "1 %", "50 %", "99 %", "largest")]
    print(" ".join([head, *(more if scored else [])]))
    for row in rows:
        shape = f"{row['rows']} x {row['columns']}"
        line = (
            f"{row['name']:48} {row['role']:10} {shape:>13} {row['mean_abs']:10.5f} "
            f"{row['std']:10.5f} {row['zeros']:8d}"
        )
        fields = ("mean", "q01", "q50", "q99", "max") if scored else ()
        print(" ".join([line, *(f"{row[f'score_{name}']:11.4g}" for name in fields)]))
