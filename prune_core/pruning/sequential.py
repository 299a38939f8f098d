"""Pruning block by block: statistics, choice and repair of one block before the next is read."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.calibration.hessian import Hessians, inverse_factor
from prune_core.calibration.stream import BlockStream
from prune_core.criteria import CRITERIA, LayerStats
from prune_core.errors import RecipeError
from prune_core.models.clone import clone_shared
from prune_core.models.runner import BlockRunner
from prune_core.models.structure import Block, Layer, Structure
from prune_core.patterns import parse_pattern
from prune_core.progress import NONE, Progress
from prune_core.pruning.edits import Edits, pack
from prune_core.pruning.parts import LayerCut, remove_parts
from prune_core.pruning.ranks import weight_scores
from prune_core.recipes.recipe import RECONSTRUCTIONS, Recipe


def prune_by_block(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    recipe: Recipe,
    cuts: Mapping[str, int],
    fingerprint: str,
    *,
    parts: Mapping[str, LayerCut] | None = None,
    dropped_blocks: Collection[int] = (),
    gradients: Mapping[str, LayerStats] | None = None,
    progress: Progress = NONE,
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
        cuts: of each layer, among what ``parts`` leave of it.
        fingerprint: of the result.
        parts: what structure takes of layers: it goes first, and blocks are read without it.
        dropped_blocks: blocks that pass on what they are given.
        gradients: statistics that are not of inputs, gathered beforehand.
        progress: (blocks done, blocks); a cancel is seen between batches and layers.

    Raises:
        RecipeError: dropped parts run through groups or squares of the pattern.
        ModelFileError: inputs or scores that are not finite; the layer is named.
        Cancelled: by ``progress``.
    """
    parts = parts or {}
    _check_groups(structure, recipe, cuts, parts)
    work = clone_shared(model)
    _remove_structure(work, structure, parts)
    runner = BlockRunner(work, structure)
    runner.skipped = frozenset(dropped_blocks)
    stream = BlockStream(runner, work, structure, windows, progress)
    weights: dict[str, Tensor] = {}
    bits: dict[str, Tensor] = {}
    removed: dict[str, int] = {}
    damped: list[str] = []
    for done, block in enumerate(structure.blocks):
        changed: dict[str, nn.Parameter] = {}
        if any(cuts[name] for name in block.layers):
            results = _one_block(work, structure, stream, block, recipe, cuts, parts, gradients)
            for name, (weight, keep, raised) in results.items():
                layer, part_cut = structure.layers[name], parts.get(name, LayerCut())
                removed[name] = int((~keep).sum())
                weights[name] = _full_size(weight, layer, part_cut).to(layer.weight(model).dtype)
                bits[name] = pack(_full_size(keep, layer, part_cut))
                damped += [name] if raised else []
                stored = layer.to_stored(weights[name]).to(layer.weight(model).device)
                changed[name] = nn.Parameter(stored, requires_grad=False)
        if recipe.is_sequential:
            for name, parameter in changed.items():
                work.get_submodule(name).weight = parameter
        if done + 1 < len(structure.blocks):
            stream.run(block, keep=True)
        progress.step(done + 1, len(structure.blocks))
    return Edits(fingerprint, weights, bits, removed, tuple(damped))


