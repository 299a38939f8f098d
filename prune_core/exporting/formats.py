"""The formats of an export, and what stands against each: asked before a click, without torch."""

from __future__ import annotations

from importlib import metadata

from prune_core.errors import RecipeError
from prune_core.exporting.shippable import MASKED, kept_parts, shapes_of
from prune_core.models.families import FAMILIES
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe

FORMATS = ("masked", "shrunk", "compressed")

LIBRARY = "compressed-tensors"
LAST_SPARSE = (0, 15)
"""compressed-tensors wrote and read bitmasks in versions before this one."""

INSTALL = "pip install -r requirements-export.txt"


def library_problem() -> str | None:
    """Why ``compressed`` cannot be written here, in one sentence; None if it can."""
    try:
        version = metadata.version(LIBRARY)
    except metadata.PackageNotFoundError:
        return f"compressed files need the library {LIBRARY}: {INSTALL}."
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < LAST_SPARSE:
        return None
    return (
        f"{LIBRARY} {version} no longer writes or reads bitmask files (they were removed after "
        f"0.14): {INSTALL} brings the last version that does."
    )


def format_problem(form: str, info: ModelInfo, recipe: Recipe) -> str | None:
    """Why a recipe cannot be exported in a format, in one sentence; None if nothing is known.

    Args:
        form: one of :data:`FORMATS`.
        info: of the dense model.
        recipe: names parts that the model has.
    """
    if form == "compressed":
        return library_problem() or (
            "nothing is removed, so there are no zeros to leave out." if recipe.is_dense else None
        )
    if form == "masked" and recipe.drop_blocks and FAMILIES[info.family].post_norm:
        return (
            f"a dropped block of a {info.family} model is not the same as one of zeros, whose "
            "norms still act; export it as shrunk, or drop its attention and its MLP instead."
        )
    if form != "shrunk":
        return None
    share = recipe.neurons
    if share is not None and share.fraction > 0 and share.scope == "global":
        return (
            "neurons ranked over all blocks leave blocks of different widths, and plain "
            f"transformers needs as many in every block: take the share of each block, or {MASKED}."
        )
    try:
        kept_parts(recipe, shapes_of(info), info.family, info.hidden_size)
    except RecipeError as error:
        return str(error)
    return None
