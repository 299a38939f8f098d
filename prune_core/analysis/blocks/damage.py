"""What pruning does to each block: to what it hands on, and to the loss when it alone is pruned.

**Own** damage of block b: mean over tokens of 1 - cos(y_b, y'_b), where y_b is the block's output
in the dense model and y'_b what the pruned block gives for the *dense* model's input: nothing that
happened before it counts. **Accumulated**: the same with y'_b from the fully pruned model, so that
all earlier blocks count too. Outputs are those of the residual stream, as in block influence
(ShortGPT, arXiv 2403.03853).

**Loss increase** of block b: mean loss with block b pruned as the recipe says and all others dense,
minus the dense loss, on the same tokens, in nats per token.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.errors import ModelFileError
from prune_core.evaluation.estimate import estimate
from prune_core.evaluation.scoring import bare_head, run_window, token_losses
from prune_core.models.runner import BlockRunner
from prune_core.models.structure import Block, Structure
from prune_core.progress import NONE, Progress
from prune_core.pruning.plan import CutPlan
from prune_core.pruning.working_copy import DENSE, WorkingCopy

ByBlock = dict[str, list[Any]]


def output_damage(
    dense: nn.Module,
    dense_runner: BlockRunner,
    copy: WorkingCopy,
    windows: Sequence[Tensor],
    *,
    progress: Progress = NONE,
) -> dict[str, ByBlock]:
    """Own and accumulated damage of every block; three passes per window, without the head.

    Args:
        dense: the dense model's clone that ``dense_runner`` runs.
        dense_runner: runs it block by block.
        copy: at the recipe.
        windows: (seq,) each.
        progress: (passes done, passes); a cancel is seen between blocks.

    Returns:
        ``own`` and ``accumulated``: each ``mean`` and ``stderr`` by block.

    Raises:
        Cancelled: by ``progress``.
        ModelFileError: outputs that are not finite.
    """
    own: list[list[float]] = []
    accumulated: list[list[float]] = []
    for number, window in enumerate(windows):
        tokens = window[None].to(next(dense.parameters()).device)
        outputs: list[Any] = []
        with dense_runner.session(record=outputs, progress=progress):
            _run(dense, copy.structure, tokens)
        for place, (rows, handed_on) in enumerate(((own, outputs), (accumulated, None))):
            copy_outputs: list[Any] = []
            with copy.runner.session(record=copy_outputs, handed_on=handed_on, progress=progress):
                _run(copy.model, copy.structure, tokens)
            rows.append(
                [_cosine_distance(a, b) for a, b in zip(outputs, copy_outputs, strict=True)]
            )
            progress.step(2 * number + place + 1, 2 * len(windows))
    return {"own": _by_block(own), "accumulated": _by_block(accumulated)}


def loss_damage(
    dense: nn.Module,
    dense_runner: BlockRunner,
    copy: WorkingCopy,
    plan: CutPlan,
    windows: Sequence[Tensor],
    *,
    progress: Progress = NONE,
) -> ByBlock:
    """Loss increase of every block pruned alone.

    The blocks before it answer from the dense pass. The copy is left with the last block pruned.

    Args:
        dense: the dense model's clone that ``dense_runner`` runs.
        dense_runner: runs it block by block.
        copy: any state.
        plan: the recipe worked out.
        windows: (seq,) each.
        progress: (blocks done, blocks), over all windows; a cancel is seen between blocks.

    Returns:
        ``mean`` and ``stderr`` by block, nats per token; error over windows, or over parts of 32
        tokens while there is one window.

    Raises:
        Cancelled: by ``progress``.
    """
    blocks = copy.structure.blocks
    device = next(dense.parameters()).device
    references: list[tuple[Tensor, Tensor, list[Any]]] = []
    for window in windows:
        tokens = window[None].to(device)
        outputs: list[Any] = []
        with dense_runner.session(record=outputs, progress=progress):
            references.append((tokens, token_losses(dense, copy.structure, tokens), outputs))
    mean, stderr = [], []
    for block in blocks:
        alone = _plan_of_block(plan, block)
        changes = [np.zeros(len(losses), np.float32) for _, losses, _ in references]
        if alone is not None:
            copy.apply(alone, progress)
            for place, (tokens, losses, outputs) in enumerate(references):
                before = outputs[: block.index]
                with copy.runner.session(leading=before, progress=progress):
                    pruned = token_losses(copy.model, copy.structure, tokens)
                changes[place] = (pruned - losses).numpy()
        summary = estimate(changes)
        mean.append(summary.mean)
        stderr.append(summary.stderr)
        progress.step(block.index + 1, len(blocks))
    return {"mean": mean, "stderr": stderr}


def _plan_of_block(plan: CutPlan, block: Block) -> CutPlan | None:
    """The plan with every other block dense; None where it leaves this one as it is."""
    dropped = tuple(b for b in plan.dropped_blocks if b == block.index)
    if not dropped and not any(plan.cuts[name].touched for name in block.layers):
        return None
    mine = set(block.layers)
    cuts = {name: cut if name in mine else DENSE for name, cut in plan.cuts.items()}
    return replace(plan, cuts=cuts, dropped_blocks=dropped)


@torch.inference_mode()
def _run(model: nn.Module, structure: Structure, tokens: Tensor) -> None:
    if structure.kind == "encoder":  # it may have no head, so no logits either
        model(input_ids=tokens)
        return
    with bare_head(model, structure):
        run_window(model, structure, tokens)


def _cosine_distance(dense: Any, pruned: Any) -> float:
    """1 - mean cosine of two blocks' outputs."""
    both = (x if isinstance(x, Tensor) else x[0] for x in (dense, pruned))
    first, second = (x.cpu().double() for x in both)  # MPS has no float64
    return 1 - float(torch.cosine_similarity(first, second, dim=-1).mean())


def _by_block(windows: list[list[float]]) -> ByBlock:
    values = np.asarray(windows)  # windows x blocks
    if not np.isfinite(values).all():
        bad = int(np.nonzero(~np.isfinite(values).all(axis=0))[0][0])
        raise ModelFileError(
            "Block {block} gives values that are not finite on this text.", block=bad
        )
    count = len(values)
    errors = values.std(axis=0, ddof=1) / count**0.5 if count > 1 else [None] * values.shape[1]
    means = [max(0.0, float(x)) for x in values.mean(axis=0)]  # rounding can fall below 0
    return {"mean": means, "stderr": [None if e is None else float(e) for e in errors]}
