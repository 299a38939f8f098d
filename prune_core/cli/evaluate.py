"""The verb ``evaluate``: apply a recipe and measure it on a text."""

from __future__ import annotations

import argparse
from typing import Any

from prune_core.cli.checks import say
from prune_core.cli.options import recipe_from, recipe_options, text_from, text_options
from prune_core.cli.running import Result, ShownModel
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import metrics_of
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
    for line in measurement_lines(Evaluation.from_dict(result)):
        print(line)
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


def measurement_lines(evaluation: Evaluation) -> list[str]:
    """One line for each metric of this kind of model, the interval of the first below it."""
    lines = []
    classes = evaluation.of_classes
    for row in metrics_of("headline", "detail", "beside", kinds=evaluation.kinds):
        mine = evaluation.value(row)
        hides = evaluation.numbers.get(row.bias)
        values = {} if hides is None else {"error": f"{hides:.1g}"}
        shown = _within(mine.value, mine.error)
        interval = error_in(mine.low, mine.high) if row.low else None
        if row.role == "headline" and row.dense and mine.value is not None:
            dense = "not known" if mine.dense is None else measured(mine.dense, interval)
            shown = f"{measured(mine.value, interval)}   (dense {dense})"
        after = row.phrase("after", classes=classes, **values)
        lines.append(f"{row.phrase('line', classes=classes):<13} {shown} {after}".rstrip())
        if interval is not None and mine.low is not None and mine.high is not None:
            low, high = (measured(end, interval) for end in (mine.low, mine.high))
            lines.append(f"95 % interval {low} to {high}")
    return lines


def emptied_warnings(result: dict[str, Any]) -> list[str]:
    """Sentences about blocks that lost all their heads or neurons."""
    found = []
    for what, blocks in result.get("emptied", {}).items():
        if blocks:
            names = ", ".join(str(block) for block in blocks)
            found.append(f"Warning: no {what} left in block {names}.")
    return found
