"""The verb ``cost``: bytes, FLOPs and speed of a recipe."""

from __future__ import annotations

import argparse

from prune_core.cli.options import recipe_from, recipe_options, repeats
from prune_core.cli.running import Result, run_job, speed
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.jobs.exports import Cost
from prune_core.words.numbers import counted_share


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "cost", run, show)
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    repeats(sub, 5)


def run(parsed: argparse.Namespace) -> Result:
    """Count and measure what a recipe costs."""
    return run_job(Cost(parsed.model, recipe_from(parsed), parsed.repeats))


def show(result: Result) -> None:
    """What it costs, for people."""
    cut = result["parameters_shrunk"] is not None and any(result["parts"].values())
    heads = ["dense", "zeros in place", *(["parts cut out"] if cut else [])]
    rows = [["", *heads]]
    for name, values in _counts(result).items():
        rows.append([name, *("" if x is None else f"{x:,}" for x in values[: len(heads)])])
    for key in ("prefill", "decode"):
        if result[key] is not None:
            found = [result[f"dense_{key}"], result[f"zeros_{key}"], result[key]][: len(heads)]
            rows.append([f"{key}, tokens per second", *(speed(values) for values in found)])
    # two blanks at least between columns, however fast the machine is
    wide = max(28, *(2 + len(text) for row in rows for text in row[1:]))
    for name, *texts in rows:
        print(f"{name:36}" + "".join(f"{text:>{wide}}" for text in texts))
    if result["shrunk_refused"]:
        print(f"Dropped parts cannot be cut out: {result['shrunk_refused']}")
    total = result["parameters"]
    before, after = (1 - result[name] / total for name in ("nonzero_dense", "nonzero"))
    print(
        f"{counted_share(after)} of all parameters are zero: {counted_share(before)} were before, "
        f"{counted_share(max(0.0, after - before))} are added."
    )
    print("Zeros in place are not faster: dense kernels multiply by them at full price.")


def _counts(result: Result) -> dict[str, list[int | None]]:
    dense, shrunk = result["parameters"], result["parameters_shrunk"]
    rows: dict[str, list[int | None]] = {
        "parameters": [dense, dense, shrunk],
        "of them not zero": [result["nonzero_dense"], result["nonzero"], None],
        "bytes of the file": [result["bytes_dense"], result["bytes_dense"], result["bytes_shrunk"]],
        "bytes in 16 bits, by count": [result["bytes_half"]] * 2,
        "bytes with a bitmask, an estimate": [
            result["bytes_sparse_dense"],
            result["bytes_sparse"],
            None,
        ],
        "FLOPs per token, by formula": [
            *[result["flops_dense"]] * 2,
            result["flops_shrunk"],
        ],
        "peak memory, bytes": [
            result["dense_peak_memory"],
            result["zeros_peak_memory"],
            result["peak_memory"],
        ],
    }
    rows["bytes in 16 bits, by count"].append(shrunk and 2 * shrunk)
    return {name: values for name, values in rows.items() if any(v is not None for v in values)}
