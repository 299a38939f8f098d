"""Ablation of every head against one full pass per head, on SmolLM2-135M.

``python -m tests.benchmarks.heads [--write docs/benchmarks.md --append]``. Takes about eight
minutes on two cores. The naive side is a plain transformers pass with its loss for each head. It
is timed between the blocks of the ablation, so that both see the machine at the same speed, and
multiplied; for heads of every sixth block the losses must be the same.
"""

from __future__ import annotations

import statistics
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.analysis.heads.ablation import head_costs
from prune_core.analysis.heads.scores import all_sites, gradient_scores
from prune_core.engine.core import Core
from prune_core.jobs.base import TextSpec
from prune_core.progress import Progress
from tests.benchmarks.core import SOURCE, seconds
from tests.benchmarks.report import header, options, publish, table

SEQ_LEN, WINDOWS = 512, 2
EVERY = 6


def naive(model: Any, layer: nn.Module, columns: slice | None, windows: list[Tensor]) -> float:
    """Mean loss over the windows, one full pass each, with some input columns of a layer zero."""

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs = args[0].clone()
        if columns is not None:
            inputs[..., columns] = 0
        return (inputs,)

    handle = layer.register_forward_pre_hook(hook)
    try:
        with torch.inference_mode():
            losses = [model(w[None], labels=w[None], use_cache=False).loss for w in windows]
    finally:
        handle.remove()
    return float(torch.stack(losses).double().mean())


def main() -> int:
    """Measure and publish."""
    chosen = options("Ablation of every head against a full pass per head.")
    loaded = Core().loaded(SOURCE)
    handle, structure = loaded.handle, loaded.handle.structure
    windows = loaded.windows(TextSpec("preset", "grimm"), SEQ_LEN, WINDOWS)
    sites = all_sites(structure)
    heads = sum(attention.num_heads for _, attention in sites)
    plain = loaded.dense

    first = sites[0][1]
    o = plain.get_submodule(first.o)
    base = naive(plain, o, None, windows)  # warms up too
    sampled: list[float] = []

    def between(event: dict[str, Any]) -> None:
        """A plain pass after every third block, not counted as ablation."""
        places.append(event)
        if len(places) % 3 == 0:
            window = windows[len(sampled) % WINDOWS]
            sampled.append(seconds(lambda: naive(plain, o, first.columns(0), [window])))

    places: list[Any] = []
    found: dict[str, Any] = {}
    spent = seconds(lambda: found.update(head_costs(handle, windows, Progress(between)))) - sum(
        sampled
    )
    each = statistics.median(sampled) * WINDOWS
    error = 0.0
    for block, attention in sites[::EVERY]:
        head = block.index % attention.num_heads
        layer = plain.get_submodule(attention.o)
        loss = naive(plain, layer, attention.columns(head), windows)
        error = max(error, abs(found["mean"][block.index][head] - (loss - base)))

    passes = {"forward": 0, "backward": 0}
    real = torch.autograd.grad

    def counted(*args: Any, **kwargs: Any) -> Any:
        passes["backward"] += 1
        return real(*args, **kwargs)

    hook = plain.register_forward_pre_hook(lambda *_: None)
    hook.remove()
    torch.autograd.grad = counted  # type: ignore[assignment]
    try:
        gradient = seconds(lambda: gradient_scores(handle.model, structure, windows))
    finally:
        torch.autograd.grad = real  # type: ignore[assignment]
    rows = [
        [f"ablation of all {heads} heads", f"{spent:.1f}", f"{each * heads:.1f}",
         f"{spent / (each * heads):.3f}"],
        [f"gradient map, {passes['backward']} backward passes", f"{gradient:.1f}",
         f"{each * heads:.1f}", f"{gradient / (each * heads):.3f}"],
    ]  # fmt: skip
    lines = header("Heads")
    lines += [
        f"SmolLM2-135M, float32, {torch.get_num_threads()} threads, {WINDOWS} x {SEQ_LEN} tokens. "
        f"One full pass per head is a plain transformers pass with its loss; the median of "
        f"{len(sampled)} between the blocks, {each:.2f} s for both windows "
        f"({min(sampled):.2f} to {max(sampled):.2f} for one), times {heads}.",
        "",
        *table(["", "seconds", "one full pass per head", "ratio"], rows),
        "",
        f"Largest difference of a head's cost from the naive pass: {error:.1e} nats per token.",
    ]
    publish(lines, chosen)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
