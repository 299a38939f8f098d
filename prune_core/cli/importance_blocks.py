"""The command line's options and results of ``importance --of blocks`` and ``--of layers``."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from prune_core.analysis.selection import most_removable
from prune_core.cli.checks import belongs
from prune_core.cli.running import Result
from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.jobs.base import Job, LoadModel, TextSpec
from prune_core.jobs.blocks import (
    COST_UNITS,
    BlockAblation,
    BlockImportance,
    GreedyBlocks,
    LayerImportance,
)
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe

BLOCK_METHODS = ("block-influence", "angular", "ablation", "greedy")
STEPS = 4
"""Blocks that a greedy search removes if not told."""
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
    method = parsed.method or BLOCK_METHODS[0]
    method = ALIASES.get(method, method)
    measured = (text, parsed.seq_len, parsed.windows)
    found: Result
    scores: Sequence[float | None]
    match method:
        case "block-influence":
            found = run(BlockImportance(parsed.model, *measured))
            scores = found["influence"]
        case "angular":
            found = run(BlockImportance(parsed.model, *measured))
            length = 1 if parsed.run is None else parsed.run
            scores, suggested = angular(found["angular"], length)
            found |= {"run": length, "suggested": suggested}
        case "ablation":
            parts = ("block", "attention", "mlp") if parsed.halves else ("block",)
            found = run(BlockAblation(parsed.model, *measured, parts))
            scores = found["block"]["mean"]
            found["stderr"] = found["block"]["stderr"]
        case "greedy":
            steps = parsed.steps
            if steps is None:
                steps = usual_steps(run(LoadModel(parsed.model))["blocks"], ends=parsed.ends)
            found = run(GreedyBlocks(parsed.model, *measured, steps, parsed.ends))
            scores = found["path"][0]["costs"]
            found["suggested"] = found["path"][-1]["blocks"]
        case _:
            known = " or ".join(BLOCK_METHODS)
            raise RecipeError(
                "unknown method {method!r} for blocks; use {known}.", method=method, known=known
            )
    named = {"of": "blocks", "method": method, "shape": [len(scores)], "scores": list(scores)}
    return {**found, **named}


def usual_steps(blocks: Sequence[Mapping[str, Any]], *, ends: bool) -> int:
    """Blocks that a greedy search removes where nobody said how many: those that can go, 1 to 4.

    Args:
        blocks: of a LoadModel result.
        ends: the first and the last block of a stack may go too; one of each stack stays.
    """
    return max(1, min(STEPS, most_removable([block["stack"] for block in blocks], ends=ends)))


def angular(stacks: Sequence[dict[str, Any]], length: int) -> tuple[list[float | None], list[int]]:
    """Distances of runs of ``length`` blocks by their first, and the run with the least.

    Args:
        stacks: ``angular`` of a BlockImportance result.
        length: blocks in a run.

    Returns:
        For each block the distance of the run that begins there, None where none does; the blocks
        of the run with the smallest distance.

    Raises:
        RecipeError: no run is that long, with one block of its stack left.
    """
    longest = max(len(stack["blocks"]) for stack in stacks) - 1
    if longest < 1:
        raise RecipeError("this model has one block only, and one must stay; no run can go.")
    if not 1 <= length <= longest:
        raise RecipeError(
            "--run takes between 1 and {longest} blocks, so that one stays, got {length}.",
            longest=longest,
            length=length,
        )
    scores: list[float | None] = [None] * sum(len(stack["blocks"]) for stack in stacks)
    best: tuple[float, list[int]] | None = None
    for stack in stacks:
        if length >= len(stack["blocks"]):
            continue
        for place, distance in enumerate(stack["distance"][length - 1]):
            if distance is None:
                continue
            found = list(stack["blocks"][place : place + length])
            scores[found[0]] = distance
            if best is None or distance < best[0]:
                best = (distance, found)
    return scores, best[1] if best is not None else []


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
