"""Options that several verbs share, and what they say as recipes, texts and calibrations."""

from __future__ import annotations

import argparse
from pathlib import Path

from prune_core.cli import checks
from prune_core.cli.checks import index_of
from prune_core.errors import RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.checks import checked_sparsity
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import ALLOCATIONS, RECONSTRUCTIONS, Recipe, choices_read_calibration
from prune_core.texts.windows import STARTS

Pairs = tuple[tuple[int, int], ...]


def text_options(
    sub: argparse.ArgumentParser, *, windows: int, seq_len: int, use: str = "to measure the model"
) -> None:
    """Add the options that name the text to measure on."""
    sub.add_argument(
        "--text",
        default="grimm",
        metavar="FILE",
        help=f"what is read {use}: a text preset or a file; default: grimm",
    )
    sub.add_argument(
        "--seq-len",
        type=int,
        default=seq_len,
        metavar="TOKENS",
        help=f"tokens in a window of --text, at most the model's context; default: {seq_len}",
    )
    sub.add_argument(
        "--windows",
        type=int,
        default=windows,
        metavar="N",
        help=f"windows of --text from its start on, 1 to 4096; default: {windows}",
    )
    sub.add_argument(
        "--bos",
        choices=STARTS,
        help="start each window with the beginning-of-sequence token; default: auto, which does so "
        "where the family needs it (Gemma)",
    )


def recipe_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that make a recipe."""
    sub.add_argument(
        "--recipe", metavar="FILE", help="a recipe as JSON; replaces the options below"
    )
    sub.add_argument(
        "--criterion",
        default="magnitude",
        metavar="NAME",
        help="scores the weights; the lowest go: " + ", ".join(criterion_names()),
    )
    sub.add_argument("--pattern", default="per-layer", help="per-layer, per-row, nm:N:M or block:B")
    sub.add_argument("--allocation", default="uniform", help=", ".join(ALLOCATIONS))
    sub.add_argument("--reconstruction", default="none", help=" or ".join(RECONSTRUCTIONS))
    sub.add_argument("--sparsity", type=float, help="0 to 1; N:M brings its own")
    calibration_options(sub)
    sub.add_argument("--drop-heads", default="", metavar="B:H,…", help="query heads to remove")
    sub.add_argument(
        "--drop-cross-heads", default="", metavar="B:H,…", help="those of cross-attention"
    )
    neuron_options(sub)
    sub.add_argument("--drop-blocks", default="", metavar="B,…", help="blocks to remove")
    sub.add_argument("--drop-attention", default="", metavar="B,…", help="only their attention")
    sub.add_argument("--drop-mlp", default="", metavar="B,…", help="only their MLP")


def calibration_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that name the calibration text."""
    sub.add_argument(
        "--calibration",
        default="andersen",
        metavar="FILE",
        help="text for criteria that need one: a preset or a file; default: andersen",
    )
    sub.add_argument(
        "--calibration-windows",
        type=int,
        default=32,
        metavar="N",
        help="windows of --calibration, 1 to 4096; default: 32",
    )
    sub.add_argument(
        "--calibration-seq-len",
        type=int,
        default=512,
        metavar="TOKENS",
        help="tokens in a window of --calibration, at most the model's context; default: 512",
    )
    sub.add_argument(
        "--calibration-skip",
        type=int,
        default=0,
        metavar="TOKENS",
        help="tokens of --calibration left out at its start; default: 0",
    )
    sub.add_argument(
        "--calibration-mode", default="auto", help="auto, dense or sequential: one block at a time"
    )
    sub.add_argument("--calibration-seed", type=int, help="draw the windows at random")


def recipe_from(parsed: argparse.Namespace) -> Recipe:
    """The recipe that the options, or a recipe file, say."""
    file = parsed.recipe
    recipe = _recipe_from_options(parsed) if file is None else _recipe_file(file)
    known_criterion(recipe.criterion)  # a misspelled one is told even where nothing is to be ranked
    return recipe


