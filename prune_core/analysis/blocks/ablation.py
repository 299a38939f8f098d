"""What each block costs: the loss without it, exactly, with the outputs before it known.

Removed block by block, or half by half: without its attention (its output projection gives zero)
or without its MLP, as a recipe's ``drop_attention`` and ``drop_mlp``. Blocks before the removed
one answer from one dense pass over the window; those after it are computed.

A classifier's loss is that of the class which the dense model gives the window: no text has labels
here. An encoder without either head has no loss: there 1 - cosine of its sentence embedding and the
dense model's stands for it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from prune_core.errors import ModelFileError, RecipeError
from prune_core.evaluation.estimate import estimate
from prune_core.evaluation.scoring import (
    class_log_probabilities,
    sentence_embedding,
    token_losses,
)
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.models.structure import Block, Structure
from prune_core.progress import NONE, Progress

PARTS = ("block", "attention", "mlp")

Values = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class WindowAnswer:
    """A window's answer with some blocks removed, and every block's output on the way.

    Attributes:
        tokens: (1, seq).
        answer: (predictions,) losses, (classes,) log-probabilities or (hidden,) an embedding.
        outputs: by flat index.
    """

    tokens: Tensor
    answer: Tensor
    outputs: list[Any]


class Ablator:
    """Runs a clone of the dense model without some of its parts.

    Args:
        handle: of the model; it is not changed.
        progress: a cancel is seen between blocks.
    """

    def __init__(self, handle: ModelHandle, progress: Progress = NONE) -> None:
        self.structure = handle.structure
        self.language = handle.info.has_language_head
        self.model = clone_shared(handle.model)
        self.runner = BlockRunner(self.model, self.structure)
        self.progress = progress
        self._device = next(self.model.parameters()).device

    def run(
        self,
        window: Tensor,
        removed: Sequence[int] = (),
        before: WindowAnswer | None = None,
        leading: int = 0,
    ) -> WindowAnswer:
        """The answer to a window without some blocks, which are not computed.

        Args:
            window: (seq,).
            removed: flat indices.
            before: an earlier answer to the same window; needed where blocks are removed.
            leading: so many leading blocks answer as they did in ``before``.

        Raises:
            Cancelled: between blocks.
        """
        tokens, record = window[None].to(self._device), list[Any]()
        outputs = before.outputs if before is not None else []
        self.runner.bypassed = {index: outputs[index] for index in removed}
        with self.runner.session(leading=outputs[:leading], record=record, progress=self.progress):
            return WindowAnswer(tokens, self.answer(tokens), record)

    def without(self, name: str, window: Tensor, dense: WindowAnswer, block: int) -> Tensor:
        """The answer to a window with the output of one layer set to zero.

        Args:
            name: of the layer.
            window: (seq,).
            dense: the dense answer.
            block: the layer's.

        Raises:
            Cancelled: between blocks.
        """
        self.runner.bypassed = {}
        with (
            _output_zeroed(self.model, name),
            self.runner.session(leading=dense.outputs[:block], progress=self.progress),
        ):
            return self.answer(dense.tokens)

    @torch.inference_mode()
    def answer(self, tokens: Tensor) -> Tensor:
        """Losses, classes or embedding of (1, seq) tokens, under what is open around the call."""
        if self.language:
            return token_losses(self.model, self.structure, tokens)
        if self.structure.classes:
            return class_log_probabilities(self.model, tokens).cpu()
        return sentence_embedding(self.model, tokens).cpu()

    @property
    def metric(self) -> str:
        """What costs are counted in: ``loss``, ``classes`` (both nats) or ``distance``."""
        if self.language:
            return "loss"
        return "classes" if self.structure.classes else "distance"

    def losses(self, answer: Tensor, dense: Tensor) -> Tensor | None:
        """(predictions,) nats of each token, or (1,) of the dense model's class; else None."""
        if self.language:
            return answer
        return -answer[dense.argmax()][None] if self.structure.classes else None

    def cost(self, answer: Tensor, dense: Tensor) -> Values:
        """What an answer lost against the dense one.

        Returns:
            Change of :meth:`losses`, or (1,) one minus the cosine.

        Raises:
            ModelFileError: it is not finite.
        """
        mine, theirs = self.losses(answer, dense), self.losses(dense, dense)
        if mine is not None and theirs is not None:
            change = (mine.double() - theirs.double()).float().numpy()
        else:
            cosine = torch.cosine_similarity(answer.double(), dense.double(), dim=0)
            change = np.array([1 - float(cosine)], dtype=np.float32)
        if not np.isfinite(change).all():
            raise ModelFileError("Without a part the model gives values that are not finite.")
        return change


@contextmanager
def _output_zeroed(model: nn.Module, name: str) -> Iterator[None]:
    hook = model.get_submodule(name).register_forward_hook(lambda *a: torch.zeros_like(a[2]))
    try:
        yield
    finally:
        hook.remove()


