"""The verb ``generate``: continue a prompt, dense and pruned."""

from __future__ import annotations

import argparse

from prune_core.cli.options import recipe_from, recipe_options
from prune_core.cli.running import Result, ShownModel
from prune_core.cli.verbs import Verbs, new_verb


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "generate", run, show)
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


def run(parsed: argparse.Namespace) -> Result:
    """Continue a prompt, dense and pruned."""
    pruned = ShownModel(parsed.model).prune(recipe_from(parsed))
    written = pruned.generate(
        parsed.prompt,
        max_new_tokens=parsed.max_new_tokens,
        greedy=parsed.greedy,
        seed=parsed.seed,
        temperature=parsed.temperature,
        top_p=parsed.top_p,
        chat=parsed.chat,
        with_dense=True,
    )
    return dict(written.numbers)


def show(result: Result) -> None:
    """Both answers, for people."""
    for name in ("dense", "pruned"):
        print(f"[{name}]\n{result[name]['text']}\n")
    parted = result["divergence"]
    print("The answers are equal." if parted is None else f"They part at token {parted + 1}.")
