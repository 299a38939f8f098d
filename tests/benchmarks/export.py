"""What an export saves on SmolLM2-135M: files, speed, memory, and the perplexity found elsewhere.

``python -m tests.benchmarks.export [--write docs/benchmarks.md --append]``. Takes some ten minutes
on two quiet cores and 2 GB of disk for a while; on busy ones set OMP_NUM_THREADS=1. Every exported
folder is loaded again by :mod:`tests.isolated` in an environment that holds only torch,
transformers and what those need.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

import torch

from prune_core.engine.core import Core
from prune_core.jobs.base import TextSpec
from prune_core.jobs.blocks import BlockImportance
from prune_core.jobs.exports import Cost, Export
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from tests.benchmarks.core import SOURCE
from tests.benchmarks.report import header, options, publish, table
from tests.isolated import environment, perplexity

TEXT = TextSpec("preset", "grimm")
SEQ_LEN, WINDOWS, REPEATS = 256, 8, 5
Row = list[str]


def recipes(core: Core) -> dict[str, tuple[Recipe, str]]:
    """Name to recipe and format; blocks are the eight of the least influence."""
    found = core.run(BlockImportance(SOURCE, TEXT, SEQ_LEN, 4))["influence"]
    blocks = tuple(sorted(sorted(range(1, len(found) - 1), key=found.__getitem__)[:8]))
    half = Recipe(sparsity=0.5)
    return {
        f"blocks {', '.join(map(str, blocks))}": (Recipe(drop_blocks=blocks), "shrunk"),
        "one key/value group of three in each block": (
            Recipe(drop_heads=tuple((b, h) for b in range(len(found)) for h in (0, 1, 2))),
            "shrunk",
        ),
        "10 % of the neurons of each block": (Recipe(neurons=NeuronShare(0.1)), "shrunk"),
        "50 % of the weights": (half, "masked"),
        "50 % of the weights, no zeros in the file": (half, "compressed"),
        "2:4, no zeros in the file": (half.with_pattern("nm:2:4"), "compressed"),
    }


def written(
    core: Core, python: Path, place: Path, name: str, recipe: Recipe, form: str
) -> tuple[Row, Row]:
    """Sizes and quality, and speed and memory, of one export."""
    folder = place / "out"
    job = Export(SOURCE, recipe, str(folder), form, True, TEXT, SEQ_LEN, WINDOWS, REPEATS)
    got = core.run(job)
    dense, ours, screen = got["dense"], got["exported"], got["screen"]
    elsewhere, off = "needs compressed-tensors", ""
    if form != "compressed":
        loaded = core.loaded(SOURCE)
        windows = [w.tolist() for w in loaded.windows(TEXT, SEQ_LEN, WINDOWS)]
        there = float(str(perplexity(python, folder, windows)["perplexity"]))
        elsewhere = f"{there:,.3f}"
        off = f"{abs(there / screen['perplexity'] - 1):.1e}"
    shutil.rmtree(folder)
    sizes = [
        *(name, form, f"{ours['parameters'] / 1e6:.1f}", f"{ours['bytes'] / 1e6:.1f}"),
        f"{ours['bytes'] / dense['bytes']:.3f}",
        f"{ours['flops_per_token'] / dense['flops_per_token']:.3f}",
        *(f"{screen['perplexity']:,.3f}", elsewhere, off),
    ]
    speeds = [name, form]
    for key in ("prefill", "decode"):
        ratio = ours[key]["median"] / dense[key]["median"]
        speeds += [spread(dense[key]), spread(ours[key]), f"{ratio:.2f}"]
    speeds.append(f"{dense['peak_memory'] / 1e6:,.0f} to {ours['peak_memory'] / 1e6:,.0f}")
    return sizes, speeds


def spread(values: dict[str, float]) -> str:
    """Median and range."""
    return f"{values['median']:,.1f} ({values['low']:,.1f} to {values['high']:,.1f})"


def three(core: Core, recipe: Recipe) -> list[Row]:
    """Dense, with zeros in place, and with parts cut out, in turn."""
    got = core.run(Cost(SOURCE, recipe, REPEATS))
    sizes = {"dense": "dense", "zeros": "dense", "": "shrunk"}
    rows = []
    for prefix, name in (("dense_", "dense"), ("zeros_", "zeros in place"), ("", "cut out")):
        size = got[f"bytes_{sizes[prefix.rstrip('_')]}"]
        rows.append(
            [
                *(name, f"{size / 1e6:.1f}", spread(got[f"{prefix}prefill"])),
                *(spread(got[f"{prefix}decode"]), f"{got[f'{prefix}peak_memory'] / 1e6:,.0f}"),
            ]
        )
    return rows


def main() -> int:
    """Run it."""
    chosen = options(__doc__ or "")
    lines = header("Exports")
    core = Core()
    sizes, speeds = [], []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        python = environment(place / "environment")
        all_recipes = recipes(core)
        for name, (recipe, form) in all_recipes.items():
            one, other = written(core, python, place, name, recipe, form)
            sizes.append(one)
            speeds.append(other)
        blocks = next(iter(all_recipes.values()))[0]
        turns = three(core, Recipe(sparsity=0.5, drop_blocks=blocks.drop_blocks))
    lines += [
        f"SmolLM2-135M (134.5 M parameters, 538.1 MB), float32, {torch.get_num_threads()} threads; "
        f"perplexity on {WINDOWS} x {SEQ_LEN} tokens of `grimm`, on screen and in an environment "
        "that holds only torch and transformers.",
        "",
        *table(
            [
                *("what goes", "format", "parameters, M", "file, MB", "of dense"),
                *("FLOPs of dense", "on screen", "elsewhere", "off by"),
            ],
            sizes,
        ),
        f"Tokens per second, dense and exported in turn, {REPEATS} times, each in a process of its "
        "own, median and range; peak memory in MB above the bare libraries.",
        "",
        *table(
            [
                *("what goes", "format", "prefill, dense", "exported", "ratio"),
                *("decode, dense", "exported", "ratio", "memory, dense to exported"),
            ],
            speeds,
        ),
        "Half of the weights and the same eight blocks gone: zeros in place are not faster.",
        "",
        *table(["", "file, MB", "prefill", "decode", "peak memory, MB"], turns),
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
