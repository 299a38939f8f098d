"""The command line's options and verbs about neurons."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from prune_core.cli_checks import index_of
from prune_core.engine.jobs import Job, NeuronDetails, NeuronImportance
from prune_core.errors import RecipeError
from prune_core.recipe import (
    NEURON_METHODS,
    NEURON_SCOPES,
    Calibration,
    NeuronShare,
    TextSpec,
    checked_sparsity,
)

Pairs = tuple[tuple[int, int], ...]


def recipe_options(sub: argparse.ArgumentParser) -> None:
    """``--drop-neurons`` and what belongs to it."""
    sub.add_argument(
        "--drop-neurons",
        default="",
        metavar="FRACTION|B:N,…",
        help="a share of the MLP neurons, 0 to 1, least important first; or single ones; or both",
    )
    sub.add_argument(
        "--neuron-method",
        default=NEURON_METHODS[0],
        help=f"{', '.join(NEURON_METHODS)}; of a share",
    )
    sub.add_argument(
        "--neuron-scope", default=NEURON_SCOPES[0], help="block (each loses the share) or global"
    )
    sub.add_argument(
        "--compensate",
        action="store_true",
        help="add what dropped neurons gave on average to the bias of their layer",
    )


def neuron_share(parsed: argparse.Namespace) -> tuple[NeuronShare | None, Pairs]:
    """``--drop-neurons`` as a share and named neurons.

    Raises:
        RecipeError: neither a number from 0 to 1 nor BLOCK:NEURON pairs, or two shares.
    """
    shares, pairs = [], []
    for part in (x.strip() for x in parsed.drop_neurons.split(",")):
        block, colon, neuron = part.partition(":")
        if colon and block.isdecimal() and neuron.isdecimal():
            pairs.append((index_of(block, "--drop-neurons"), index_of(neuron, "--drop-neurons")))
        elif part:
            shares.append(_fraction(part))
    if len(shares) > 1:
        raise RecipeError(f"--drop-neurons takes one share of all neurons, got {len(shares)}.")
    # a misspelled method is told even where there is no share
    share = NeuronShare(shares[0] if shares else 0.0, parsed.neuron_method, parsed.neuron_scope)
    return (share if shares else None), tuple(pairs)


def _fraction(part: str) -> float:
    try:
        found = float(part)
    except ValueError:
        raise RecipeError(
            "--drop-neurons takes a share from 0 to 1, BLOCK:NEURON pairs such as 0:3,5:1, or "
            f"both, got {part!r}."
        ) from None
    return checked_sparsity(found, "--drop-neurons")


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
        raise RecipeError(f"--neuron takes BLOCK:NEURON such as 3:17, got {parsed.neuron!r}.")
    read = Calibration(text, parsed.windows, parsed.seq_len)
    place, number = (index_of(part, "--neuron") for part in (block, neuron))
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


def emptied_warnings(result: dict[str, Any]) -> list[str]:
    """Sentences about blocks that lost all their heads or neurons."""
    found = []
    for what, blocks in result.get("emptied", {}).items():
        if blocks:
            names = ", ".join(str(block) for block in blocks)
            found.append(f"Warning: no {what} left in block {names}.")
    return found