def _recipe_file(name: str) -> Recipe:
    if not name.strip():
        raise RecipeError("--recipe names no file; give the path of a recipe as JSON.")
    try:
        return Recipe.from_json(Path(name).read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError:
        raise RecipeError(f"the recipe {name} is not UTF-8 text; save it as JSON.") from None


def _recipe_from_options(parsed: argparse.Namespace) -> Recipe:
    sparsity = parsed.sparsity
    if sparsity is None:
        sparsity = Recipe().with_pattern(parsed.pattern).sparsity
    share, pairs = neuron_share(parsed)
    return Recipe(
        criterion=parsed.criterion,
        pattern=parsed.pattern,
        allocation=parsed.allocation,
        sparsity=sparsity,
        drop_heads=block_pairs(parsed.drop_heads, "--drop-heads"),
        drop_cross_heads=block_pairs(parsed.drop_cross_heads, "--drop-cross-heads"),
        drop_neurons=pairs,
        neurons=share,
        compensate=parsed.compensate,
        drop_blocks=block_indices(parsed.drop_blocks, "--drop-blocks"),
        drop_attention=block_indices(parsed.drop_attention, "--drop-attention"),
        drop_mlp=block_indices(parsed.drop_mlp, "--drop-mlp"),
        reconstruction=parsed.reconstruction,
        calibration=calibration_from(parsed),
    )


def block_pairs(text: str, option: str) -> tuple[tuple[int, int], ...]:
    """Read ``0:3,5:1`` as pairs of block and part."""
    found = []
    for pair in filter(None, text.split(",")):
        block, _, part = pair.strip().partition(":")
        if not (block.isdecimal() and part.isdecimal()):
            what = option.removeprefix("--drop-").removeprefix("cross-").removesuffix("s").upper()
            raise RecipeError(f"{option} takes BLOCK:{what} pairs such as 0:3,5:1, got {pair!r}.")
        found.append((checks.index_of(block, option), checks.index_of(part, option)))
    return tuple(found)


def block_indices(text: str, option: str) -> tuple[int, ...]:
    """Read ``3,5`` as indices of blocks."""
    found = [part.strip() for part in text.split(",") if part]
    for part in found:
        if not part.isdecimal():
            raise RecipeError(f"{option} takes the indices of blocks such as 3,5, got {part!r}.")
    return tuple(checks.index_of(part, option) for part in found)


def calibration_from(parsed: argparse.Namespace) -> Calibration:
    """The calibration of the options, or the usual one where nothing would read it."""
    neurons = neuron_share(parsed)[0] is not None or parsed.compensate
    if choices_read_calibration(
        parsed.criterion, parsed.allocation, parsed.reconstruction, neurons=neurons
    ):
        return full_calibration(parsed)
    return Calibration()  # nothing reads it: it must not part equal recipes


def full_calibration(parsed: argparse.Namespace) -> Calibration:
    """The calibration exactly as the options say it."""
    return Calibration(
        text_named(parsed.calibration),
        parsed.calibration_windows,
        parsed.calibration_seq_len,
        parsed.calibration_seed,
        parsed.calibration_skip,
        parsed.calibration_mode,
    )


def criterion_names() -> list[str]:
    """All criteria, sorted."""
    from prune_core.criteria import CRITERIA

    return sorted(CRITERIA)


def known_criterion(name: str) -> str:
    """The name, if a criterion has it."""
    from prune_core.criteria import CRITERIA

    return CRITERIA[name].name  # an unknown one is told before a model is loaded


def text_from(parsed: argparse.Namespace) -> TextSpec:
    """The text to measure on."""
    return text_named(parsed.text)


def text_named(name: str) -> TextSpec:
    """A preset of that name, else a file."""
    from prune_core.texts.reading import TEXTS

    return TextSpec("preset" if name in TEXTS else "file", name)


def repeats(sub: argparse.ArgumentParser, default: int) -> None:
    """Add how often speed is measured."""
    sub.add_argument(
        "--repeats",
        type=int,
        default=default,
        metavar="N",
        help=f"rounds of speed and memory; 0: do not measure them; default: {default}",
    )


def neuron_options(sub: argparse.ArgumentParser) -> None:
    """Add the options that drop neurons."""
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
