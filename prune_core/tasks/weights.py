"""Tables and histograms of a model's weights and scores."""

from __future__ import annotations

from typing import Any

import torch

from prune_core.errors import RecipeError
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.models.structure import Layer
from prune_core.progress import NONE, Progress
from prune_core.pruning.plan import CutPlan
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import plan, prepare, work_out


@answers(LayerTable)
def layer_table(loaded: LoadedModel, job: LayerTable, progress: Progress = NONE) -> dict[str, Any]:
    """Run a LayerTable job; see ``prune_core.jobs.weights.LayerTable``."""
    from prune_core.analysis.weights.scores import score_row
    from prune_core.pruning.plan import count_removed
    from prune_core.pruning.ranks import layer_scores

    rows = loaded.layer_rows(progress)
    prepared = prepare(loaded, job.recipe, progress)
    cuts = plan(prepared, progress)
    removed = count_removed(cuts, loaded.handle.structure)
    rows = [{**row, "removed": removed[row["name"]]} for row in rows]
    if job.scored:
        recipe, statistics = job.recipe, prepared.scoring(progress)
        scoring = progress.stage("ranks", len(rows))
        for index, layer in enumerate(loaded.handle.structure.layers.values()):
            progress.check("Cancelled while weights were scored.")
            scores = layer_scores(
                loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
            )
            rows[index] |= score_row(scores)
            scoring.step(index + 1)
    return {"rows": rows, "left_dense": list(cuts.left_dense)}


def keep_mask(loaded: LoadedModel, cuts: CutPlan, name: str) -> torch.Tensor | None:
    """A layer's keep-mask, None where nothing of it goes."""
    from prune_core.pruning.plan import layer_mask

    return layer_mask(cuts, loaded.handle.structure, name) if cuts.cuts[name].touched else None


def known_layer(loaded: LoadedModel, name: str) -> Layer:
    """The layer of a name."""
    structure = loaded.handle.structure
    if name not in structure.layers:
        raise RecipeError("this model has no layer {name}.", name=name)
    return structure.layers[name]


@answers(Histograms)
def histograms(loaded: LoadedModel, job: Histograms, progress: Progress = NONE) -> dict[str, Any]:
    """Run a Histograms job; see ``prune_core.jobs.weights.Histograms``."""
    from prune_core.analysis.weights.distributions import magnitude_histograms

    layers = [known_layer(loaded, name) for name in job.layers]
    cuts = work_out(loaded, job.recipe, progress)
    masks = {name: keep_mask(loaded, cuts, name) for name in job.layers}
    return magnitude_histograms(loaded.handle.model, layers, masks, job.bins)


@answers(ScoreHistogram)
def score_histogram(
    loaded: LoadedModel, job: ScoreHistogram, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a ScoreHistogram job; see ``prune_core.jobs.weights.ScoreHistogram``."""
    from prune_core.analysis.weights.scores import score_bins
    from prune_core.pruning.ranks import layer_scores

    layer, recipe = known_layer(loaded, job.layer), job.recipe
    prepared = prepare(loaded, recipe, progress)
    cuts = plan(prepared, progress)
    statistics = prepared.scoring(progress)
    scores = layer_scores(
        loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
    )
    found = score_bins(scores, keep_mask(loaded, cuts, job.layer), job.bins)
    place = {"name": layer.name, "block": layer.block, "role": layer.role}
    return {**place, "criterion": recipe.criterion, **found}
