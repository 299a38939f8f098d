"""From a recipe to cuts: how many weights of each layer go, and which mask that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prune_core.allocation import (
    Part,
    by_hand,
    by_role,
    clipped,
    erk,
    exact_cuts,
    global_counts,
    least_loss,
    owl,
)
from prune_core.errors import RecipeError
from prune_core.models.structure import Layer, Structure
from prune_core.patterns import Pattern, parse_pattern
from prune_core.ranks import RankedLayers, RankProgress, RankStore
from prune_core.recipe import ALLOCATION_ARGS, Recipe

if TYPE_CHECKING:
    from prune_core.calibration.statistics import Statistics
    from prune_core.reconstruction.edits import Edits

Increases = tuple[Sequence[float], Sequence[Sequence[float]]]
"""Sparsities, and for each block its measured loss increases at them."""


@dataclass(frozen=True, slots=True)
class LayerCut:
    """What happens to one layer.

    Attributes:
        ranks: fingerprint of the ranks that are cut; empty where nothing is.
        cut: ranks below it are removed.
        dropped_heads: query heads whose input columns of this layer (an ``o``) are removed.
    """

    ranks: str = ""
    cut: int = 0
    dropped_heads: tuple[int, ...] = ()


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
    """

    cuts: Mapping[str, LayerCut]
    ranked: RankedLayers | None
    pattern: Pattern | None
    left_dense: tuple[str, ...]
    clipped: tuple[str, ...] = ()
    edits: Edits | None = None


def _override(recipe: Recipe, layer: Layer) -> float | None:
    """The narrowest override that names the layer: layer, then block, then role."""
    for key in (f"layer:{layer.name}", f"block:{layer.block}", f"role:{layer.role}"):
        if key in recipe.overrides:
            return recipe.overrides[key]
    return None


def _check_names(recipe: Recipe, structure: Structure) -> dict[str, tuple[int, ...]]:
    """Refuse parts the model does not have; returns dropped heads by output layer."""
    known = {f"role:{x.role}" for x in structure.layers.values()}
    known |= {f"block:{b.index}" for b in structure.blocks}
    known |= {f"layer:{name}" for name in structure.layers}
    missing = sorted(set(recipe.overrides) - known)
    if missing:
        raise RecipeError(f"this model has no {missing[0]}; the recipe was made for another one.")
    dropped: dict[str, list[int]] = {}
    for index, head in recipe.drop_heads:
        block = structure.blocks[index] if index < len(structure.blocks) else None
        attention = block.attention if block else None
        if attention is None or head >= attention.num_heads:
            raise RecipeError(
                f"this model has no head {head} in block {index}; "
                "the recipe was made for another one."
            )
        dropped.setdefault(attention.o, []).append(head)
    return {name: tuple(sorted(heads)) for name, heads in dropped.items()}


