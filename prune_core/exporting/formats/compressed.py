"""Compressed: zeros are left out of the file."""

from __future__ import annotations

from prune_core.exporting.formats import FORMATS, library_problem
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence


@FORMATS.register(
    "compressed",
    place=20,
    texts={
        "en": {
            "title": "Compressed (zeros left out)",
            "measures": "A smaller file (bitmask or 2:4); loads with the library "
            "compressed-tensors 0.13, in memory as large as dense.",
            "card": "The file leaves zeros out (values and a bitmask, `{form}` of the library "
            "compressed-tensors). Loaded, it takes the memory of a file with the zeros and is "
            "not faster.",
        },
        "zh": {
            "title": "压缩（省去零）",
            "measures": "更小的文件（位掩码或 2:4）；用 compressed-tensors 0.13 加载，内存与稠密"
            "相同。",
            "card": "文件中不存零（数值加位掩码，compressed-tensors 库的 `{form}`）。加载后占用的"
            "内存与含零的文件相同，也不会更快。",
        },
    },
)
def compressed_problem(info: ModelInfo, recipe: Recipe) -> Sentence | None:
    """The library must be there, and zeros."""
    nothing = Sentence("nothing is removed, so there are no zeros to leave out.")
    return library_problem() or (nothing if recipe.is_dense else None)
