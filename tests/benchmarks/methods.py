"""Choosing weights against the published procedures written out naively, on SmolLM2-135M.

``python -m tests.benchmarks.methods [--write docs/benchmarks.md --append]``. Takes about eight
minutes on two cores, and a cache of its own: nothing is found that an earlier run computed.
"""

from __future__ import annotations

import copy
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prune_core.engine.core import Core
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.paths import cache_folder
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import dense_statistics, work_out
from tests.benchmarks import naive
from tests.benchmarks.core import SOURCE, Row, seconds
from tests.benchmarks.report import header, options, publish, resident, table

DATA = Path(__file__).parents[3] / "shared" / "data"
WIKITEXT = (DATA / "wikitext2-valid.txt", DATA / "wikitext2-test.txt")
HALF = {"sparsity": 0.5}


def texts() -> tuple[TextSpec, TextSpec]:
    """To calibrate and to measure on: WikiText-2 where it lies beside the checkout."""
    if all(path.is_file() for path in WIKITEXT):
        return TextSpec("file", str(WIKITEXT[0])), TextSpec("file", str(WIKITEXT[1]))
    return TextSpec("preset", "andersen"), TextSpec("preset", "grimm")


def choosing(loaded: LoadedModel, calibration: Calibration) -> list[Row]:
    """From a loaded model to pruned weights."""
    wanda = Recipe(criterion="wanda", pattern="per-row", calibration=calibration, **HALF)
    repaired = Recipe(
        criterion="sparsegpt", reconstruction="sparsegpt", calibration=calibration, **HALF
    )
    windows = loaded.calibration(wanda.calibration)

    def ours(recipe: Recipe) -> float:
        return seconds(lambda: loaded.copy.apply(work_out(loaded, recipe)))

    def published(prune: Any) -> float:
        model = copy.deepcopy(loaded.handle.model)
        return seconds(lambda: prune(model, windows, 0.5))

    first = ours(wanda)
    further = statistics.median(ours(replace(wanda, sparsity=0.5 + 0.02 * n)) for n in range(1, 8))
    by_hand = published(naive.wanda)
    mended = ours(repaired)
    by_hand_too = published(naive.sparsegpt)
    rows = []
    for name, spent, yardstick, theirs in (
        ("Wanda 0.5 per row, the first sparsity", first, "published Wanda", by_hand),
        ("each further sparsity", further, "published Wanda", by_hand),
        ("SparseGPT 0.5", mended, "published SparseGPT", by_hand_too),
    ):
        ratio = spent / theirs
        rows.append([name, f"{spent:.2f}", yardstick, f"{theirs:.1f}", f"{ratio:.3f}"])
    return rows


def allocating(core: Core, calibration: Calibration, text: TextSpec) -> list[Row]:
    """Wanda at 0.6 by three allocations, on text that none of them has seen."""
    results = {}
    for allocation in ("uniform", "owl", "sensitivity"):
        recipe = Recipe(
            criterion="wanda",
            pattern="per-row",
            sparsity=0.6,
            allocation=allocation,
            calibration=calibration,
        )
        job = Evaluate(SOURCE, recipe, text, 512, 16)
        results[allocation] = core.run(job)
    rows = []
    for name, result in results.items():
        pairs = zip(result["window_nll"], results["uniform"]["window_nll"], strict=True)
        change = [ours - theirs for ours, theirs in pairs]
        mean = statistics.fmean(change)
        error = statistics.stdev(change) / math.sqrt(len(change))
        low, high = result["perplexity_low"], result["perplexity_high"]
        paired = "" if name == "uniform" else f"{mean:+.4f} ± {error:.4f}"
        rows.append([name, f"{result['perplexity']:.1f} ({low:.1f} to {high:.1f})", paired])
    return rows


def memory() -> str:
    """Peak of a calibration run in a process of its own, over that of the bare libraries."""
    done = subprocess.run(
        [sys.executable, "-m", "tests.benchmarks.methods", "--memory"],
        capture_output=True,
        text=True,
        check=True,
    )
    before, model, loaded, peak = (float(x) for x in done.stdout.split()[-4:])
    return (
        f"Memory: the libraries take {before / 1e6:.0f} MB, the model {model / 1e6:.0f} MB; loaded "
        f"{loaded / 1e6:.0f} MB. A calibration run for Wanda (32 x 512 tokens) peaks at "
        f"{peak / 1e6:.0f} MB, {(peak - before) / model:.2f} x the model over the bare libraries."
    )


def calibration_alone() -> None:
    """What :func:`memory` runs: prints four numbers of bytes."""
    from prune_core.models.load import load_model

    before = resident()
    handle = load_model(SOURCE)
    loaded = LoadedModel(handle)
    model = sum(p.numel() * p.element_size() for p in handle.model.parameters())
    Path("/proc/self/clear_refs").write_text("5")  # the peak of loading is not calibration's
    resting = resident()
    with tempfile.TemporaryDirectory() as folder:
        recipe = Recipe(criterion="wanda", calibration=Calibration(texts()[0]), **HALF)
        loaded.calibration(recipe.calibration)
        os.environ["PRUNE_CACHE_DIR"] = folder
        dense_statistics(loaded, recipe)
    print(before, model, resting, resident(peak=True))


def main() -> int:
    """Measure and publish."""
    if "--memory" in sys.argv:
        calibration_alone()
        return 0
    chosen = options("Choosing weights against the published procedures.")
    lines = header("Choosing weights")
    peak = memory()
    core = Core()
    loaded = core.loaded(SOURCE)
    ours, held_out = texts()
    if ours.kind == "preset":  # read before the cache changes
        from prune_core.texts.reading import read_text

        ours, held_out = (TextSpec("inline", read_text(x)[:900_000]) for x in (ours, held_out))
    # on the disk that the app's cache is on
    with tempfile.TemporaryDirectory(dir=cache_folder("statistics").parent) as folder:
        os.environ["PRUNE_CACHE_DIR"] = folder
        calibration = Calibration(ours)
        rows = choosing(loaded, calibration)
        shares = allocating(core, calibration, held_out)
    lines += [
        f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, calibration 32 x 512 tokens, "
        "from a loaded model to pruned weights, each once. The published procedures are written "
        "out naively in `tests/benchmarks/naive.py`.",
        "",
        *table(["what", "seconds", "yardstick", "seconds", "ratio"], rows),
        peak,
        "",
        "Wanda per row at 0.6 on text that neither statistics nor allocation have seen "
        "(16 x 512 tokens; WikiText-2 where it is there). The change is paired over windows, in "
        "nats per token, with its standard error; the interval is the perplexity's own.",
        "",
        *table(["allocation", "perplexity (95 %)", "change from uniform"], shares),
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
