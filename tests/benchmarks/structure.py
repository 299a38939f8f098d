"""What structural importance costs on SmolLM2-135M: blocks, the greedy path, neurons.

``python -m tests.benchmarks.structure [--write docs/benchmarks.md --append]``. Takes about three
minutes on two cores. Every part is timed between two rounds of plain transformers passes with their
loss, one a window, and divided by as many of those as the naive procedure makes.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from prune_core.analysis.blocks.ablation import block_costs
from prune_core.analysis.blocks.greedy import greedy_path
from prune_core.analysis.blocks.influence import block_influence
from prune_core.analysis.neurons.statistics import gather_neurons
from prune_core.engine.core import Core
from prune_core.jobs.base import TextSpec
from prune_core.models.clone import clone_shared
from tests.benchmarks.core import SOURCE, seconds
from tests.benchmarks.report import header, options, publish, table

SEQ_LEN, WINDOWS, STEPS, ROUND = 512, 2, 3, 3


def passes(model: Any, windows: list[Tensor]) -> Tensor:
    """Mean loss of a plain pass over every window."""
    with torch.inference_mode():
        losses = [model(w[None], labels=w[None], use_cache=False).loss for w in windows]
    return torch.stack(losses).double().mean()


def naive_ablation(model: Any, windows: list[Tensor], block: int) -> float:
    """What a block costs, by a model without it."""
    without = copy.deepcopy(model)
    del without.model.layers[block]
    return float(passes(without, windows) - passes(model, windows))


def main() -> int:
    """Measure and publish."""
    chosen = options("What structural importance costs.")
    loaded = Core().loaded(SOURCE)
    handle, structure = loaded.handle, loaded.handle.structure
    windows = loaded.windows(TextSpec("preset", "grimm"), SEQ_LEN, WINDOWS)
    count, plain = len(structure.blocks), loaded.dense
    passes(plain, windows)
    rows = []
    ablated: dict[str, Any] = {}

    def measured(name: str, work: Callable[[], Any], naive: int) -> None:
        """``naive``: plain passes over all windows that the procedure written out would make."""
        before = [seconds(lambda: passes(plain, windows)) for _ in range(ROUND)]
        spent = seconds(work)
        after = [seconds(lambda: passes(plain, windows)) for _ in range(ROUND)]
        each = statistics.median(before + after)
        ratio = spent / (each * naive)
        rows.append([name, f"{spent:.1f}", f"{naive}", f"{each * naive:.1f}", f"{ratio:.2f}"])
        print("  ".join(rows[-1]), flush=True)

    lines = header("Blocks and neurons")
    measured(
        "influence of all blocks and angles of all runs",
        lambda: block_influence(clone_shared(handle.model), structure, windows),
        1,
    )
    measured(
        f"ablation of all {count} blocks",
        lambda: ablated.update(block_costs(handle, windows, ("block",))),
        count + 1,
    )
    tried = sum(count - 2 - step for step in range(STEPS))  # the first and the last block stay
    measured(
        f"greedy path of {STEPS} blocks, {tried} candidates",
        lambda: greedy_path(handle, windows, STEPS),
        tried + 1,
    )
    measured(
        "neurons: four scores of all",
        lambda: gather_neurons(clone_shared(handle.model), structure, torch.stack(windows)),
        1,
    )
    costs = ablated["block"]["mean"]
    error = max(abs(costs[b] - naive_ablation(plain, windows, b)) for b in (1, 14, count - 2))
    lines += [
        f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, {WINDOWS} x {SEQ_LEN} tokens "
        "of `grimm`. A plain pass is transformers' own over both windows with the loss, the median "
        f"of {2 * ROUND} around each part.",
        "",
        *table(["", "seconds", "plain passes", "seconds", "ratio"], rows),
        f"A block's cost and that of a model built without it, largest difference: {error:.1e} "
        "nats per token.",
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
