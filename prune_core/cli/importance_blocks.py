"""The command line's options and results of ``importance --of blocks`` and ``--of layers``."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from difflib import get_close_matches

from prune_core.analysis.blocks.methods import STEPS, BlockRequest
from prune_core.cli.checks import belongs
from prune_core.cli.running import Result
from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.jobs.base import Job, TextSpec
from prune_core.jobs.blocks import (
    BLOCK_METHODS,
    COST_UNITS,
    LayerImportance,
)
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe

ALIASES = {"influence": "block-influence"}


def importance_options(sub: argparse.ArgumentParser) -> None:
    """Options of ``importance`` that only blocks have."""
    sub.add_argument("--run", type=int, metavar="N", help="angular: blocks in a run; default: 1")
    sub.add_argument(
        "--halves", action="store_true", help="ablation: also attention alone and MLP alone"
    )
    sub.add_argument(
        "--steps",
        type=int,
        metavar="N",
        help=f"greedy: blocks to remove; default: {STEPS}, or as many as the model can lose",
    )
    sub.add_argument(
        "--ends", action="store_true", help="greedy: the first and the last block may go too"
    )


def check(parsed: argparse.Namespace) -> None:
    """Refuse options of a method that was not asked for.

    Raises:
        RecipeError: such an option was given.
    """
    method = parsed.method if parsed.of == "blocks" else None
    for option, given, owner in (
        ("--run", parsed.run, "angular"),
        ("--halves", parsed.halves, "ablation"),
        ("--steps", parsed.steps, "greedy"),
        ("--ends", parsed.ends, "greedy"),
    ):
        belongs(given, option, method == owner, f"--of blocks --method {owner}")


def blocks(parsed: argparse.Namespace, text: TextSpec, run: Callable[[Job], Result]) -> Result:
    """``importance --of blocks``: a score for each block; more under the method's own names.

    Args:
        parsed: the options.
        text: what is read.
        run: runs a job; several on one model should load it once.

    Raises:
        RecipeError: an unknown method, a run that is longer than the model.
    """
    method = parsed.method or next(iter(BLOCK_METHODS))
    method = ALIASES.get(method, method)
    if method not in BLOCK_METHODS:
        known = " or ".join(BLOCK_METHODS)
        raise RecipeError(
            "unknown method {method!r} for blocks; use {known}.", method=method, known=known
        )
    asked = BlockRequest(
        parsed.model,
        text,
        parsed.seq_len,
        parsed.windows,
        run,
        length=1 if parsed.run is None else parsed.run,
        halves=parsed.halves,
        steps=parsed.steps,
        ends=parsed.ends,
    )
    found = dict(BLOCK_METHODS[method].fn(asked))
    scores = found.pop("scores")
    named = {"of": "blocks", "method": method, "shape": [len(scores)], "scores": list(scores)}
    return {**found, **named}


def layers(
    parsed: argparse.Namespace,
    text: TextSpec,
    run: Callable[[Job], Result],
) -> Result:
    """``importance --of layers``: a criterion's mean score, or what each layer's output is worth.

    Args:
        parsed: ``--method`` is ``ablation`` or a criterion; magnitude, |w|, if not given.
        text: what is read.
        run: runs a job.

    Raises:
        RecipeError: an unknown method.
    """
    method = parsed.method or "magnitude"
    measured = (text, parsed.seq_len, parsed.windows)
    if method == "ablation":
        found = run(LayerImportance(parsed.model, method, Recipe(), *measured))
    elif method not in CRITERIA:
        near = get_close_matches(method, ["ablation", *CRITERIA], n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise RecipeError(
            "unknown method {method!r} for layers; use ablation or one of the criteria "
            "{known:list}.{hint}",
            method=method,
            known=sorted(CRITERIA),
            hint=hint,
        )
    else:
        calibration = Calibration(text, parsed.windows, parsed.seq_len)
        recipe = Recipe(criterion=method, calibration=calibration)
        found = run(LayerImportance(parsed.model, "score", recipe, *measured))
    return {**found, "of": "layers", "method": method, "shape": [len(found["scores"])]}


# ---- for people ------------------------------------------------------------------------------


def show_layers(result: Result) -> None:
    """A row for each layer."""
    print(f"layers by {result['method']}")
    rows = zip(result["layers"], result["roles"], result["scores"], strict=True)
    for name, role, score in rows:
        print(f"{name:48} {role:10} {score:12.5g}")


def show_blocks(result: Result) -> None:
    """A row for each block, or for each step of a greedy removal."""
    if result["method"] == "greedy":
        what = COST_UNITS.get(result["metric"], "perplexity")
        print(f"removed  {what} (dense {result['dense']:.4f})")
        for step in result["path"]:
            error = _interval(step["low"], step["high"])
            print(f"{step['block']:7d}  {step['value']:.4f}{error}")
    elif result["method"] == "ablation":
        unit = COST_UNITS[result["metric"]]
        parts = [part for part in ("block", "attention", "mlp") if part in result]
        print(f"block  {unit} without: {', '.join(parts)}")
        for block in range(len(result["scores"])):
            row = [_number(result[part]["mean"][block], "+.5f") for part in parts]
            print(f"{block:5d}  " + "  ".join(row))
    elif result["method"] == "angular":
        print(f"first  angle over {result['run']} block(s), in units of pi, at the last token")
        for block, score in enumerate(result["scores"]):
            print(f"{block:5d}  {_number(score, '.5f')}")
    else:
        print("block  influence (1 - mean cosine of input and output)")
        for block, score in enumerate(result["scores"]):
            print(f"{block:5d}  {score:.5f}")
    if "suggested" in result:
        print("--drop-blocks " + ",".join(str(block) for block in result["suggested"]))


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _interval(low: float | None, high: float | None) -> str:
    return "" if low is None or high is None else f"   ({low:.4f} to {high:.4f})"
