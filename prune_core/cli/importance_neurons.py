"""The command line's options and verbs about neurons."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from prune_core.errors import RecipeError
from prune_core.jobs.base import Job
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.notation import read_index


def importance_options(sub: argparse.ArgumentParser) -> None:
    """Options of ``importance`` that only neurons have."""
    sub.add_argument(
        "--neuron", metavar="B:N", help="one neuron: what it writes and where it fires most"
    )


def importance(
    parsed: argparse.Namespace,
    method: str,
    text: TextSpec,
    run: Callable[[Job], dict[str, Any]],
) -> dict[str, Any]:
    """``importance --of neurons``: scores of all, or one neuron closely."""
    measured = (text, parsed.seq_len, parsed.windows)
    if parsed.neuron is None:
        return {**run(NeuronImportance(parsed.model, method, *measured)), "of": "neurons"}
    block, colon, neuron = parsed.neuron.partition(":")
    if not (colon and block.isdecimal() and neuron.isdecimal()):
        raise RecipeError(
            "--neuron takes BLOCK:NEURON such as 3:17, got {neuron!r}.", neuron=parsed.neuron
        )
    read = Calibration(text, parsed.windows, parsed.seq_len)
    place, number = (read_index(part, "--neuron") for part in (block, neuron))
    job = NeuronDetails(parsed.model, place, number, read, *measured)
    return {**run(job), "of": "neuron", "method": method}


def show_all(result: dict[str, Any]) -> None:
    """Scores of every block, for people."""
    print(f"neurons by {result['method']}: lowest, median and highest of each block; dead, rare")
    rows = zip(result["blocks"], result["scores"], result["dead"], result["rare"], strict=True)
    for block, row, dead, rare in rows:
        ordered = sorted(row)
        middle = ordered[len(ordered) // 2]
        ends = f"{ordered[0]:11.4g} {middle:11.4g} {ordered[-1]:11.4g}"
        print(f"{block:5d}  {ends}  {dead:5d} {rare:5d}")


def show_one(result: dict[str, Any]) -> None:
    """One neuron, for people; tokens as Python spells them, so that nothing in them acts."""
    state = "dead" if result["dead"] else "rare" if result["rare"] else "fires"
    print(
        f"neuron {result['neuron']} of block {result['block']} ({result['size']} neurons): {state}"
    )
    for name, score in result["scores"].items():
        print(f"{name:16} {score:11.4g}  ({result['places'][name]} score lower)")
    if result["reason"]:
        print(f"what it writes cannot be read through the output head: {result['reason']}")
    for name in ("raised", "lowered"):
        if result[name]:
            print(f"{name:8} " + " ".join(ascii(token) for token, _ in result[name]))
    for passage in result["passages"]:
        texts = list(passage["tokens"])
        texts[passage["at"]] = f"[[{texts[passage['at']]}]]"
        print(f"{passage['activation']:9.3f}  {''.join(texts)!a}")
