"""From a recipe to cuts: how many weights of each layer go, and which mask that means."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from prune_core.allocation import global_counts, uniform
from prune_core.errors import RecipeError
from prune_core.models.structure import Layer, Structure
from prune_core.patterns import Pattern, parse_pattern
from prune_core.ranks import RankedLayers, RankProgress, RankStore
from prune_core.recipe import Recipe

if TYPE_CHECKING:
    from prune_core.calibration.statistics import Statistics


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
    """A recipe worked out for one model: a cut for each layer, and the ranks they refer to."""

    cuts: Mapping[str, LayerCut]
    ranked: RankedLayers | None
    pattern: Pattern | None
    left_dense: tuple[str, ...]


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


def plan_cuts(
    store: RankStore,
    structure: Structure,
    recipe: Recipe,
    *,
    statistics: Statistics | None = None,
    progress: RankProgress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> CutPlan:
    """Work out a recipe: ranks (cached), shares per layer, counts, cuts.

    Raises:
        RecipeError: a part that the model does not have, a sparsity N:M cannot give.
        ModelFileError: scores that are not finite.
        Cancelled: while ranking.
    """
    dropped = _check_names(recipe, structure)
    layers = structure.layers
    ranked, pattern = None, None
    counts: dict[str, int] = {}
    if recipe.sparsity or any(recipe.overrides.values()):
        pattern = parse_pattern(recipe.pattern)
        ranked = store.ranked(
            recipe.criterion,
            recipe.criterion_args,
            recipe.pattern,
            statistics=statistics,
            progress=progress,
            cancelled=cancelled,
        )
        shares = uniform(layers, recipe.sparsity)
        if recipe.allocation == "global" and recipe.sparsity:
            ordered = store.ordered(
                recipe.criterion,
                recipe.criterion_args,
                statistics=statistics,
                progress=progress,
                cancelled=cancelled,
            )
            counts = global_counts(ordered, recipe.sparsity)
        for name, layer in layers.items():
            own = _override(recipe, layer)
            if own is not None or name not in counts:
                share = shares[name] if own is None else own
                counts[name] = pattern.cut(layer.out_features, layer.in_features, share)
        for name in ranked.left_dense:
            counts[name] = 0
    cuts = {}
    for name in layers:
        count = counts.get(name, 0)
        key = ranked.fingerprint if ranked is not None and count else ""
        cuts[name] = LayerCut(key, count, dropped.get(name, ()))
    return CutPlan(cuts, ranked, pattern, ranked.left_dense if ranked is not None else ())


def layer_mask(plan: CutPlan, structure: Structure, name: str) -> Tensor:
    """The mask of one layer: bool ``(out, in)``, True keeps."""
    layer, cut = structure.layers[name], plan.cuts[name]
    if cut.cut and plan.ranked is not None:
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
        elif cut.cut and plan.pattern is not None:
            rows, columns = layer.out_features, layer.in_features
            removed[name] = plan.pattern.removed(rows, columns, cut.cut)
        else:
            removed[name] = 0
    return removed
