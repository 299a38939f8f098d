"""Recipes that a user uploads."""

from __future__ import annotations

from prune_core.criteria import CRITERIA
from prune_core.errors import RecipeError
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.language import t

MAX_RECIPE_BYTES = 100_000


def read_recipe(content: bytes) -> Recipe:
    """A recipe from a file that anyone may have made.

    Raises:
        PruneCoreError: too large, not a recipe, or of a criterion or argument that is unknown.
    """
    if len(content) > MAX_RECIPE_BYTES:
        raise RecipeError(t("studio.recipe_too_large"))
    try:
        recipe = Recipe.from_json(content.decode("utf-8-sig"))
        known = CRITERIA[recipe.criterion].defaults
        unknown = sorted(set(dict(recipe.criterion_args)) - set(known))
    except UnicodeDecodeError:
        raise RecipeError(t("studio.recipe_not_text")) from None
    # wrong types, numbers past all bounds, brackets nested by the thousand
    except (TypeError, ValueError, OverflowError, RecursionError):
        raise RecipeError(t("studio.recipe_not_readable")) from None
    if unknown:
        raise RecipeError(
            t("studio.recipe_argument", criterion=recipe.criterion, names=", ".join(unknown))
        )
    return recipe
