"""Working out a recipe inside a job, with events for what takes long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prune_core.pruning.plan import CutPlan
from prune_core.pruning.ranks import RankProgress
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel

Emit = Callable[[dict[str, Any]], None]
Poll = Callable[[], bool]


def staged(stage: str, emit: Emit) -> RankProgress:
    """Progress of one stage as events: ``stage``, ``done``, ``total``."""
    return lambda done, total: emit({"stage": stage, "done": done, "total": total})


def work_out(loaded: LoadedModel, recipe: Recipe, emit: Emit, cancelled: Poll) -> CutPlan:
    """A recipe worked out for the loaded model.

    Events: ``stage`` (``statistics``, ``sensitivity``, ``ranks`` or ``reconstruction``), ``done``,
    ``total``.

    Raises:
        PruneCoreError: the recipe does not fit the model; ``Cancelled`` among them.
    """
    statistics = loaded.statistics(recipe, progress=staged("statistics", emit), cancelled=cancelled)
    if recipe.allocation == "sensitivity" and statistics is not None:
        loaded.increases(recipe, progress=staged("sensitivity", emit), cancelled=cancelled)
    stage = "reconstruction" if loaded.needs_edits(recipe) else "ranks"
    return loaded.plan(recipe, progress=staged(stage, emit), cancelled=cancelled)
