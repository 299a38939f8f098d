"""The library against yardsticks measured in the same run, on SmolLM2-135M.

``python -m tests.benchmarks.core [--write docs/benchmarks.md]``. Takes about three minutes on two
cores. A ratio is taken of medians of turns that alternate, so that a busy moment hits both sides.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from prune_core.engine.client import Engine
from prune_core.engine.core import Core
from prune_core.evaluation.scoring import score_window
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.pruning.ranks import RankStore, layer_scores
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out
from tests.benchmarks.report import header, options, publish, resident, table

SOURCE = "smollm2-135m"
TEXT = TextSpec("preset", "grimm")
SEQ_LEN = 512
TURNS = 10
VIEWERS = 20

Row = list[str]


def seconds(work: Callable[[], Any]) -> float:
    """How long one call takes."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def in_turns(turns: int, *works: Callable[[], Any]) -> list[float]:
    """Median seconds of each, called in turns after one round that does not count."""
    taken: list[list[float]] = [[] for _ in works]
    for turn in range(turns + 1):
        for work, times in zip(works, taken, strict=True):
            spent = seconds(work)
            if turn:
                times.append(spent)
    return [statistics.median(times) for times in taken]


def applying(loaded: LoadedModel) -> list[Row]:
    """A slider step to pruned weights, all layers, against a copy of the same bytes."""
    model, layers = loaded.handle.model, loaded.handle.structure.layers
    weights = [layer.stored_weight(model) for layer in layers.values()]
    buffers = [torch.empty_like(weight) for weight in weights]

    def copy() -> None:
        for buffer, weight in zip(buffers, weights, strict=True):
            buffer.copy_(weight)

    half = {"sparsity": 0.5}
    cases = {
        "magnitude per layer": [Recipe(sparsity=0.3), Recipe(sparsity=0.5)],
        "magnitude per row": [
            Recipe(pattern="per-row", sparsity=0.3),
            Recipe(pattern="per-row", sparsity=0.5),
        ],
        # one sparsity only: in turn with 1:4, whose ranks are other ones
        "magnitude 2:4": [Recipe(pattern="nm:2:4", **half), Recipe().with_pattern("nm:1:4")],
    }
    rows = []
    for name, recipes in cases.items():
        plans = [work_out(loaded, recipe) for recipe in recipes]
        turn = iter(range(10_000))

        def step(plans: list[Any] = plans, turn: Any = turn) -> None:
            loaded.copy.apply(plans[next(turn) % 2])

        ours, copied = in_turns(TURNS, step, copy)
        rows.append([f"apply, {name}", f"{ours:.3f}", "copy of the same bytes", f"{copied:.3f}"])
        rows[-1].append(f"{ours / copied:.1f}")
    return rows


