"""The verb ``importance`` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Iterable

from prune_core.cli import importance_blocks as cli_blocks
from prune_core.cli import importance_neurons
from prune_core.cli.checks import belongs
from prune_core.cli.options import text_from, text_options
from prune_core.cli.running import Result, ShownModel
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.errors import RecipeError
from prune_core.jobs.blocks import BLOCK_METHODS
from prune_core.jobs.heads import HEAD_METHODS, HeadImportance
from prune_core.recipes.parts import NEURON_METHODS, PAIRED

_METHODS = {
    "heads": ("gradient", *(name for name in HEAD_METHODS if name != "gradient")),
    "neurons": (*NEURON_METHODS, "activation"),
}


def _listed(names: Iterable[str]) -> str:
    """Names for the help; the first one is the default."""
    first, *others = names
    return ", ".join([f"{first} (default)", *others])


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "importance", run, show)
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
        help=f"heads: {_listed(_METHODS['heads'])}; neurons: {_listed(NEURON_METHODS)}; blocks: "
        f"{_listed(BLOCK_METHODS)}; layers: magnitude (default), another criterion or ablation",
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


def run(parsed: argparse.Namespace) -> Result:
    """Score parts of a model.

    Raises:
        RecipeError: an unknown method, or an option of another one.
    """
    _check(parsed)
    job = ShownModel(parsed.model).run
    scope = parsed.scope or "block"
    if parsed.of == "blocks":
        return cli_blocks.blocks(parsed, text_from(parsed), job)
    if parsed.of == "layers":
        return cli_blocks.layers(parsed, text_from(parsed), job)
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
        result = importance_neurons.importance(parsed, method, text_from(parsed), job)
        return result if parsed.neuron is not None else result | _lowest(parsed, result, scope)
    result = job(HeadImportance(parsed.model, method, *measured, parsed.normalize))
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


def show(result: Result) -> None:
    """The scores, for people."""
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
