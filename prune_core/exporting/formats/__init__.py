"""The formats of an export, and what stands against each: asked before a click, without torch.

One for each file; one that is added here is in every list by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import metadata

from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.registry import Registry
from prune_core.sentences import Sentence

FORMATS: Registry[Callable[[ModelInfo, Recipe], Sentence | None]] = Registry(
    "format", "prune_core.exporting.formats", ("title", "measures", "card")
)
"""A format is registered with what stands against it: a sentence, or None.

Texts of an entry: ``title``, what it ``measures`` (what is written), and for model ``card``, in
English for whoever gets the files, how it was made.
"""

LIBRARY = "compressed-tensors"
LAST_SPARSE = (0, 15)
"""compressed-tensors wrote and read bitmasks in versions before this one."""

POST_NORM = frozenset(("bert", "roberta", "distilbert", "bart", "marian"))
"""Families whose blocks normalize the residual stream itself: a block of zeros still changes it."""

INSTALL = "pip install -r requirements-export.txt"


def library_problem() -> Sentence | None:
    """Why ``compressed`` cannot be written here, in one sentence; None if it can."""
    try:
        version = metadata.version(LIBRARY)
    except metadata.PackageNotFoundError:
        return Sentence(
            "compressed files need the library {library}: {install}.",
            library=LIBRARY,
            install=INSTALL,
        )
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdigit())
    if numbers < LAST_SPARSE:
        return None
    return Sentence(
        "{library} {version} no longer writes or reads bitmask files (they were removed after "
        "0.14): {install} brings the last version that does.",
        library=LIBRARY,
        version=version,
        install=INSTALL,
    )


def format_problem(form: str, info: ModelInfo, recipe: Recipe) -> Sentence | None:
    """Why a recipe cannot be exported in a format, in one sentence; None if nothing is known.

    Args:
        form: one of :data:`FORMATS`.
        info: of the dense model.
        recipe: names parts that the model has.
    """
    return FORMATS[form].fn(info, recipe) if form in FORMATS else None
