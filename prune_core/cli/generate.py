"""The verb ``generate``: continue a prompt, dense and pruned."""

from __future__ import annotations

import argparse

from prune_core.cli.options import recipe_from
from prune_core.cli.running import Result, run_job
from prune_core.jobs.evaluate import Generate


def generate(parsed: argparse.Namespace) -> Result:
    """Continue a prompt, dense and pruned."""
    return run_job(
        Generate(
            parsed.model,
            recipe_from(parsed),
            parsed.prompt,
            parsed.max_new_tokens,
            parsed.greedy,
            parsed.seed,
            parsed.temperature,
            parsed.top_p,
            parsed.chat,
        )
    )


def show_generation(result: Result) -> None:
    """Both answers, for people."""
    for name in ("dense", "pruned"):
        print(f"[{name}]\n{result[name]['text']}\n")
    parted = result["divergence"]
    print("The answers are equal." if parted is None else f"They part at token {parted + 1}.")
