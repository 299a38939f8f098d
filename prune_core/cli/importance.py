"""The verb ``importance`` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable

from prune_core.cli import importance_blocks as cli_blocks
from prune_core.cli import importance_neurons
from prune_core.cli.checks import belongs
from prune_core.cli.options import text_from
from prune_core.cli.running import Result, run_job, runner
from prune_core.errors import RecipeError
from prune_core.jobs.heads import HeadImportance
from prune_core.recipes.parts import NEURON_METHODS, PAIRED

_METHODS = {
    "heads": ("gradient", "weight-norm", "ablation", "confidence", "entropy"),
    "neurons": (*NEURON_METHODS, "activation"),
}


def add_verb(
    verb: Callable[..., argparse.ArgumentParser], text_options: Callable[..., None]
) -> None:
    """Add the verb to the parser of ``prune_core.cli.main``."""
    sub = verb(
        "importance",
        _importance,
        _show,
        "Importance of heads, neurons, blocks or layers.",
    )
    sub.add_argument("model", metavar="MODEL")
    sub.add_argument(
        "--of",
        choices=["heads", "neurons", "blocks", "layers"],
        default="heads",
        help="default: heads",
    )
    sub.add_argument(
        "--method",
        metavar="NAME",
        help="heads: gradient (default), weight-norm, ablation, confidence, entropy; neurons: "
        "mean-activation (default), firing, weighted, fluctuation; blocks: block-influence "
        "(default), angular, ablation, greedy; layers: magnitude (default), another criterion or "
        "ablation",
    )
    sub.add_argument(
        "--lowest",
        type=float,
        metavar="SHARE",
        help="also name the least important heads or neurons, a share of 0 to 1",
    )
    sub.add_argument(
        "--scope",
        choices=["block", "global"],
        help="of --lowest: the same share of each block (default), or all compete; with global "
        "each attention keeps at least one head, each MLP one neuron, unless all are to go",
    )
    importance_neurons.importance_options(sub)
    cli_blocks.importance_options(sub)
    sub.add_argument(
        "--normalize", action="store_true", help="gradient: divide each block by its L2 norm"
    )
    text_options(sub, windows=4, seq_len=512, use="to score the parts")


def _check(parsed: argparse.Namespace) -> None:
    """Refuse what would be ignored, and sizes that no text has."""
    from prune_core.texts.windows import check_windows

    of, method = parsed.of, parsed.method
    scored = of in ("heads", "neurons") and parsed.neuron is None
    belongs(parsed.neuron, "--neuron", of == "neurons", "--of neurons")
    belongs(parsed.lowest, "--lowest", scored, "--of heads and --of neurons without --neuron")
    belongs(parsed.scope, "--scope", parsed.lowest is not None, "--lowest")
    gradient = of == "heads" and method in (None, "gradient")
    belongs(parsed.normalize, "--normalize", gradient, "--of heads --method gradient")
    cli_blocks.check(parsed)
    check_windows(parsed.seq_len, parsed.windows)


def _importance(parsed: argparse.Namespace) -> Result:

    _check(parsed)
    scope = parsed.scope or "block"
    if parsed.of == "blocks":
        return cli_blocks.blocks(parsed, text_from(parsed), runner())
    if parsed.of == "layers":
        return cli_blocks.layers(parsed, text_from(parsed), run_job)
    known = _METHODS[parsed.of]
    method = parsed.method or known[0]
    if method not in known:
        raise RecipeError(
            "unknown method {method!r} for {of}; use {known:or}.",
            method=method,
            of=parsed.of,
            known=known,
        )
    measured = (text_from(parsed), parsed.seq_len, parsed.windows)
    if parsed.of == "neurons":
        result = importance_neurons.importance(parsed, method, text_from(parsed), run_job)
        return result if parsed.neuron is not None else result | _lowest(parsed, result, scope)
    result = run_job(HeadImportance(parsed.model, method, *measured, parsed.normalize))
    # the first map is the one a decoder has; the others stand under "sites"
    site = result["sites"][0]
    scores = site["scores"]
    shape = [len(scores), max((len(row) for row in scores), default=0)]
    least: Result = {}
    if parsed.lowest is not None:
        from prune_core.analysis.selection import lowest_heads

        least = dict(lowest_heads(result["sites"], method, parsed.lowest, scope))
    return {**result, "of": "heads", "shape": shape, "scores": scores} | least


def _lowest(parsed: argparse.Namespace, scored: Result, scope: str) -> Result:
    """What ``--lowest`` asks for, as a recipe's field."""
    if parsed.lowest is None:
        return {}
    import torch

    from prune_core.analysis.neurons.statistics import competing
    from prune_core.analysis.selection import lowest

    rows = scored["scores"]
    if scope == "global":  # as a recipe with a share of all neurons
        exact = {n: torch.tensor(row, dtype=torch.float64) for n, row in enumerate(rows)}
        rows = list(competing(scored["method"], exact).values())
    found = lowest(scored["blocks"], rows, parsed.lowest, scope)
    return {"drop_neurons": [list(pair) for pair in found]}


def _show(result: Result) -> None:
    if result["of"] == "blocks":
        cli_blocks.show_blocks(result)
    if result["of"] == "layers":
        cli_blocks.show_layers(result)
    if result["of"] == "neurons":
        importance_neurons.show_all(result)
    if result["of"] == "neuron":
        importance_neurons.show_one(result)
    for site in result.get("sites", ()):
        print(f"{site['stack']} {site['kind']}-attention, {result['method']}, {result['unit']}")
        for block, row in zip(site["blocks"], site["scores"], strict=True):
            print(f"{block:4d}  " + " ".join(f"{score:9.4g}" for score in row))
    for field in PAIRED:
        if field in result:
            pairs = ",".join(f"{block}:{part}" for block, part in result[field])
            print(f"--{field.replace('_', '-')} {pairs}")
