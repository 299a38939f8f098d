"""From a pattern's name in a recipe to the pattern."""

from __future__ import annotations

from prune_core.patterns.base import Pattern
from prune_core.patterns.nm import NM
from prune_core.patterns.unstructured import PerLayer, PerRow
from prune_core.recipe import Recipe


def parse_pattern(name: str) -> Pattern:
    """``per-layer``, ``per-row`` or ``nm:N:M``.

    Raises:
        RecipeError: the name is none of these.
    """
    kept = Recipe().with_pattern(name).kept_of
    if kept is not None:
        return NM(*kept)
    return PerRow() if name == "per-row" else PerLayer()
