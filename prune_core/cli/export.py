"""The verb ``export``: a recipe's model as a checkpoint."""

from __future__ import annotations

import argparse

from prune_core.cli.checks import check_name
from prune_core.cli.options import recipe_from, recipe_options, repeats, text_from, text_options
from prune_core.cli.running import Result, run_job, speed
from prune_core.cli.verbs import Verbs, new_verb
from prune_core.exporting.formats import FORMATS
from prune_core.jobs.exports import Export
from prune_core.models.weight_counts import WeightCounts, removed_in_words, zeros_in_words
from prune_core.words.numbers import error_in, measured


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "export", run, show)
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    sub.add_argument(
        "--format",
        choices=FORMATS,
        default="masked",
        help="masked (default): zeros in place; shrunk: dropped parts cut out; compressed: the "
        "weights that are left and a bitmask",
    )
    sub.add_argument(
        "--to",
        "--out",
        dest="to",
        required=True,
        metavar="DIR",
        help="folder of the checkpoint, made if it is not there",
    )
    sub.add_argument("--overwrite", action="store_true", help="replace an older export")
    repeats(sub, 5)
    text_options(sub, windows=16, seq_len=512)


def run(parsed: argparse.Namespace) -> Result:
    """Write the checkpoint, load it again and measure it."""
    check_name(parsed.to, "--to")
    return run_job(
        Export(
            parsed.model,
            recipe_from(parsed),
            parsed.to,
            parsed.format,
            parsed.overwrite,
            text_from(parsed),
            parsed.seq_len,
            parsed.windows,
            parsed.repeats,
        )
    )


def show(result: Result) -> None:
    """What was written, for people."""
    print(f"{result['folder']}  ({result['format']}, loaded again and compared)")
    dense, ours = result["dense"], result["exported"]
    speeds = [speed(x[key]) for x in (dense, ours) for key in ("prefill", "decode") if x[key]]
    wide = max(22, *(1 + len(text) for text in speeds)) if speeds else 22
    print(f"{'':28} {'dense':>{wide}} {'exported':>{wide}}")
    for key in ("parameters", "nonzero", "bytes", "flops_per_token", "peak_memory"):
        if ours[key] is not None:
            print(f"{key.replace('_', ' '):28} {dense[key]:{wide},} {ours[key]:{wide},}")
    counts = WeightCounts(**result["screen"]["counts"])
    print(f"removed: {removed_in_words(counts)}")
    if zeros_in_words(counts):
        print(f"of the prunable weights {zeros_in_words(counts)}")
    if ours["perplexity"] is not None:
        screen = result["screen"]
        error = error_in(screen["perplexity_low"], screen["perplexity_high"])
        pair = [measured(x["perplexity"], error) for x in (dense, ours)]
        print(f"{'perplexity':28} {pair[0]:>{wide}} {pair[1]:>{wide}}")
    for key in ("prefill", "decode"):
        if ours[key] is not None:
            pair = [speed(x[key]) for x in (dense, ours)]
            print(f"{key + ', tokens per second':28} {pair[0]:>{wide}} {pair[1]:>{wide}}")
