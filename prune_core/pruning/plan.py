"""From a recipe to cuts: how many weights of each layer go, and which mask that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from prune_core.allocation import ALLOCATIONS, AllocationRequest, Cuts, Part
from prune_core.allocation.global_ranking import Scores
from prune_core.allocation.sensitivity import Increases
from prune_core.errors import RecipeError
from prune_core.models.structure import Layer, Structure
from prune_core.patterns import Pattern, parse_pattern
from prune_core.progress import NONE, Progress
from prune_core.pruning.parts import (
    LayerCut,
    Remaining,
    counts_by_hand,
    left_shape,
    remove_parts,
    structural_cuts,
)
from prune_core.pruning.ranks import RankedLayers, RankStore
from prune_core.recipes.recipe import Recipe

if TYPE_CHECKING:
    from prune_core.calibration.statistics import Statistics
    from prune_core.pruning.edits import Edits


WHOLE = LayerCut()
"""Nothing of the layer goes."""


@dataclass(frozen=True, slots=True)
class CutPlan:
    """A recipe worked out for one model: a cut for each layer, and the ranks they refer to.

    Attributes:
        cuts: for every layer.
        ranked: the ranks that are cut; None where nothing is, or where ``edits`` stand instead.
        pattern: how cuts count.
        left_dense: layers whose shape the pattern does not fit.
        clipped: layers that the allocation removes whole, its share would exceed 1.
        edits: weights that were computed for this recipe (reconstruction, sequential calibration).
        dropped_blocks: blocks that pass on what they are given.
        remaining: limits of the ranks of layers of which structure takes a part.
        biases: what is added to the bias of a layer, (out,) float64.
    """

    cuts: Mapping[str, LayerCut]
    ranked: RankedLayers | None
    pattern: Pattern | None
    left_dense: tuple[str, ...]
    clipped: tuple[str, ...] = ()
    edits: Edits | None = None
    dropped_blocks: tuple[int, ...] = ()
    remaining: Mapping[str, Remaining] = field(default_factory=dict)
    biases: Mapping[str, Tensor] = field(default_factory=dict)

    def limit(self, layer: Layer) -> tuple[Tensor, int | Tensor]:
        """Ranks of a layer that is cut, in stored order, and the limit below which they go.

        The limit is one number, or one for each output row, shaped to compare with the ranks.
        """
        assert self.ranked is not None
        ranks, cut = self.ranked.ranks[layer.name], self.cuts[layer.name].cut
        rest = self.remaining.get(layer.name)
        if rest is None:
            return ranks, cut
        if rest.ranks is not None:
            ranks = layer.to_stored(rest.ranks)
        limit = rest.limit(cut)
        return ranks, limit if isinstance(limit, int) else layer.to_stored(limit)


def _override(recipe: Recipe, layer: Layer) -> float | None:
    """The narrowest override that names the layer: layer, then block, then role."""
    for key in (f"layer:{layer.name}", f"block:{layer.block}", f"role:{layer.role}"):
        if key in recipe.overrides:
            return recipe.overrides[key]
    return None


def plan_counts(
    store: RankStore,
    structure: Structure,
    recipe: Recipe,
    parts: Mapping[str, LayerCut],
    *,
    statistics: Statistics | None = None,
    increases: Increases | None = None,
    progress: Progress = NONE,
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """The cut of each layer by allocation and overrides: places among what structure leaves.

    Args:
        store: of the model's ranks; asked only by global ranking and OWL.
        structure: of the model.
        recipe: sparsity, pattern, allocation and overrides.
        parts: what structure takes of each layer, see ``structural_cuts``.
        statistics: what the criterion needs of a calibration text.
        increases: measured losses, for the allocation ``sensitivity``.
        progress: (layers done, layers) while layers are sorted; a cancel is seen between layers.

    Returns:
        Cuts by layer; layers that the pattern does not fit; layers removed whole because their
        share would exceed 1.

    Raises:
        RecipeError: a part that the model does not have, a sparsity N:M cannot give.
    """
    layers, pattern = structure.layers, parse_pattern(recipe.pattern)
    fitting = {n: x for n, x in layers.items() if pattern.fits(x.out_features, x.in_features)}
    unfit = tuple(name for name in layers if name not in fitting)
    shapes = {n: left_shape(x, pattern, parts.get(n, WHOLE)) for n, x in fitting.items()}
    counts: dict[str, int] = {}
    full: tuple[str, ...] = ()
    if recipe.cut_value is not None:
        for name, layer in fitting.items():
            # as float32: compared in half precision the value itself would be rounded
            below = layer.weight(store.model).float().abs() < recipe.cut_value
            remove_parts(below, parts.get(name, WHOLE), False)
            counts[name] = int(below.sum())
    elif recipe.sparsity:
        rest = {n: Part(*shapes[n], x.block, x.role) for n, x in fitting.items() if all(shapes[n])}
        needs = AllocationNeeds(store, structure, recipe, parts, statistics, increases, progress)
        cuts = needs.answer(AllocationRequest(rest, pattern, recipe.sparsity))
        counts, full = dict(cuts.counts), cuts.full
    for name, layer in fitting.items():
        own = _override(recipe, layer)
        if not all(shapes[name]):
            counts[name] = 0
        elif own is not None or name not in counts:
            counts[name] = pattern.cut(*shapes[name], recipe.sparsity if own is None else own)
    for name in unfit:
        counts[name] = 0
    return counts, unfit, full


@dataclass(frozen=True, slots=True)
class AllocationNeeds:
    """What can be told an allocation, each worked out only where one needs it.

    Attributes:
        store: of the model's ranks.
        structure: of the model.
        recipe: criterion and allocation, with their arguments.
        parts: what structure takes of each layer.
        statistics: what the criterion needs of a calibration text.
        increases: measured losses.
        progress: of sorting; a cancel is seen between layers.
    """

    store: RankStore
    structure: Structure
    recipe: Recipe
    parts: Mapping[str, LayerCut]
    statistics: Statistics | None
    increases: Increases | None
    progress: Progress

    def answer(self, request: AllocationRequest) -> Cuts:
        """Ask the recipe's allocation, with what it needs.

        Raises:
            RecipeError: a part that the model does not have, a need that is not known.
        """
        entry, args = ALLOCATIONS[self.recipe.allocation], self.recipe.allocation_args
        ways: dict[str, Callable[[], Any]] = {
            "multipliers": lambda: args,
            "roles": lambda: {layer.role for layer in self.structure.layers.values()},
            "blocks": lambda: range(len(self.structure.blocks)),
            "ordered": self._ordered,
            "outliers": lambda: self._outliers,
            "increases": self._increases,
        }
        needed = {need: ways[need]() for need in sorted(entry.needs_for(args))}
        own = {name: args.get(name, usual) for name, usual in entry.defaults.items()}
        return entry.fn(request, **needed, **own)

    def _ordered(self) -> tuple[Scores, Scores]:
        """Scores of what is left, ascending, and of what dropped parts take of it."""
        criterion, args = self.recipe.criterion, self.recipe.criterion_args
        arguments: dict[str, Any] = {"statistics": self.statistics, "progress": self.progress}
        ordered = self.store.ordered(criterion, args, **arguments)
        if not self.parts:
            return ordered, {}
        pattern = parse_pattern("per-layer")  # a rank is a place in the layer's sorted scores
        ranked = self.store.ranked(criterion, args, pattern.name, **arguments)
        whole = {name for name, cut in self.parts.items() if cut.whole}
        remaining = {name: scores for name, scores in ordered.items() if name not in whole}
        return remaining, {
            name: remaining[name][self.store.remaining(ranked, pattern, name, cut).dropped_ranks]
            for name, cut in self.parts.items()
            if name in remaining
        }

    def _outliers(self, m: float) -> list[float]:
        recipe = self.recipe
        return self.store.outliers(
            recipe.criterion, recipe.criterion_args, m, statistics=self.statistics
        )

    def _increases(self) -> Increases:
        if self.increases is None:
            name = self.recipe.allocation
            raise RecipeError(
                "the allocation {allocation} needs a calibration text; give one.", allocation=name
            )
        return self.increases


def plan_cuts(
    store: RankStore,
    structure: Structure,
    recipe: Recipe,
    *,
    statistics: Statistics | None = None,
    increases: Increases | None = None,
    progress: Progress = NONE,
    by_ranks: bool = True,
) -> CutPlan:
    """Work out a recipe: ranks (cached), shares per layer, counts, cuts.

    ``by_ranks`` False leaves the ranks out: :func:`plan_edits` puts weights in their place.

    Raises:
        RecipeError: a part that the model does not have, a sparsity N:M cannot give.
        ModelFileError: scores that are not finite.
        Cancelled: while ranking.
    """
    parts, blocks = structural_cuts(recipe, structure), recipe.drop_blocks
    if not recipe.removes_weights:
        cuts = {name: parts.get(name, WHOLE) for name in structure.layers}
        return CutPlan(cuts, None, None, (), dropped_blocks=blocks)
    counts, unfit, full = plan_counts(
        store,
        structure,
        recipe,
        parts,
        statistics=statistics,
        increases=increases,
        progress=progress,
    )
    pattern = parse_pattern(recipe.pattern)
    cuts = {name: replace(parts.get(name, WHOLE), cut=counts[name]) for name in structure.layers}
    plan = CutPlan(cuts, None, pattern, unfit, full, dropped_blocks=blocks)
    if not by_ranks:
        return plan
    ranked = store.ranked(
        recipe.criterion,
        recipe.criterion_args,
        recipe.pattern,
        statistics=statistics,
        progress=progress,
    )
    cuts = {
        name: replace(cut, ranks=ranked.fingerprint if cut.cut else "")
        for name, cut in cuts.items()
    }
    rest = {
        name: store.remaining(ranked, pattern, name, cut)
        for name, cut in cuts.items()
        if cut.cut and cut.structural
    }
    return replace(plan, cuts=cuts, ranked=ranked, remaining=rest)


def plan_edits(counts: CutPlan, edits: Edits) -> CutPlan:
    """The plan of computed weights in place of ranks; see :class:`CutPlan`."""
    cuts = {
        name: replace(
            cut,
            ranks=edits.fingerprint if name in edits.removed else "",
            cut=edits.removed.get(name, 0),
        )
        for name, cut in counts.cuts.items()
    }
    return replace(counts, cuts=cuts, ranked=None, edits=edits)


def layer_mask(plan: CutPlan, structure: Structure, name: str) -> Tensor:
    """The mask of one layer: bool ``(out, in)``, True keeps."""
    layer, cut = structure.layers[name], plan.cuts[name]
    if cut.cut and plan.edits is not None:
        mask = plan.edits.mask(name, (layer.out_features, layer.in_features))
    elif cut.cut and plan.ranked is not None:
        ranks, limit = plan.limit(layer)
        mask = layer.from_stored(ranks >= limit)
    else:
        mask = torch.ones(layer.out_features, layer.in_features, dtype=torch.bool)
    if cut.structural:
        mask = mask.clone()
        remove_parts(mask, cut, False)
    return mask


def count_removed(plan: CutPlan, structure: Structure) -> dict[str, int]:
    """Removed weights of each layer, exactly; a weight removed twice counts once.

    Ranks are a permutation within each group, so a cut's count is the pattern's arithmetic over
    what structure leaves: a count of the mask gives the same number (tests compare them) at the
    price of a pass over all ranks for every slider step. Only where dropped columns run through
    N:M groups or squares of weights the mask is counted.
    """
    removed = {}
    for name, layer in structure.layers.items():
        cut = plan.cuts[name]
        rows, columns = cut.rest_shape(layer)
        removed[name] = layer.numel - rows * columns
        if not cut.cut:
            continue
        if plan.edits is not None:
            removed[name] += cut.cut
        elif plan.pattern is not None and counts_by_hand(plan.pattern, layer, cut):
            removed[name] = layer.numel - int(layer_mask(plan, structure, name).sum())
        elif plan.pattern is not None:
            shape = left_shape(layer, plan.pattern, cut)
            removed[name] += plan.pattern.removed(*shape, cut.cut)
    return removed


def emptied(plan: CutPlan, structure: Structure) -> dict[str, list[int]]:
    """Blocks that lose all their ``heads`` or ``neurons`` by single ones: worth a warning.

    Blocks that lose the whole by name (a block, its attention or its MLP) are not among them.
    """
    blocks: dict[str, list[int]] = {"heads": [], "neurons": []}
    for name, layer in structure.layers.items():
        what = {"attn.o": "heads", "cross.o": "heads", "mlp.down": "neurons"}.get(layer.role)
        if what is not None and len(plan.cuts[name].columns) == layer.in_features:
            blocks[what].append(layer.block)
    return blocks
