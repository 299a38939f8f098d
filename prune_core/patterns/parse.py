"""From a pattern's name in a recipe to the pattern."""

from __future__ import annotations

from prune_core.patterns.base import Pattern
from prune_core.patterns.blocks import Blocks
from prune_core.patterns.nm import NM
from prune_core.patterns.unstructured import PerLayer, PerRow
from prune_core.recipes.recipe import Recipe


def parse_pattern(name: str) -> Pattern:
    """``per-layer``, ``per-row``, ``nm:N:M`` or ``block:B[:avg|max]``.

    Raises:
        RecipeError: the name is none of these.
    """
    recipe = Recipe().with_pattern(name)
    if recipe.kept_of is not None:
        return NM(*recipe.kept_of)
    if recipe.block_of is not None:
        return Blocks(*recipe.block_of)
    return PerRow() if name == "per-row" else PerLayer()
