"""``compare``: two to four recipes on the same windows, and whether they differ."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any

from prune_core.cli.checks import belongs
from prune_core.cli.options import known_criterion, text_from, text_options
from prune_core.cli.running import Result, ShownModel
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.errors import Cancelled, PruneCoreError, RecipeError
from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import LANGUAGE, METRICS, Metric, metrics_of
from prune_core.evaluation.paired import compare_results
from prune_core.jobs.base import Job
from prune_core.jobs.compare import BlockDamage, MaskOverlap
from prune_core.jobs.evaluate import Evaluate
from prune_core.recipes.calibration import apart
from prune_core.recipes.packing import unpack
from prune_core.recipes.recipe import Recipe
from prune_core.texts.windows import check_windows
from prune_core.words.numbers import counted_share, error_in, error_of, measured

NAMES = "ABCD"
BLOCK_WINDOWS = 2


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "compare", run, show)
    sub.add_argument("model", metavar="MODEL")
    which = sub.add_mutually_exclusive_group(required=True)
    which.add_argument("--recipes", nargs="+", metavar="FILE", help="two to four recipes as JSON")
    which.add_argument(
        "--slots", metavar="TEXT", help="two to four recipes as the page's link holds them"
    )
    sub.add_argument(
        "--blocks",
        choices=["output", "loss"],
        help="damage by block too: of the blocks' outputs, or the loss with one block pruned",
    )
    sub.add_argument(
        "--block-windows",
        type=int,
        metavar="N",
        help=f"windows of --text read for --blocks, 1 to 4096; default: {BLOCK_WINDOWS}",
    )
    text_options(sub, windows=16, seq_len=512)


def run(parsed: argparse.Namespace) -> Result:
    """Measure each recipe, then compare them all.

    Raises:
        RecipeError: fewer than two or more than four recipes, or one that cannot be read.
        PruneCoreError: a recipe does not fit the model; the sentence names its file.
    """

    belongs(parsed.block_windows, "--block-windows", bool(parsed.blocks), "--blocks")
    block_windows = BLOCK_WINDOWS if parsed.block_windows is None else parsed.block_windows
    check_windows(parsed.seq_len, block_windows)
    check_windows(parsed.seq_len, parsed.windows)
    text = text_from(parsed)
    chosen = _recipes(parsed)
    files = [name for name, _ in chosen]
    recipes = [replace(x, calibration=apart(x.calibration, text)) for _, x in chosen]
    for recipe in recipes:
        known_criterion(recipe.criterion)  # a misspelled one is told before the model is loaded
    model, names = ShownModel(parsed.model), NAMES[: len(files)]
    results: dict[str, Result] = {}
    blocks: dict[str, Result] = {}
    for name, recipe, file in zip(names, recipes, files, strict=True):
        job = Evaluate(parsed.model, recipe, text, parsed.seq_len, parsed.windows)
        results[name] = _run(model, job, file)
        if parsed.blocks:  # at once: the recipe is still applied
            size = (parsed.seq_len, block_windows)
            damage = BlockDamage(parsed.model, recipe, text, *size, parsed.blocks)
            blocks[name] = _run(model, damage, file)
    compared = compare_results(results)
    overlap = []
    for (first, ours), (second, theirs) in combinations(zip(names, recipes, strict=True), 2):
        found = _run(model, MaskOverlap(parsed.model, ours, theirs), f"{first} and {second}")
        counts = {"jaccard": found["total"]["jaccard"], "by_chance": found["by_chance"]}
        overlap.append({"first": first, "second": second, **counts})
    rows = []
    for name, recipe, file in zip(names, recipes, files, strict=True):
        numbers = {k: v for k, v in results[name].items() if k not in ("strip", "protocol")}
        row = {"name": name, "file": file, "fingerprint": recipe.fingerprint, **numbers}
        if name in blocks:
            row["blocks"] = blocks[name]
        rows.append({**row, "recipe": recipe.to_dict()})
    return {
        "model": parsed.model,
        "recipes": rows,
        **compared,
        "overlap": overlap,
        "protocol": next(iter(results.values()))["protocol"],
        "warnings": next(iter(results.values()))["warnings"],
    }


def _recipes(parsed: argparse.Namespace) -> list[tuple[str, Recipe]]:
    """The recipes, each with the file or slot that it comes from."""
    if parsed.slots is not None:
        recipes = [(f"slot {name}", recipe) for name, recipe in unpack(parsed.slots).items()]
    else:
        recipes = [(name, _read(name)) for name in parsed.recipes[: len(NAMES) + 1]]
    if not 2 <= len(recipes) <= len(NAMES):
        count = len(recipes if parsed.slots is not None else parsed.recipes)
        raise RecipeError("Compare takes two to four recipes, got {count}.", count=count)
    return recipes


def _read(name: str) -> Recipe:
    try:
        return Recipe.from_json(Path(name).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise RecipeError(
            "the recipe {name} is not UTF-8 text; save it as JSON.", name=name
        ) from None
    except RecipeError as error:
        raise RecipeError("{name}: {error}", name=name, error=error) from None


def _run(model: ShownModel, job: Job, what: str) -> Result:
    model.label = what
    try:
        return model.run(job)
    except Cancelled:
        raise
    except PruneCoreError as error:
        raise PruneCoreError("{what}: {error}", what=what, error=error) from error


def show(result: Result) -> None:
    """For people."""
    evaluations = [Evaluation.from_dict(row) for row in result["recipes"]]
    headline = evaluations[0].headline
    beside = metrics_of("beside", kinds=LANGUAGE) if headline.low else []
    head = [headline.phrase("line"), "95 % interval" if headline.low else "±"]
    head += [row.phrase("line") for row in beside]
    shares = f"{'removed':>9} {'added':>9}"
    print(f"{'':2} {shares} " + " ".join(f"{name:>16}" for name in head) + "  recipe")
    for row, evaluation in zip(result["recipes"], evaluations, strict=True):
        line = " ".join(f"{cell:>16}" for cell in _cells(evaluation, headline, beside))
        shares = f"{counted_share(row['sparsity']):>9} {counted_share(row['added']):>9}"
        print(f"{row['name']:2} {shares} {line}  {row['file']}")
    dense = evaluations[0].value(headline).dense
    if dense is not None:
        print(f"dense {headline.phrase('line')} {measured(dense)}")
    unit = METRICS["nll"].phrase("after") if headline.paired == "nll" else headline.phrase("line")
    print(f"\ndifference, {unit}; two-sided sign-flip test over windows, p after Holm")
    for pair in result["pairs"]:
        print(f"{pair['first']} - {pair['second']}  {_difference(pair)}")
    print("\noverlap of what is removed (Jaccard; by chance)")
    for pair in result["overlap"]:
        found = [_number(pair[key], 4) for key in ("jaccard", "by_chance")]
        print(f"{pair['first']} and {pair['second']}  {found[0]}  ({found[1]})")
    _show_blocks(result["recipes"])
    protocol = result["protocol"]
    print(
        f"\nmeasured on {protocol['text']}, {protocol['windows']} x {protocol['seq_len']} tokens, "
        f"{protocol['dtype']}, {protocol['device']}"
    )


def _number(value: float | None, digits: int) -> str:
    return "none" if value is None else f"{value:.{digits}f}"


def _cells(evaluation: Evaluation, headline: Metric, beside: Sequence[Metric]) -> list[str]:
    """The headline's number, its interval or error, and the numbers beside it."""
    main = evaluation.value(headline)
    if not headline.low:
        value, error = main.value, main.error
        unsure = "none" if value is None or error is None else error_of(value, error)
        return [headline.written(value, error, absent="not known"), unsure]
    error, interval = error_in(main.low, main.high), "not known"
    if error is not None and main.low is not None and main.high is not None:
        interval = f"{measured(main.low, error)} to {measured(main.high, error)}"
    cells = [headline.written(main.value, error, too_large="> 1e6", absent="not known"), interval]
    for row in beside:
        mine = evaluation.value(row)
        cells.append(row.written(mine.value, mine.error, absent="not known"))
    return cells


def _difference(pair: Mapping[str, Any]) -> str:
    line = f"{pair['mean']:+.5f}"
    if pair["low"] is None:
        return f"{line}  one window: no interval and no test"
    return (
        f"{line}  95 % interval {pair['low']:+.5f} to {pair['high']:+.5f}  "
        f"p = {pair['p_holm']:.4g}  ({pair['windows']} windows)"
    )


def _show_blocks(rows: Sequence[Mapping[str, Any]]) -> None:
    if "blocks" not in rows[0]:
        return
    measures = [key for key in ("own", "accumulated", "increase") if key in rows[0]["blocks"]]
    for measure in measures:
        print(f"\n{measure} damage by block")
        print("block " + " ".join(f"{row['name']:>11}" for row in rows))
        for block in range(len(rows[0]["blocks"][measure]["mean"])):
            cells = [f"{row['blocks'][measure]['mean'][block]:11.5f}" for row in rows]
            print(f"{block:5d} " + " ".join(cells))
