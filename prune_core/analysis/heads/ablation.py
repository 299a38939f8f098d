"""What each head costs: the loss without it, exactly and signed, with the blocks before it known.

A head is silenced where heads lie side by side, on the input of the output projection: its columns
are zero there. Blocks before it answer from one dense pass; the heads of one block are silenced in
one batch where the model is a decoder, each in a row of its own, so that weights are read once.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.analysis.blocks.ablation import Ablator, Clock, Values, WindowAnswer
from prune_core.analysis.heads.scores import Site, all_sites
from prune_core.evaluation.estimate import estimate
from prune_core.evaluation.nearby import Nearby
from prune_core.evaluation.scoring import SLICE, bare_head
from prune_core.models.handle import ModelHandle
from prune_core.models.structure import Attention
from prune_core.progress import NONE, Progress

ROWS = 1024
"""Tokens that go through a block together at most: more no longer fit the cache."""


def head_costs(
    handle: ModelHandle,
    windows: Sequence[Tensor],
    progress: Progress = NONE,
    *,
    groups: bool = False,
) -> dict[str, Any]:
    """Loss without each head minus the dense loss; see ``block_ablation`` for encoders.

    Window after window, so that every head has a number early and it settles; the last blocks
    first, which are the cheapest.

    Args:
        handle: of the model.
        windows: (seq,) each.
        progress: an event after each block: ``done``, ``total``, ``seconds_left``, ``mean`` and
            ``stderr`` so far; a cancel is seen between blocks.
        groups: key/value groups in place of single query heads.

    Returns:
        ``mean`` and ``stderr``: one row for each site of ``analysis.heads.all_sites``, for each
        head or group nats per token (of the dense model's class, or 1 - cosine: see ``metric``),
        None where nothing is known yet.

    Raises:
        RecipeError: no attention.
        ModelFileError: answers that are not finite.
        Cancelled: by ``progress``.
    """
    sites = all_sites(handle.structure)
    sizes = [len(_parts(attention, groups)) for _, attention in sites]
    costs: list[list[list[Values]]] = [[[] for _ in range(size)] for size in sizes]
    count = len(handle.structure.blocks)
    work = sum(
        size * (1 + count - block.index) for size, (block, _) in zip(sizes, sites, strict=True)
    )
    clock = Clock((work + count + 1) * len(windows))
    ablator = Ablator(handle, progress)
    batched = ablator.language and handle.structure.kind == "decoder"
    done = 0

    def state() -> dict[str, Any]:
        return {
            "stage": "ablation",
            "metric": ablator.metric,
            "window": done,
            "windows": len(windows),
            **clock.state(),
            **_summary(costs),
        }

    for window in windows:
        base = ablator.run(window)
        nearby = _nearby(ablator, base) if batched else None
        # both sides of a difference summed in the same way: cross_entropy's float32 sum over
        # 49,152 words is off by 2e-5
        dense = base.answer if nearby is None else nearby.losses_of(nearby.hidden[None])[0].cpu()
        clock.step(count + 1)
        for place in sorted(range(len(sites)), key=lambda place: -sites[place][0].index):
            parts = _parts(sites[place][1], groups)
            step = max(1, ROWS // len(window)) if batched else 1
            for start in range(0, len(parts), step):
                batch = parts[start : start + step]
                answers = _answers_without_heads(ablator, base, nearby, sites[place], batch)
                for offset, answer in enumerate(answers):
                    costs[place][start + offset].append(ablator.cost(answer, dense))
                clock.step(len(batch) * (1 + count - sites[place][0].index))
            progress.tell(state())
        done += 1
    return state()


def _parts(attention: Attention, groups: bool) -> list[tuple[int, ...]]:
    """Heads that go together."""
    if not groups:
        return [(head,) for head in range(attention.num_heads)]
    size = attention.group_size
    return [tuple(range(g * size, (g + 1) * size)) for g in range(attention.num_kv_heads)]


def _answers_without_heads(
    ablator: Ablator,
    base: WindowAnswer,
    nearby: Nearby | None,
    site: Site,
    parts: Sequence[tuple[int, ...]],
) -> list[Tensor]:
    """The answers to a window, one for each part that is silent."""
    block, attention = site
    ablator.runner.bypassed = {}
    with (
        _gate(ablator.model, attention, parts),
        ablator.runner.session(leading=base.outputs[: block.index], progress=ablator.progress),
    ):
        if ablator.language and ablator.structure.kind == "decoder":
            return _losses(ablator, base.tokens, nearby)
        return [ablator.answer(base.tokens)]  # one part at a time


@torch.inference_mode()
def _nearby(ablator: Ablator, base: WindowAnswer) -> Nearby | None:
    """What makes losses near the dense ones cheap; None where the head is not a plain one."""
    ablator.runner.bypassed = {}
    with (
        bare_head(ablator.model, ablator.structure) as head,
        ablator.runner.session(leading=base.outputs),
    ):
        hidden = _predictions_of(ablator.model, base.tokens)[0]
    if head is None or hidden.dtype != torch.float32:
        return None
    return Nearby(hidden, head, base.tokens[0, 1:], base.answer)


def _predictions_of(model: Any, tokens: Tensor) -> Tensor:
    """(rows, predictions, vocab or hidden) of (1, seq) tokens, under what is open around it."""
    values: Tensor = model(input_ids=tokens, use_cache=False).logits[:, :-1]
    return values


@contextmanager
def _gate(
    model: nn.Module, attention: Attention, parts: Sequence[tuple[int, ...]]
) -> Iterator[None]:
    """While open, row i of the batch lacks the heads of ``parts[i]``.

    The batch begins here: what the output projection is given is the same for all rows, and so
    computed once. What follows takes the rows of its input as they come.
    """

    def hook(_module: nn.Module, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        inputs = args[0].repeat(len(parts), *([1] * (args[0].dim() - 1)))
        for row, heads in enumerate(parts):
            for head in heads:
                inputs[row, ..., attention.columns(head)] = 0
        return (inputs, *args[1:])

    handle = model.get_submodule(attention.o).register_forward_pre_hook(hook)
    try:
        yield
    finally:
        handle.remove()


@torch.inference_mode()
def _losses(ablator: Ablator, tokens: Tensor, nearby: Nearby | None) -> list[Tensor]:
    """Loss of each prediction of each row, (predictions,) nats on the CPU; decoders only.

    Args:
        ablator: with a gate that makes the rows.
        tokens: (1, seq).
        nearby: of the dense answer.
    """
    with bare_head(ablator.model, ablator.structure) as head:
        values = _predictions_of(ablator.model, tokens)
    if nearby is not None:
        losses = nearby.losses_of(values)
    else:
        rows, targets = values.flatten(0, 1), tokens[0, 1:].repeat(len(values))
        parts = zip(rows.split(SLICE), targets.split(SLICE), strict=True)
        losses = torch.cat([_plain(part, head, target) for part, target in parts])
    return list(losses.view(len(values), -1).cpu())


def _plain(values: Tensor, head: nn.Module | None, targets: Tensor) -> Tensor:
    logits = values if head is None else head(values)
    return F.cross_entropy(logits.float(), targets, reduction="none")


def _summary(costs: Sequence[Sequence[Sequence[Values]]]) -> dict[str, Any]:
    rows = [[estimate(list(head)) if head else None for head in row] for row in costs]
    return {
        "mean": [[None if e is None else e.mean for e in row] for row in rows],
        "stderr": [[None if e is None else e.stderr for e in row] for row in rows],
    }
