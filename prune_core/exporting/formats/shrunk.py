"""Shrunk: dropped parts are cut out."""

from __future__ import annotations

from prune_core.errors import RecipeError
from prune_core.exporting.formats import FORMATS
from prune_core.exporting.shippable import MASKED, kept_parts, shapes_of
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence


@FORMATS.register(
    "shrunk",
    place=10,
    texts={
        "en": {
            "title": "Shrunk (parts gone)",
            "measures": "Dropped heads, neurons and blocks are cut out: smaller and faster, "
            "loads in plain transformers.",
            "card": "Removed heads, neurons and blocks are physically gone; single weights that "
            "the recipe removes are zeros.",
        },
        "zh": {
            "title": "缩小（移除部件）",
            "measures": "切除被移除的头、神经元和块：更小更快，原版 transformers 可加载。",
            "card": "被移除的头、神经元和块已物理删除；方案移除的单个权重为零。",
        },
    },
)
def shrunk_problem(info: ModelInfo, recipe: Recipe) -> Sentence | None:
    """Only what plain transformers loads can be written."""
    share = recipe.neurons
    if share is not None and share.fraction > 0 and share.scope == "global":
        return Sentence(
            "neurons ranked over all blocks leave blocks of different widths, and plain "
            "transformers needs as many in every block: take the share of each block, or {masked}.",
            masked=MASKED,
        )
    try:
        kept_parts(recipe, shapes_of(info), info.family, info.hidden_size)
    except RecipeError as error:
        return error.sentence
    return None
