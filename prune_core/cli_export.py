"""The verbs ``export`` and ``cost`` of the command line."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from prune_core.cli_checks import check_name
from prune_core.engine.jobs import Cost, Export
from prune_core.exporting.formats import FORMATS
from prune_core.models.weight_counts import WeightCounts, removed_in_words, zeros_in_words
from prune_core.words.numbers import counted_share, error_in, measured

Result = dict[str, Any]


def add_verbs(
    verb: Callable[..., argparse.ArgumentParser],
    recipe_options: Callable[[argparse.ArgumentParser], None],
    text_options: Callable[..., None],
) -> None:
    """Add the verbs to the parser of ``prune_core.cli``."""
    sub = verb("export", _export, _show_export, "Write a checkpoint that transformers loads.")
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
    _repeats(sub, 5)
    text_options(sub, windows=16, seq_len=512)

    sub = verb("cost", _cost, _show_cost, "Parameters, bytes, FLOPs, and speed on this machine.")
    sub.add_argument("model", metavar="MODEL")
    recipe_options(sub)
    _repeats(sub, 5)


def _repeats(sub: argparse.ArgumentParser, default: int) -> None:
    sub.add_argument(
        "--repeats",
        type=int,
        default=default,
        metavar="N",
        help=f"rounds of speed and memory; 0: do not measure them; default: {default}",
    )


def _export(parsed: argparse.Namespace) -> Result:
    from prune_core import cli

    check_name(parsed.to, "--to")
    return cli._run(
        Export(
            parsed.model,
            cli._recipe(parsed),
            parsed.to,
            parsed.format,
            parsed.overwrite,
            cli._text(parsed),
            parsed.seq_len,
            parsed.windows,
            parsed.repeats,
        )
    )


def _show_export(result: Result) -> None:
    print(f"{result['folder']}  ({result['format']}, loaded again and compared)")
    dense, ours = result["dense"], result["exported"]
    speeds = [_speed(x[key]) for x in (dense, ours) for key in ("prefill", "decode") if x[key]]
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
            pair = [_speed(x[key]) for x in (dense, ours)]
            print(f"{key + ', tokens per second':28} {pair[0]:>{wide}} {pair[1]:>{wide}}")


def _cost(parsed: argparse.Namespace) -> Result:
    from prune_core import cli

    return cli._run(Cost(parsed.model, cli._recipe(parsed), parsed.repeats))


def _show_cost(result: Result) -> None:
    cut = result["parameters_shrunk"] is not None and any(result["parts"].values())
    heads = ["dense", "zeros in place", *(["parts cut out"] if cut else [])]
    rows = [["", *heads]]
    for name, values in _counts(result).items():
        rows.append([name, *("" if x is None else f"{x:,}" for x in values[: len(heads)])])
    for key in ("prefill", "decode"):
        if result[key] is not None:
            found = [result[f"dense_{key}"], result[f"zeros_{key}"], result[key]][: len(heads)]
            rows.append([f"{key}, tokens per second", *(_speed(values) for values in found)])
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


def _speed(values: dict[str, float]) -> str:
    """Median and range: spread is rarely symmetric."""
    return f"{values['median']:.1f} ({values['low']:.1f} to {values['high']:.1f})"