def plan_counts(
    store: RankStore,
    structure: Structure,
    recipe: Recipe,
    *,
    statistics: Statistics | None = None,
    increases: Increases | None = None,
    progress: RankProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[dict[str, int], tuple[str, ...], tuple[str, ...]]:
    """The cut of each layer by allocation and overrides, without ranks.

    Returns:
        Cuts by layer; layers that the pattern does not fit; layers removed whole because their
        share would exceed 1.

    Raises:
        RecipeError: a part that the model does not have, a sparsity N:M cannot give.
    """
    _check_names(recipe, structure)
    layers, pattern = structure.layers, parse_pattern(recipe.pattern)
    fitting = {n: x for n, x in layers.items() if pattern.fits(x.out_features, x.in_features)}
    left = tuple(name for name in layers if name not in fitting)
    counts: dict[str, int] = {}
    full: tuple[str, ...] = ()
    if recipe.cut_value is not None:
        for name, layer in fitting.items():
            counts[name] = int((layer.weight(store.model).abs() < recipe.cut_value).sum())
    elif recipe.allocation == "global" and recipe.sparsity:
        ordered = store.ordered(
            recipe.criterion,
            recipe.criterion_args,
            statistics=statistics,
            progress=progress,
            cancelled=cancelled,
        )
        counts = global_counts(ordered, recipe.sparsity)
    elif recipe.allocation != "uniform" and recipe.sparsity:
        parts = {
            n: Part(x.out_features, x.in_features, x.block, x.role) for n, x in fitting.items()
        }
        shares = _shares(recipe, structure, store, parts, statistics, increases)
        full = clipped(shares) if recipe.sparsity < 1 else ()
        counts = exact_cuts(shares, parts, pattern, recipe.sparsity)
    for name, layer in fitting.items():
        own = _override(recipe, layer)
        if own is not None or name not in counts:
            share = recipe.sparsity if own is None else own
            counts[name] = pattern.cut(layer.out_features, layer.in_features, share)
    for name in left:
        counts[name] = 0
    return counts, left, full


def _shares(
    recipe: Recipe,
    structure: Structure,
    store: RankStore,
    parts: dict[str, Part],
    statistics: Statistics | None,
    increases: Increases | None,
) -> dict[str, float]:
    target, given = recipe.sparsity, recipe.allocation_args
    missing: set[str] = set()
    if recipe.allocation == "per-role":
        missing = set(given) - {x.role for x in structure.layers.values()}
    elif recipe.allocation == "manual":
        missing = {f"block {x}" for x in given if int(x) >= len(structure.blocks)}
    if missing:
        raise RecipeError(f"this model has no {min(missing)}; the recipe was made for another one.")
    match recipe.allocation:
        case "per-role":
            return by_role(given, parts, target)
        case "manual":
            return by_hand({str(int(k)): v for k, v in given.items()}, parts, target)
        case "erk":
            return erk(parts, target)
        case "owl":
            chosen = {**ALLOCATION_ARGS["owl"], **given}
            found = store.outliers(
                recipe.criterion, recipe.criterion_args, chosen["m"], statistics=statistics
            )
            return owl(found, parts, target, spread=chosen["spread"])
        case _:
            if increases is None:
                raise RecipeError("the allocation sensitivity needs a calibration text; give one.")
            return least_loss(*increases, parts, target)


def plan_cuts(
    store: RankStore,
    structure: Structure,
    recipe: Recipe,
    *,
    statistics: Statistics | None = None,
    increases: Increases | None = None,
    progress: RankProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
    by_ranks: bool = True,
) -> CutPlan:
    """Work out a recipe: ranks (cached), shares per layer, counts, cuts.

    ``by_ranks`` False leaves the ranks out: :func:`plan_edits` puts weights in their place.

    Raises:
        RecipeError: a part that the model does not have, a sparsity N:M cannot give.
        ModelFileError: scores that are not finite.
        Cancelled: while ranking.
    """
    dropped = _check_names(recipe, structure)
    if not recipe.removes_weights:
        cuts = {name: LayerCut("", 0, dropped.get(name, ())) for name in structure.layers}
        return CutPlan(cuts, None, None, ())
    counts, left, full = plan_counts(
        store,
        structure,
        recipe,
        statistics=statistics,
        increases=increases,
        progress=progress,
        cancelled=cancelled,
    )
    if not by_ranks:
        cuts = {name: LayerCut("", counts[name]) for name in structure.layers}
        return CutPlan(cuts, None, parse_pattern(recipe.pattern), left, full)
    ranked = store.ranked(
        recipe.criterion,
        recipe.criterion_args,
        recipe.pattern,
        statistics=statistics,
        progress=progress,
        cancelled=cancelled,
    )
    cuts = {
        name: LayerCut(ranked.fingerprint if count else "", count, dropped.get(name, ()))
        for name, count in ((name, counts[name]) for name in structure.layers)
    }
    return CutPlan(cuts, ranked, parse_pattern(recipe.pattern), left, full)


def plan_edits(structure: Structure, recipe: Recipe, counts: CutPlan, edits: Edits) -> CutPlan:
    """The plan of computed weights in place of ranks; see :class:`CutPlan`."""
    dropped = _check_names(recipe, structure)
    cuts = {
        name: LayerCut(
            edits.fingerprint if name in edits.removed else "",
            edits.removed.get(name, 0),
            dropped.get(name, ()),
        )
        for name in structure.layers
    }
    return replace(counts, cuts=cuts, ranked=None, edits=edits)


def layer_mask(plan: CutPlan, structure: Structure, name: str) -> Tensor:
    """The mask of one layer: bool ``(out, in)``, True keeps."""
    layer, cut = structure.layers[name], plan.cuts[name]
    if cut.cut and plan.edits is not None:
        mask = plan.edits.mask(name, (layer.out_features, layer.in_features))
    elif cut.cut and plan.ranked is not None:
        mask = layer.from_stored(plan.ranked.ranks[name] >= cut.cut)
    else:
        mask = torch.ones(layer.out_features, layer.in_features, dtype=torch.bool)
    if cut.dropped_heads:
        mask = mask.clone()
        for columns in head_columns(structure, name, cut.dropped_heads):
            mask[:, columns] = False
    return mask


def head_columns(structure: Structure, name: str, heads: tuple[int, ...]) -> list[slice]:
    """Input columns of output projection ``name`` that belong to ``heads``."""
    attention = structure.blocks[structure.layers[name].block].attention
    return [attention.columns(head) for head in heads] if attention is not None else []


def count_removed(plan: CutPlan, structure: Structure) -> dict[str, int]:
    """Removed weights of each layer, exactly; a weight removed twice counts once.

    Ranks are a permutation within each group, so a cut's count is the pattern's arithmetic: a
    count of the mask gives the same number (tests compare them) at the price of a pass over all
    ranks for every slider step. Where heads are dropped as well, the mask is counted.
    """
    removed = {}
    for name, layer in structure.layers.items():
        cut = plan.cuts[name]
        if cut.dropped_heads:
            removed[name] = layer.numel - int(layer_mask(plan, structure, name).sum())
        elif cut.cut and plan.edits is not None:
            removed[name] = cut.cut
        elif cut.cut and plan.pattern is not None:
            rows, columns = layer.out_features, layer.in_features
            removed[name] = plan.pattern.removed(rows, columns, cut.cut)
        else:
            removed[name] = 0
    return removed
