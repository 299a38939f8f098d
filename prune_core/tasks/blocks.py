"""Jobs about blocks and layers: what each does on a text, and what its removal costs."""

from __future__ import annotations

import time
from typing import Any

from prune_core.analysis.blocks.ablation import block_costs, layer_costs
from prune_core.analysis.blocks.greedy import greedy_path
from prune_core.errors import RecipeError
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks, LayerImportance
from prune_core.models.clone import clone_shared
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import dense_statistics


@answers(BlockImportance)
def block_importance(
    loaded: LoadedModel, job: BlockImportance, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a BlockImportance job; see ``prune_core.jobs.blocks.BlockImportance``.

    Raises:
        PruneCoreError: the text does not fit; ``Cancelled`` among them.
    """
    from prune_core.analysis.blocks.influence import block_influence

    _check_blocks(loaded)
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    started = time.perf_counter()
    found = block_influence(
        clone_shared(loaded.handle.model),
        loaded.handle.structure,
        windows,
        progress=progress,
    )
    return {**found, **_measured(windows, started)}


@answers(BlockAblation)
def block_ablation(
    loaded: LoadedModel, job: BlockAblation, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a BlockAblation job; see ``prune_core.jobs.blocks.BlockAblation``.

    Raises:
        PruneCoreError: the text does not fit; ``Cancelled`` among them.
    """
    _check_blocks(loaded)
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    started = time.perf_counter()
    found = block_costs(loaded.handle, windows, job.parts, progress)
    return {**found, **_measured(windows, started)}


@answers(GreedyBlocks)
def greedy_blocks(
    loaded: LoadedModel, job: GreedyBlocks, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a GreedyBlocks job; see ``prune_core.jobs.blocks.GreedyBlocks``.

    Raises:
        PruneCoreError: no block may go, too many steps; ``Cancelled`` among them.
    """
    _check_blocks(loaded)
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    started = time.perf_counter()
    path = loaded.path_of(windows, ends=job.ends)
    found = greedy_path(loaded.handle, windows, job.steps, progress, ends=job.ends, path=path)
    return {**found, **_measured(windows, started)}


@answers(LayerImportance)
def layer_importance(
    loaded: LoadedModel, job: LayerImportance, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a LayerImportance job; see ``prune_core.jobs.blocks.LayerImportance``.

    Raises:
        PruneCoreError: an unknown method or criterion; ``Cancelled`` among them.
    """
    from prune_core.pruning.ranks import layer_scores

    layers = loaded.handle.structure.layers
    named = {
        "layers": list(layers),
        "blocks": [layer.block for layer in layers.values()],
        "roles": [layer.role for layer in layers.values()],
    }
    started = time.perf_counter()
    if job.method == "ablation":
        _check_blocks(loaded)
        windows = loaded.windows(job.text, job.seq_len, job.windows)
        found = layer_costs(loaded.handle, windows, progress)
        scores = {"scores": found["mean"], "stderr": found["stderr"]}
        return {**named, **scores, **_measured(windows, started)}
    if job.method != "score":
        raise RecipeError("unknown method {method!r}; use ablation or score.", method=job.method)
    recipe, means = job.recipe, []
    statistics = dense_statistics(loaded, recipe, progress)
    scoring = progress.stage("ranks", len(layers))
    for done, layer in enumerate(layers.values(), start=1):
        progress.check("Cancelled while weights were scored.")
        found_scores = layer_scores(
            loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
        )
        means.append(float(found_scores.double().mean()))
        scoring.step(done)
    return {**named, "scores": means, "stderr": None, **_measured([], started)}


def _check_blocks(loaded: LoadedModel) -> None:
    if not loaded.handle.structure.blocks:
        raise RecipeError("This model has no blocks.")


def _measured(windows: list[Any], started: float) -> dict[str, Any]:
    tokens = sum(len(window) for window in windows)
    return {"tokens": tokens, "seconds": time.perf_counter() - started}