def _one_block(
    model: nn.Module,
    structure: Structure,
    stream: BlockStream,
    block: Block,
    recipe: Recipe,
    cuts: Mapping[str, int],
    parts: Mapping[str, LayerCut],
    gradients: Mapping[str, LayerStats] | None,
) -> dict[str, tuple[Tensor, Tensor, bool]]:
    """New weights, masks and whether damping was raised, for the layers that lose weights.

    Both are of what structure leaves of a layer.
    """
    repair = RECONSTRUCTIONS[recipe.reconstruction]
    own_choice = repair.criterion == recipe.criterion
    scores_by_hessian = "obs_diagonal" in CRITERIA[recipe.criterion].needs_for(
        recipe.criterion_args
    )
    reads_hessian = "hessian" in repair.needs or scores_by_hessian
    hessians = Hessians()
    squares: dict[tuple[str, ...], Tensor] = {}

    def visit(names: tuple[str, ...], inputs: Tensor) -> None:
        norm = torch.linalg.vector_norm(inputs, dim=0).double().square()
        squares[names] = squares[names] + norm if names in squares else norm
        if reads_hessian:
            hessians.add(names, inputs)

    stream.see(block, visit)
    results: dict[str, tuple[Tensor, Tensor, bool]] = {}
    pattern = parse_pattern(recipe.pattern)
    for names, square in squares.items():
        cut_names = [name for name in names if cuts[name]]
        if not cut_names:
            continue
        layers = [structure.layers[name] for name in cut_names]
        part_cuts = [parts.get(name, LayerCut()) for name in cut_names]
        # layers that read one tensor have the same columns: only o and down lose some, read alone
        columns = _index_of_rest(layers[0].in_features, part_cuts[0].columns)
        dense = [
            layer.weight(model).cpu()[_index_of_rest(layer.out_features, cut.rows)][:, columns]
            for layer, cut in zip(layers, part_cuts, strict=True)
        ]
        hessian = None
        if reads_hessian:
            hessian = hessians.take(names)[columns][:, columns]
        diagonal, raised = None, False
        if hessian is not None and scores_by_hessian and not own_choice:
            upper, _, raised = inverse_factor(hessian)
            diagonal = upper.diagonal().clone()
        masks: list[Tensor | None] = []
        for name, weight, cut in zip(cut_names, dense, part_cuts, strict=True):
            if own_choice:
                masks.append(None)
                continue
            before = gradients[name] if gradients is not None else LayerStats()
            gradient = before.gradient
            if gradient is not None and cut.structural:
                gradient = gradient[_index_of_rest(gradient.shape[0], cut.rows)][:, columns]
            stats = LayerStats(
                input_norm=square.sqrt().float().cpu()[columns],
                obs_diagonal=diagonal,
                gradient=gradient,
            )
            scores = weight_scores(name, weight, recipe.criterion, recipe.criterion_args, stats)
            ranks = torch.from_numpy(pattern.rank(scores.contiguous().numpy()))
            masks.append(ranks >= cuts[name])
        limits = [cuts[name] for name in cut_names]
        new, keep, again = repair.fn(dense, hessian, pattern, limits, masks)
        for name, weight, mask in zip(cut_names, new, keep, strict=True):
            results[name] = (weight, mask, again if repair.needs else raised)
    return results


def _index_of_rest(size: int, dropped: Sequence[int]) -> Tensor | slice:
    """Index of what stays along one side; a slice, so no copy, where all of it does."""
    if not dropped:
        return slice(None)
    mask = torch.ones(size, dtype=torch.bool)
    mask[list(dropped)] = False
    return mask


def _full_size(values: Tensor, layer: Layer, part_cut: LayerCut) -> Tensor:
    """What is left of a layer, back in its place; 0 or False where structure took it."""
    if not part_cut.structural:
        return values
    whole = values.new_zeros(layer.out_features, layer.in_features)
    rows = torch.ones(layer.out_features, dtype=torch.bool)
    rows[list(part_cut.rows)] = False
    columns = torch.ones(layer.in_features, dtype=torch.bool)
    columns[list(part_cut.columns)] = False
    whole[rows[:, None] & columns] = values.reshape(-1)
    return whole


def _remove_structure(work: nn.Module, structure: Structure, parts: Mapping[str, LayerCut]) -> None:
    """Structure goes first: the clone's own weights in place of those it shares."""
    for name, cut in parts.items():
        layer, module = structure.layers[name], work.get_submodule(name)
        weight = layer.stored_weight(work).clone()
        remove_parts(layer.from_stored(weight), cut)
        module.weight = nn.Parameter(weight, requires_grad=False)
        if cut.whole and isinstance(module.bias, nn.Parameter):
            module.bias = nn.Parameter(torch.zeros_like(module.bias), requires_grad=False)


def _check_groups(
    structure: Structure, recipe: Recipe, cuts: Mapping[str, int], parts: Mapping[str, LayerCut]
) -> None:
    pattern = parse_pattern(recipe.pattern)
    for name, cut in parts.items():
        layer = structure.layers[name]
        if not cuts[name]:
            continue
        width = pattern.group[1]
        sides = zip(cut.dropped, pattern.group, strict=True)
        if any(not _in_whole_groups(dropped, size) for dropped, size in sides):
            raise RecipeError(
                "dropped parts run through the groups of {pattern} in block {block}; with a "
                "reconstruction or sequential calibration drop them in runs of {width}.",
                pattern=recipe.pattern,
                block=layer.block,
                width=width,
            )


def _in_whole_groups(dropped: Sequence[int], size: int) -> bool:
    indices = set(dropped)
    return all(indices.issuperset(range(i - i % size, i - i % size + size)) for i in dropped)


def decides(recipe: Recipe) -> dict[str, Any]:
    """Fields of a recipe that decide edits beside the cuts and the text."""
    return {
        "criterion": recipe.criterion,
        "args": dict(recipe.criterion_args),
        "pattern": recipe.pattern,
        "reconstruction": recipe.reconstruction,
        "sequential": recipe.is_sequential,
    }
