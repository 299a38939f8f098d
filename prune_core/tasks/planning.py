"""Working out a recipe for a loaded model: :func:`prepare` asks, once, what it needs of a
calibration text, and :func:`plan` makes cuts of that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from prune_core.allocation import ALLOCATIONS, SCORED
from prune_core.allocation.sensitivity import Increases
from prune_core.analysis.neurons.statistics import NeuronStatistics
from prune_core.calibration.statistics import GRADIENTS, Statistics
from prune_core.criteria import CRITERIA
from prune_core.progress import NONE, Progress
from prune_core.pruning.plan import CutPlan, plan_cuts, plan_edits
from prune_core.pruning.ranks import check_arguments
from prune_core.pruning.sensitivity import block_increases
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.texts.overlap import check_apart


@dataclass(frozen=True, slots=True)
class Prepared:
    """A recipe and everything that must be known before its cuts can be.

    Attributes:
        loaded: the model that it was prepared for.
        recipe: as it was asked for.
        named: the same with its share of neurons, if it has one, as named neurons.
        windows: (windows, seq_len) int64 of its calibration text; None if it reads none.
        neurons: what neurons do on that text, where that decides something.
        statistics: of the dense model's layers on that text, where the recipe reads any.
        increases: the loss with each block alone pruned, for the allocation ``sensitivity``.
    """

    loaded: LoadedModel
    recipe: Recipe
    named: Recipe
    windows: Tensor | None = None
    neurons: NeuronStatistics | None = None
    statistics: Statistics | None = None
    increases: Increases | None = None

    def scoring(self, progress: Progress = NONE) -> Statistics | None:
        """What the criterion needs to score the dense model, whatever the recipe removes.

        Raises:
            PruneCoreError: see :func:`dense_statistics`.
        """
        needs = CRITERIA[self.recipe.criterion].needs_for(self.recipe.criterion_args)
        if self.statistics is not None and needs == _needs(self.recipe):
            return self.statistics
        return dense_statistics(self.loaded, self.recipe, progress)


def prepare(
    loaded: LoadedModel,
    recipe: Recipe,
    progress: Progress = NONE,
    *,
    apart_from: Sequence[Tensor] = (),
) -> Prepared:
    """Ask for what a recipe needs: named neurons, statistics, sensitivities.

    Args:
        loaded: the model.
        recipe: for it.
        progress: stages ``statistics`` and ``sensitivity``; a cancel is seen between blocks.
        apart_from: (seq,) windows that the result is judged by: the calibration text may not
            share tokens with them.

    Raises:
        RecipeError: the recipe does not fit the model.
        TextError: its calibration text is of no use, or is what it is judged by.
        Cancelled: by ``progress``.
    """
    check_arguments(recipe.criterion, recipe.criterion_args)
    if recipe.reads_neurons:
        loaded.neurons.check(recipe)
    if not recipe.reads_calibration:
        return Prepared(loaded, recipe, recipe)
    windows = loaded.calibration(recipe.calibration)
    if apart_from:
        check_apart(windows, list(apart_from))
    reading = progress.stage("statistics")
    neurons, named = None, recipe
    if recipe.reads_neurons:
        neurons = loaded.neurons.statistics(windows, progress=reading)
        named = loaded.neurons.resolved(recipe, neurons)
    statistics = loaded.statistics(windows, _needs(recipe), reading)
    increases = None
    if "increases" in ALLOCATIONS[recipe.allocation].needs and recipe.sparsity:
        increases = block_increases(
            loaded.ranks,
            loaded.handle,
            recipe,
            windows,
            statistics,
            progress=progress.stage("sensitivity"),
        )
    return Prepared(loaded, recipe, named, windows, neurons, statistics, increases)


def plan(prepared: Prepared, progress: Progress = NONE) -> CutPlan:
    """The cuts of a prepared recipe, and weights that are computed for it.

    Args:
        prepared: by :func:`prepare`.
        progress: stage ``ranks``, or ``reconstruction`` where weights are computed.

    Raises:
        RecipeError: a part that the model does not have, a sparsity that N:M cannot give.
        ModelFileError: scores or inputs that are not finite.
        Cancelled: by ``progress``.
    """
    loaded, recipe, windows = prepared.loaded, prepared.recipe, prepared.windows
    computes = recipe.computes_weights
    working = progress.stage("reconstruction" if computes else "ranks")
    cuts = plan_cuts(
        loaded.ranks,
        loaded.handle.structure,
        prepared.named,
        statistics=prepared.statistics,
        increases=prepared.increases,
        progress=working,
        by_ranks=not computes,
    )
    if computes and windows is not None:
        gradients = prepared.statistics.layers if prepared.statistics is not None else None
        cuts = plan_edits(cuts, loaded.edits(recipe, cuts, windows, gradients, working))
    if recipe.compensate and prepared.neurons is not None:
        cuts = loaded.neurons.compensated(cuts, prepared.neurons)
    return cuts


def work_out(loaded: LoadedModel, recipe: Recipe, progress: Progress = NONE) -> CutPlan:
    """Prepare and plan at once, where nothing else of the recipe is asked.

    Raises:
        PruneCoreError: see :func:`prepare` and :func:`plan`.
    """
    return plan(prepare(loaded, recipe, progress), progress)


def named_neurons(loaded: LoadedModel, recipe: Recipe, progress: Progress = NONE) -> Recipe:
    """The recipe with its share of neurons, if it has one, as named neurons; nothing else is asked.

    For what must be refused before the long part of the work begins.

    Raises:
        PruneCoreError: see :func:`prepare`.
    """
    if recipe.neurons is None:
        return recipe
    loaded.neurons.check(recipe)
    windows = loaded.calibration(recipe.calibration)
    neurons = loaded.neurons.statistics(windows, progress=progress.stage("statistics"))
    return loaded.neurons.resolved(recipe, neurons)


def dense_statistics(
    loaded: LoadedModel, recipe: Recipe, progress: Progress = NONE
) -> Statistics | None:
    """What a recipe's criterion needs to score the dense model, whatever is removed.

    Raises:
        RecipeError: an argument that the criterion does not take.
        TextError: the calibration text is of no use.
        Cancelled: by ``progress``.
    """
    check_arguments(recipe.criterion, recipe.criterion_args)
    needs = CRITERIA[recipe.criterion].needs_for(recipe.criterion_args)
    if not needs:
        return None
    windows = loaded.calibration(recipe.calibration)
    return loaded.statistics(windows, needs, progress.stage("statistics"))


def _needs(recipe: Recipe) -> frozenset[str]:
    """Statistics of the dense model that a recipe reads.

    Where weights are computed block by block, statistics of inputs are gathered on the way: then
    only those are asked for beforehand that the allocation or a gradient criterion reads.
    """
    if not recipe.removes_weights:
        return frozenset()
    needs = CRITERIA[recipe.criterion].needs_for(recipe.criterion_args)
    allocated = ALLOCATIONS[recipe.allocation].needs & SCORED and recipe.sparsity
    if recipe.computes_weights and not allocated:
        return frozenset(need for need in needs if need in GRADIENTS)
    return needs
