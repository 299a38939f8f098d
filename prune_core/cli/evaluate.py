"""The verb ``evaluate``: apply a recipe and measure it on a text."""

from __future__ import annotations

import argparse
from typing import Any

from prune_core.cli.checks import say
from prune_core.cli.options import recipe_from, recipe_options, text_from, text_options
from prune_core.cli.running import Result, ShownModel
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.models.weight_counts import WeightCounts, removed_in_words, zeros_in_words
from prune_core.words.numbers import counted_share, error_in, measured, with_error


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "evaluate", run, show)
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    text_options(sub, windows=16, seq_len=512)


def run(parsed: argparse.Namespace) -> Result:
    """Measure a recipe on a text."""
    recipe = recipe_from(parsed)
    pruned = ShownModel(parsed.model).prune(recipe)
    size = {"windows": parsed.windows, "seq_len": parsed.seq_len}
    result = pruned.evaluate(text_from(parsed), **size).to_dict()
    for warning in emptied_warnings(result):
        say(warning)
    return {**result, "recipe": recipe.to_dict(), "fingerprint": recipe.fingerprint}


def _within(value: float | None, error: float | None) -> str:
    return "not known" if value is None else with_error(value, error)


def show(result: Result) -> None:
    """The measurement, for people."""
    counts = WeightCounts(**result["counts"])
    print(f"removed       {removed_in_words(counts)}")
    print(f"              {counts.removed:,} of {counts.prunable:,} weights, counted")
    if result["sparsity_of_rest"] != result["sparsity"]:
        rest = counted_share(result["sparsity_of_rest"])
        print(f"              {rest} of what dropped parts leave")
    if zeros_in_words(counts):
        print(f"zeros         {zeros_in_words(counts)} (of the prunable weights)")
    if result["metric"] == "similarity":
        similarity = _within(result["similarity"], result["similarity_stderr"])
        print(f"similarity    {similarity} (cosine to the dense embedding)")
        if result["top1"] is not None:
            print(f"same class    {_within(result['top1'], result['top1_stderr'])} of the windows")
            kl = _within(result["kl"], result["kl_stderr"])
            print(f"KL            {kl} nats per window, of the classes")
    else:
        low, high = result["perplexity_low"], result["perplexity_high"]
        error = error_in(low, high)
        names = ("perplexity", "perplexity_dense")
        mine, dense = (measured(result[name], error) for name in names)
        print(f"perplexity    {mine}   (dense {dense})")
        if error is not None:
            print(f"95 % interval {measured(low, error)} to {measured(high, error)}")
        print(f"loss          {_within(result['nll'], result['nll_stderr'])} nats per token")
        change = _within(result["delta_nll"], result["delta_nll_stderr"])
        print(f"change        {change} nats per token, paired")
        short = f"; the merged tail hides about {result['kl_error']:.1g}"
        print(f"KL            {_within(result['kl'], result['kl_stderr'])} nats per token{short}")
        print(f"top-1 same    {_within(result['top1'], result['top1_stderr'])}")
    protocol = result["protocol"]
    print(
        f"measured on   {protocol['text']}, {protocol['windows']} x {protocol['seq_len']} tokens, "
        f"{protocol['dtype']}, {protocol['device']}"
    )
    if protocol["bos"]:
        print("windows       each starts with the beginning-of-sequence token")
    elif protocol["tokenizer_adds_bos"]:
        print(
            "windows       without the beginning-of-sequence token that the tokenizer puts before "
            "a text; --bos yes adds it"
        )
    if result["left_dense"]:
        print(f"left dense    {', '.join(result['left_dense'])} (the pattern does not fit)")
    seconds = result["seconds"]
    print("seconds       " + ", ".join(f"{k} {v:.2f}" for k, v in seconds.items()))


def emptied_warnings(result: dict[str, Any]) -> list[str]:
    """Sentences about blocks that lost all their heads or neurons."""
    found = []
    for what, blocks in result.get("emptied", {}).items():
        if blocks:
            names = ", ".join(str(block) for block in blocks)
            found.append(f"Warning: no {what} left in block {names}.")
    return found
