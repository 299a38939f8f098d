"""Greedy removal: one block at a time, the one whose removal costs least, scored again each time.

The blocks that are gone are not computed, those before a candidate answer as they did without it.
A path found is kept with the model, so that more steps, or a run that was stopped, go on from it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from prune_core.analysis.blocks.ablation import Ablator, Clock, Values, WindowAnswer
from prune_core.analysis.selection import most_removable, removable
from prune_core.errors import RecipeError
from prune_core.evaluation.estimate import Z95, estimate, safe_exp
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import output_bytes
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress

KEPT_BYTES = 512_000_000
"""Dense outputs kept from step to step; where they would take more they are computed again."""


@dataclass(frozen=True, slots=True)
class Step:
    """One removal.

    Attributes:
        block: that went.
        costs: what each candidate would have cost against the dense model, None for the others.
        changes: of each window, of the one that went.
    """

    block: int
    costs: tuple[float | None, ...]
    changes: tuple[Values, ...]


def candidates(structure: Structure, *, ends: bool) -> list[int]:
    """Blocks that may go: all of them but one of each stack, or those between the ends.

    Raises:
        RecipeError: there is none.
    """
    stacks = removable([block.stack for block in structure.blocks], ends=ends)
    indices = [index for blocks in stacks for index in blocks]
    if indices:
        return indices
    count = len(structure.blocks)
    if not count:
        raise RecipeError("This model has no blocks.")
    if count == 1 or ends:
        raise RecipeError("This model has one block only, and one must stay; none can be removed.")
    raise RecipeError(
        "This model has {count} blocks and the first and the last stay, so none can be removed; "
        "allow the first and the last to go.",
        count=count,
    )


def greedy_path(
    handle: ModelHandle,
    windows: Sequence[Tensor],
    steps: int,
    progress: Progress = NONE,
    *,
    ends: bool = False,
    path: list[Step] | None = None,
) -> dict[str, Any]:
    """Remove blocks one at a time, the cheapest first.

    Args:
        handle: of the model.
        windows: (seq,) each; their answers stay in memory while a step is found.
        steps: how many blocks go.
        progress: an event after each candidate, see ``prune_core.jobs.blocks.GreedyBlocks``; a
            cancel is seen between blocks.
        ends: the first and the last block of a stack may go too; one of each stack stays.
        path: steps found earlier on the same windows; new ones are added to it.

    Returns:
        The last event.

    Raises:
        RecipeError: steps out of range, or no block may go.
        ModelFileError: answers that are not finite.
        Cancelled: by ``progress``.
    """
    structure = handle.structure
    open_blocks = candidates(structure, ends=ends)
    stacks = {structure.blocks[b].stack for b in open_blocks}
    most = most_removable([block.stack for block in structure.blocks], ends=ends)
    if not 1 <= steps <= most:
        raise RecipeError(
            "between 1 and {most} blocks can be removed one by one, got {steps}.",
            most=most,
            steps=steps,
        )
    path = path if path is not None else []
    search = _Search(handle, windows, steps, progress, path)
    while len(path) < steps:
        removed = {step.block for step in path}
        choices = [b for b in open_blocks if b not in removed]
        if ends:  # a stack keeps its last block
            alive = {s: sum(structure.blocks[b].stack == s for b in choices) for s in stacks}
            choices = [b for b in choices if alive[structure.blocks[b].stack] > 1]
        path.append(search.step(choices))
        progress.tell(search.state())
    return search.state()


class _Search:
    def __init__(
        self,
        handle: ModelHandle,
        windows: Sequence[Tensor],
        steps: int,
        progress: Progress,
        path: list[Step],
    ) -> None:
        self.ablator, self.windows = Ablator(handle, progress), windows
        self.count, self.steps = len(handle.structure.blocks), steps
        self.progress, self.path = progress, path
        self.dense = [self.ablator.run(window) for window in windows]
        if sum(output_bytes(d.outputs) for d in self.dense) > KEPT_BYTES:
            self.dense = [WindowAnswer(d.tokens, d.answer, []) for d in self.dense]
        self.trying: list[float | None] = []
        half = self.count * self.count / 2 + self.count
        finished_steps = min(len(path), steps)
        self.clock = Clock(steps * len(windows) * half, finished_steps * len(windows) * half)

    def step(self, choices: Sequence[int]) -> Step:
        """The cheapest of the candidates ``choices``; ties fall to the first."""
        removed_blocks = [step.block for step in self.path]
        changes: dict[int, list[Values]] = {block: [] for block in choices}
        self.trying = [None] * self.count
        share = self.count * self.count / 2 + self.count
        work = {
            b: float(sum(i not in removed_blocks for i in range(b + 1, self.count)) + 1)
            for b in choices
        }
        scale = share / sum(work.values())
        for window, dense in zip(self.windows, self.dense, strict=True):
            base = dense if dense.outputs else self.ablator.run(window)
            if removed_blocks:
                base = self.ablator.run(window, removed_blocks, base, min(removed_blocks))
            for block in choices:
                removed = [*removed_blocks, block]
                answer = self.ablator.run(window, removed, base, block).answer
                changes[block].append(self.ablator.cost(answer, dense.answer))
                self.trying[block] = estimate(changes[block]).mean
                self.clock.step(work[block] * scale)
                self.progress.tell(self.state())
        costs = {block: estimate(changes[block]).mean for block in choices}
        best = min(choices, key=lambda block: (costs[block], block))
        return Step(best, tuple(self.trying), tuple(changes[best]))

    def state(self) -> dict[str, Any]:
        """The event at this moment."""
        level = self._dense_loss()
        return {
            "stage": "greedy",
            "metric": "perplexity" if self.ablator.language else self.ablator.metric,
            **self.clock.state(),
            "step": min(len(self.path), self.steps),  # more may be known from before
            "steps": self.steps,
            "path": [self._step_numbers(n, level) for n in range(len(self.path[: self.steps]))],
            "trying": list(self.trying) if len(self.path) < self.steps else [],
            "dense": safe_exp(level) if self.ablator.language else level,
        }

    def _dense_loss(self) -> float:
        """Mean loss of the dense model; 0 where there is none."""
        losses = [self.ablator.losses(d.answer, d.answer) for d in self.dense]
        window_losses = [row.float().numpy() for row in losses if row is not None]
        return estimate(window_losses).mean if window_losses else 0.0

    def _step_numbers(self, number: int, level: float) -> dict[str, Any]:
        step = self.path[number]
        change = estimate([np.asarray(c) for c in step.changes])
        show = safe_exp if self.ablator.language else float
        error = change.stderr
        return {
            "block": step.block,
            "blocks": sorted(s.block for s in self.path[: number + 1]),
            "value": show(level + change.mean),
            "low": None if error is None else show(level + change.mean - Z95 * error),
            "high": None if error is None else show(level + change.mean + Z95 * error),
            "delta": change.mean,
            "delta_stderr": error,
            "costs": list(step.costs),
        }
