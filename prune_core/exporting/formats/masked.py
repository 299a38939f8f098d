"""Masked: zeros in a plain checkpoint."""

from __future__ import annotations

from prune_core.exporting.formats import FORMATS, POST_NORM
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence


@FORMATS.register(
    "masked",
    place=0,
    texts={
        "en": {
            "title": "Masked (zeros)",
            "measures": "Zeros in tensors of unchanged shape. Fits every recipe and loads "
            "everywhere; neither smaller nor faster.",
            "card": "Removed weights are zeros in tensors of unchanged shape: the file is not "
            "smaller and the model not faster, but any tool loads it.",
        },
        "zh": {
            "title": "掩码（置零）",
            "measures": "张量形状不变，移除处为零。适用于任何方案，处处可加载；不变小也不变快。",
            "card": "被移除的权重是张量中的零，形状不变：文件不会变小，模型也不会变快，但任何工具"
            "都能加载。",
        },
    },
)
def masked_problem(info: ModelInfo, recipe: Recipe) -> Sentence | None:
    """A dropped block cannot be written as zeros where its norms still act."""
    if not (recipe.drop_blocks and info.family in POST_NORM):
        return None
    return Sentence(
        "a dropped block of a {family} model is not the same as one of zeros, whose "
        "norms still act; export it as shrunk, or drop its attention and its MLP instead.",
        family=info.family,
    )