def writer(structure: Structure, block: Block, part: str) -> str | None:
    """The layer through which a half of a block writes; None where the block lacks that half."""
    role = {"attention": "attn.o", "mlp": "mlp.down"}[part]
    return next((n for n in block.layers if structure.layers[n].role == role), None)


class Clock:
    """Progress in units of work, and the seconds left at the pace so far."""

    def __init__(self, total: float, done: float = 0.0) -> None:
        self.total, self.done, self._first = total, done, done
        self._started = time.perf_counter()

    def step(self, work: float) -> None:
        """So much more is done."""
        self.done += work

    def state(self) -> dict[str, float | None]:
        """``done``, ``total`` and ``seconds_left`` (None before anything is done)."""
        fresh = self.done - self._first
        elapsed = time.perf_counter() - self._started
        seconds_left = elapsed / fresh * (self.total - self.done) if fresh > 0 else None
        return {"done": self.done, "total": self.total, "seconds_left": seconds_left}


def block_costs(
    handle: ModelHandle,
    windows: Sequence[Tensor],
    parts: Sequence[str],
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Loss without each block, or without a half of it, minus the dense loss; signed.

    Window after window: every block has a first number early, and it settles.

    Args:
        handle: of the model.
        windows: (seq,) each.
        parts: of :data:`PARTS`.
        progress: an event after each part, see ``prune_core.jobs.blocks.BlockAblation``; a cancel
            is seen between blocks.

    Returns:
        The last event.

    Raises:
        RecipeError: an unknown part.
        ModelFileError: answers that are not finite.
        Cancelled: by ``progress``.
    """
    if not parts or set(parts) - set(PARTS):
        raise RecipeError(
            "a block is removed by {known:list}, got {parts!r}.",
            known=PARTS,
            parts=", ".join(parts),
        )
    structure = handle.structure
    costs: dict[str, list[list[Values]]] = {p: [[] for _ in structure.blocks] for p in parts}
    dense: list[Values] = []
    done, count = 0, len(structure.blocks)
    # a block's cost is that of the blocks after it; with the head as much as one block more
    work = sum(1 + count - b for b in range(count)) * len(parts) + count + 1
    clock = Clock(work * len(windows))
    ablator = Ablator(handle, progress)

    def state() -> dict[str, Any]:
        return {
            "stage": "ablation",
            "metric": ablator.metric,
            "window": done,
            "windows": len(windows),
            **clock.state(),
            **{part: _summary(rows) for part, rows in costs.items()},
            "nll_dense": estimate(dense).mean if dense else None,
        }

    for window in windows:
        done += 1
        base = ablator.run(window)
        losses = ablator.losses(base.answer, base.answer)
        if losses is not None:
            dense.append(losses.float().numpy())
        clock.step(count + 1)
        for block in structure.blocks:
            for part in parts:
                answer = _answer_without(ablator, window, base, block, part)
                if answer is not None:
                    costs[part][block.index].append(ablator.cost(answer, base.answer))
                clock.step(1 + count - block.index)
                progress.tell(state())
    return state()


def _answer_without(
    ablator: Ablator, window: Tensor, base: WindowAnswer, block: Block, part: str
) -> Tensor | None:
    if part == "block":
        return ablator.run(window, [block.index], base, block.index).answer
    name = writer(ablator.structure, block, part)
    return ablator.without(name, window, base, block.index) if name is not None else None


def _summary(rows: Sequence[Sequence[Values]]) -> dict[str, list[float | None]]:
    estimates = [estimate(list(row)) if row else None for row in rows]
    return {
        "mean": [e.mean if e is not None else None for e in estimates],
        "stderr": [e.stderr if e is not None else None for e in estimates],
    }


def layer_costs(
    handle: ModelHandle,
    windows: Sequence[Tensor],
    progress: Progress = NONE,
) -> dict[str, Any]:
    """Loss with the output of each single layer set to zero, minus the dense loss; signed.

    Returns:
        ``mean`` and ``stderr`` by layer, in forward order; see ``jobs.LayerImportance``.

    Raises:
        ModelFileError, Cancelled: see :func:`block_costs`.
    """
    structure = handle.structure
    count = len(structure.blocks)
    costs: dict[str, list[Values]] = {name: [] for name in structure.layers}
    work = sum(1 + count - layer.block for layer in structure.layers.values()) + count + 1
    clock = Clock(work * len(windows))
    ablator = Ablator(handle, progress)
    for window in windows:
        base = ablator.run(window)
        clock.step(count + 1)
        for name, layer in structure.layers.items():
            answer = ablator.without(name, window, base, layer.block)
            costs[name].append(ablator.cost(answer, base.answer))
            clock.step(1 + count - layer.block)
            progress.tell({"stage": "ablation", **clock.state()})
    return _summary(list(costs.values()))
