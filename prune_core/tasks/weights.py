"""Tables and histograms of a model's weights and scores."""

from __future__ import annotations

from typing import Any

import torch

from prune_core.errors import Cancelled, RecipeError
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.models.structure import Layer
from prune_core.progress import Emit, Poll
from prune_core.pruning.plan import CutPlan
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import staged, work_out


def layer_table(loaded: LoadedModel, job: LayerTable, emit: Emit, poll: Poll) -> dict[str, Any]:
    """Run a LayerTable job; see ``prune_core.jobs.weights.LayerTable``."""
    from prune_core.analysis.weights.scores import score_row
    from prune_core.pruning.plan import count_removed
    from prune_core.pruning.ranks import layer_scores

    rows = loaded.layer_rows(emit, poll)
    plan = work_out(loaded, job.recipe, emit, poll)
    removed = count_removed(plan, loaded.handle.structure)
    rows = [{**row, "removed": removed[row["name"]]} for row in rows]
    if job.scored:
        recipe, told = job.recipe, staged("statistics", emit)
        statistics = loaded.dense_statistics(recipe, progress=told, cancelled=poll)
        for index, layer in enumerate(loaded.handle.structure.layers.values()):
            if poll():
                raise Cancelled("Cancelled while weights were scored.")
            scores = layer_scores(
                loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
            )
            rows[index] |= score_row(scores)
            emit({"stage": "ranks", "done": index + 1, "total": len(rows)})
    return {"rows": rows, "left_dense": list(plan.left_dense)}


def keep_mask(loaded: LoadedModel, plan: CutPlan, name: str) -> torch.Tensor | None:
    """A layer's keep-mask, None where nothing of it goes."""
    from prune_core.pruning.plan import layer_mask

    return layer_mask(plan, loaded.handle.structure, name) if plan.cuts[name].touched else None


def known_layer(loaded: LoadedModel, name: str) -> Layer:
    """The layer of a name."""
    structure = loaded.handle.structure
    if name not in structure.layers:
        raise RecipeError(f"this model has no layer {name}.")
    return structure.layers[name]


def histograms(loaded: LoadedModel, job: Histograms, emit: Emit, poll: Poll) -> dict[str, Any]:
    """Run a Histograms job; see ``prune_core.jobs.weights.Histograms``."""
    from prune_core.analysis.weights.distributions import magnitude_histograms

    layers = [known_layer(loaded, name) for name in job.layers]
    plan = work_out(loaded, job.recipe, emit, poll)
    masks = {name: keep_mask(loaded, plan, name) for name in job.layers}
    return magnitude_histograms(loaded.handle.model, layers, masks, job.bins)


def score_histogram(
    loaded: LoadedModel, job: ScoreHistogram, emit: Emit, poll: Poll
) -> dict[str, Any]:
    """Run a ScoreHistogram job; see ``prune_core.jobs.weights.ScoreHistogram``."""
    from prune_core.analysis.weights.scores import score_bins
    from prune_core.pruning.ranks import layer_scores

    layer, recipe = known_layer(loaded, job.layer), job.recipe
    plan = work_out(loaded, recipe, emit, poll)
    told = staged("statistics", emit)
    statistics = loaded.dense_statistics(recipe, progress=told, cancelled=poll)
    scores = layer_scores(
        loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
    )
    found = score_bins(scores, keep_mask(loaded, plan, job.layer), job.bins)
    place = {"name": layer.name, "block": layer.block, "role": layer.role}
    return {**place, "criterion": recipe.criterion, **found}
