"""Pruning block by block: statistics, choice and repair of one block before the next is read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.calibration.stream import BlockStream, Hessians
from prune_core.criteria import CRITERIA, LayerStats
from prune_core.engine.activations import BlockRunner
from prune_core.models.clone import clone_shared
from prune_core.models.structure import Block, Structure
from prune_core.patterns import parse_pattern
from prune_core.ranks import weight_scores
from prune_core.recipe import Recipe
from prune_core.reconstruction.edits import Edits, pack
from prune_core.reconstruction.sparsegpt import inverse_factor, prune_together


def prune_by_block(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    recipe: Recipe,
    cuts: Mapping[str, int],
    fingerprint: str,
    *,
    gradients: Mapping[str, LayerStats] | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Edits:
    """Prune a model block after block, repairing what stays if the recipe asks for it.

    With sequential calibration a block reads what the pruned blocks before it give, as in the
    published code of Wanda (arXiv 2306.11695) and SparseGPT (arXiv 2301.00774); with dense
    calibration what the unpruned ones give.

    Args:
        model: dense; only read.
        structure: of the model.
        windows: (windows, seq_len) int64 calibration tokens.
        recipe: criterion, pattern, reconstruction and calibration mode.
        cuts: of each layer.
        fingerprint: of the result.
        gradients: statistics that are not of inputs, gathered beforehand.
        progress: told (blocks done, blocks).
        cancelled: polled between batches and layers.

    Raises:
        ModelFileError: inputs or scores that are not finite; the layer is named.
        Cancelled: by ``cancelled``.
    """
    work = clone_shared(model)
    stream = BlockStream(BlockRunner(work, structure), work, structure, windows, cancelled)
    weights: dict[str, Tensor] = {}
    bits: dict[str, Tensor] = {}
    removed: dict[str, int] = {}
    damped: list[str] = []
    for done, block in enumerate(structure.blocks):
        changed: dict[str, nn.Parameter] = {}
        if any(cuts[name] for name in block.layers):
            parts = _one_block(work, structure, stream, block, recipe, cuts, gradients)
            for name, (weight, keep, raised) in parts.items():
                layer = structure.layers[name]
                weights[name] = weight.to(layer.weight(model).dtype)
                bits[name], removed[name] = pack(keep), int((~keep).sum())
                damped += [name] if raised else []
                stored = layer.to_stored(weights[name]).to(layer.weight(model).device)
                changed[name] = nn.Parameter(stored, requires_grad=False)
        if recipe.is_sequential:
            for name, parameter in changed.items():
                work.get_submodule(name).weight = parameter
        if done + 1 < len(structure.blocks):
            stream.run(block, keep=True)
        if progress is not None:
            progress(done + 1, len(structure.blocks))
    return Edits(fingerprint, weights, bits, removed, tuple(damped))


def _one_block(
    model: nn.Module,
    structure: Structure,
    stream: BlockStream,
    block: Block,
    recipe: Recipe,
    cuts: Mapping[str, int],
    gradients: Mapping[str, LayerStats] | None,
) -> dict[str, tuple[Tensor, Tensor, bool]]:
    """New weights, masks and whether damping was raised, for the layers that lose weights."""
    repairs = recipe.reconstruction == "sparsegpt"
    own_choice = repairs and recipe.criterion == "sparsegpt"
    scores_by_hessian = "obs_diagonal" in CRITERIA[recipe.criterion].needs_for(
        recipe.criterion_args
    )
    hessians = Hessians()
    squares: dict[tuple[str, ...], Tensor] = {}

    def visit(names: tuple[str, ...], inputs: Tensor) -> None:
        norm = torch.linalg.vector_norm(inputs, dim=0).double().square()
        squares[names] = squares[names] + norm if names in squares else norm
        if repairs or scores_by_hessian:
            hessians.add(names, inputs)

    stream.see(block, visit)
    found: dict[str, tuple[Tensor, Tensor, bool]] = {}
    pattern = parse_pattern(recipe.pattern)
    for names, square in squares.items():
        chosen = [name for name in names if cuts[name]]
        if not chosen:
            continue
        layers = [structure.layers[name] for name in chosen]
        dense = [layer.weight(model).cpu() for layer in layers]
        hessian = hessians.take(names) if repairs or scores_by_hessian else None
        diagonal, raised = None, False
        if hessian is not None and scores_by_hessian and not own_choice:
            upper, _, raised = inverse_factor(hessian)
            diagonal = upper.diagonal().clone()
        masks: list[Tensor | None] = []
        for name, weight in zip(chosen, dense, strict=True):
            if own_choice:
                masks.append(None)
                continue
            before = gradients[name] if gradients is not None else LayerStats()
            stats = LayerStats(
                input_norm=square.sqrt().float().cpu(),
                obs_diagonal=diagonal,
                gradient=before.gradient,
            )
            scores = weight_scores(name, weight, recipe.criterion, recipe.criterion_args, stats)
            ranks = torch.from_numpy(pattern.rank(scores.contiguous().numpy()))
            masks.append(ranks >= cuts[name])
        if repairs and hessian is not None:
            new, keep, raised = prune_together(
                dense, hessian, pattern, [cuts[name] for name in chosen], masks
            )
        else:
            keep = [mask for mask in masks if mask is not None]
            new = [weight * mask for weight, mask in zip(dense, keep, strict=True)]
        for name, weight, mask in zip(chosen, new, keep, strict=True):
            found[name] = (weight, mask, raised)
    return found


def decides(recipe: Recipe) -> dict[str, Any]:
    """Fields of a recipe that decide edits beside the cuts and the text."""
    return {
        "criterion": recipe.criterion,
        "args": dict(recipe.criterion_args),
        "pattern": recipe.pattern,
        "reconstruction": recipe.reconstruction,
        "sequential": recipe.is_sequential,
    }