def ranking(loaded: LoadedModel) -> list[Row]:
    """Ranks of every layer with an empty cache, and of a sample against ``torch.argsort``."""
    model, layers = loaded.handle.model, loaded.handle.structure.layers
    names = list(layers)[:: max(1, len(layers) // 10)][:10]
    sample = {name: layers[name] for name in names}
    scores = [layer_scores(model, layer, "magnitude", {}).reshape(-1) for layer in sample.values()]

    def rank(chosen: Any) -> None:
        with tempfile.TemporaryDirectory() as folder:
            store = RankStore(model, chosen, "benchmark", Path(folder))
            store.ranked("magnitude", {}, "per-layer")

    cold = seconds(lambda: rank(layers))
    ours, theirs = in_turns(2, lambda: rank(sample), lambda: [x.argsort() for x in scores])
    return [
        [f"rank all {len(layers)} layers and write them to disk", f"{cold:.1f}", "", "", ""],
        [
            *("rank 10 layers and write them", f"{ours:.2f}"),
            *("`torch.argsort` of the same", f"{theirs:.2f}", f"{ours / theirs:.2f}"),
        ],
    ]


def evaluating(loaded: LoadedModel) -> list[Row]:
    """A window scored (loss, KL, top-1) against plain forward passes of transformers."""
    windows = loaded.windows(TEXT, SEQ_LEN, 2)
    known = [loaded.reference.find(w) or loaded.reference.measure(w) for w in windows]
    model, copy = loaded.handle.model, loaded.copy
    turn = iter(range(10_000))

    def ours() -> None:
        index = next(turn) % 2
        with torch.inference_mode(), copy.runner.session(leading=[], record=[]):
            tokens = windows[index][None]
            score_window(copy.model, loaded.handle.structure, tokens, known[index])

    def plain() -> None:
        with torch.inference_mode():
            model(input_ids=windows[0][None])

    def labeled() -> None:
        with torch.inference_mode():
            model(input_ids=windows[0][None], labels=windows[0][None])

    spent, forward, loss = in_turns(6, ours, plain, labeled)
    name = f"score a window of {SEQ_LEN} tokens"
    return [
        [name, f"{spent:.2f}", "plain forward", f"{forward:.2f}", f"{spent / forward:.2f}"],
        [name, f"{spent:.2f}", "forward with labels", f"{loss:.2f}", f"{spent / loss:.2f}"],
    ]


def changing_a_block(core: Core, blocks: int) -> list[Row]:
    """A change in block k measured again, against a change in every block."""

    def job(recipe: Recipe) -> Evaluate:
        return Evaluate(SOURCE, recipe, TEXT, SEQ_LEN, 2)

    def spent(recipe: Recipe) -> float:
        result = core.run(job(recipe))
        return float(result["seconds"]["evaluate"])

    base = Recipe(sparsity=0.3)
    changed = (10, 20, blocks - 1)
    full: list[float] = []
    part: dict[int, list[float]] = {block: [] for block in changed}
    for turn in range(3):
        full.append(spent(replace(base, sparsity=0.31 + 0.01 * turn)))
        for block in changed:
            spent(base)
            part[block].append(
                spent(replace(base, overrides={f"block:{block}": 0.5 + 0.01 * turn}))
            )
    whole = statistics.median(full)
    rows = []
    for block, times in part.items():
        again = statistics.median(times)
        name = f"measure again after a change in block {block}"
        rows.append([name, f"{again:.2f}", "after a change in all blocks", f"{whole:.2f}"])
        rows[-1].append(f"{again / whole:.2f}")
    return rows


def viewing() -> list[str]:
    """What 20 viewers cost the web process, and what its one worker holds."""
    engine = Engine("process")
    try:
        # one viewer first: the model is loaded and every module imported
        engine.submit(LoadModel(SOURCE), session="first", panel="model").wait(120)
        job = Evaluate(SOURCE, Recipe(sparsity=0.2), TEXT, SEQ_LEN, 1)
        engine.submit(job, session="first", panel="gauges").wait(120)
        before = resident()
        tickets = [
            engine.submit(
                replace(job, recipe=Recipe(sparsity=0.3 + 0.01 * viewer)),
                session=f"viewer {viewer}",
                panel="gauges",
            )
            for viewer in range(VIEWERS)
        ]
        start = time.perf_counter()
        for ticket in tickets:
            ticket.wait(300)
        spent = time.perf_counter() - start
        done = sum(ticket.state == "done" for ticket in tickets)
        grown = (resident() - before) / 1e6
        worker = resident(engine.worker_pid or "self", peak=True) / 1e9
    finally:
        engine.close()
    return [
        f"{VIEWERS} sessions, each with a recipe of its own measured on one window of {SEQ_LEN} "
        f"tokens: {done} answered in {spent:.1f} s by one worker, whose memory peaked at "
        f"{worker:.2f} GB (dense model, working copy, memory-mapped ranks, dense answers). The "
        f"process that holds the sessions grew by {grown:.1f} MB, {grown / VIEWERS:.2f} MB a "
        "session; what Streamlit itself keeps for an open page comes on top.",
    ]


def main() -> int:
    """Measure and publish."""
    chosen = options("Ratios of the library to its yardsticks.")
    lines = header("Library")
    viewers = viewing()
    core = Core()
    load = seconds(lambda: core.run(LoadModel(SOURCE)))
    loaded = core.loaded(SOURCE)
    rows = [["load the model from the cache", f"{load:.1f}", "", "", ""]]
    rows += applying(loaded) + evaluating(loaded)
    rows += changing_a_block(core, len(loaded.handle.structure.blocks))
    rows += ranking(loaded)
    lines += [
        f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, text {TEXT.value}; medians.",
        "",
        *table(["what", "seconds", "yardstick", "seconds", "ratio"], rows),
        f"This process peaked at {resident(peak=True) / 1e9:.2f} GB with all of the above, the "
        "yardstick's buffers and three sets of ranks included.",
        "",
        *viewers,
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
