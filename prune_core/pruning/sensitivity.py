"""How much the loss rises when one block alone is pruned, measured on the calibration text."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from prune_core.allocation.sensitivity import Increases
from prune_core.calibration.statistics import Statistics
from prune_core.disk_cache import DiskCache, key_of
from prune_core.errors import RecipeError
from prune_core.evaluation.loss import mean_loss
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.patterns import parse_pattern
from prune_core.progress import NONE, Progress
from prune_core.pruning.ranks import RankStore
from prune_core.recipes.recipe import Recipe

SPARSITIES = (0.4, 0.6, 0.8)
CACHE = DiskCache("sensitivity", 1, 50_000_000)
TOKENS = 1024
"""Of the calibration text: enough for a paired difference, few enough for a minute."""


def block_increases(
    store: RankStore,
    handle: ModelHandle,
    recipe: Recipe,
    windows: Tensor,
    statistics: Statistics | None,
    *,
    progress: Progress = NONE,
) -> Increases:
    """Loss increase of each block at a few sparsities, all others dense; kept on disk.

    The outputs of the blocks before it are those of the dense model, run once.

    Raises:
        RecipeError: a model without a loss.
        Cancelled: between blocks.
    """
    if not handle.info.has_language_head:
        raise RecipeError("This model has no loss to measure; use another allocation.")
    windows = windows[: max(1, TOKENS // windows.shape[1])]
    content = [1, handle.fingerprint, recipe.criterion, dict(recipe.criterion_args)]
    content += [recipe.pattern, SPARSITIES, statistics.fingerprint if statistics else ""]
    key = key_of(content, windows)
    record = CACHE.read(key)
    if record is not None:
        return SPARSITIES, record.about
    structure, pattern = handle.structure, parse_pattern(recipe.pattern)
    ranked = store.ranked(
        recipe.criterion,
        recipe.criterion_args,
        recipe.pattern,
        statistics=statistics,
        progress=progress.silent(),
    )
    model = clone_shared(handle.model)
    runner = BlockRunner(model, structure)
    device = next(model.parameters()).device
    totals = [[0.0] * len(SPARSITIES) for _ in structure.blocks]
    with torch.inference_mode():
        for number, row in enumerate(windows):
            tokens = row[None].to(device)
            outputs: list[object] = []
            with runner.session(record=outputs, progress=progress):
                dense = float(mean_loss(model, structure, tokens))
            for block in structure.blocks:
                for place, share in enumerate(SPARSITIES):
                    originals = {}
                    for name in block.layers:
                        layer = structure.layers[name]
                        if name not in ranked.ranks:
                            continue
                        module = model.get_submodule(name)
                        originals[name] = module.weight
                        cut = pattern.cut(layer.out_features, layer.in_features, share)
                        mask = (ranked.ranks[name] >= cut).to(device)
                        weight = layer.stored_weight(handle.model) * mask
                        module.weight = nn.Parameter(weight, requires_grad=False)
                    leading = outputs[: block.index]
                    try:
                        with runner.session(leading=leading, progress=progress):
                            loss = float(mean_loss(model, structure, tokens))
                    finally:
                        for name, weight in originals.items():
                            model.get_submodule(name).weight = weight
                    totals[block.index][place] += (loss - dense) / len(windows)
                done = number * len(structure.blocks) + block.index + 1
                progress.step(done, len(structure.blocks) * len(windows))
    CACHE.write(key, {}, totals)
    return SPARSITIES, totals
