"""Exceptions raised on purpose; every message is one sentence that says what to change."""

from __future__ import annotations

from collections.abc import Mapping

from prune_core.sentences import Sentence, Value


class PruneCoreError(Exception):
    """Base class: catch this to catch everything prune_core raises on purpose.

    ``raise RecipeError("unknown scope {scope!r}; use {known:or}.", scope=scope, known=SCOPES)``:
    the English template is what other languages find their own by.

    Args:
        template: see :class:`prune_core.sentences.Sentence`; or a whole sentence.
        values: what stands in its placeholders.

    Attributes:
        sentence: what ``str()`` gives, with its template and values.
    """

    def __init__(self, template: str = "", /, **values: object) -> None:
        self.sentence = Sentence(template, **values)
        super().__init__(self.sentence)

    def __str__(self) -> str:  # not that of a built-in class beside it: KeyError shows repr()
        return self.sentence

    @property
    def template(self) -> str:
        """The English sentence with its placeholders."""
        return self.sentence.template

    @property
    def values(self) -> Mapping[str, Value]:
        """What stands in the placeholders."""
        return self.sentence.values


class UnknownNameError(PruneCoreError, KeyError):
    """A registry was asked for a name it does not hold."""


class RecipeError(PruneCoreError, ValueError):
    """A recipe asks for something that cannot be done: a bad sparsity, an N:M that does not fit."""


class SourceError(PruneCoreError):
    """What the user typed names no model that may be loaded."""


class ModelFileError(PruneCoreError):
    """A model's files are missing, damaged, too large or of a refused kind."""


class UnknownArchitectureError(PruneCoreError):
    """The model's layout is not one that prune_core understands in full."""


class AssetError(PruneCoreError):
    """A preset or text could not be fetched or verified."""


class TextError(PruneCoreError, ValueError):
    """A text is missing, empty, too short or not readable."""


class ProtocolError(PruneCoreError):
    """Results that were not measured alike were to be compared."""


class MemoryGuardError(PruneCoreError):
    """The job would need more memory than this machine has."""


class GridError(PruneCoreError, ValueError):
    """A grid asks for nothing, for too much, or for what cannot be read."""


class StoreError(PruneCoreError):
    """The store of runs cannot be opened, read or written; it is left as it is."""


class Cancelled(PruneCoreError):  # noqa: N818 - an outcome, not a fault
    """The job was cancelled: by the user, or because a newer one replaced it."""


class WorkerError(PruneCoreError):
    """The compute worker died, hung past its deadline or could not start."""


class ReportError(PruneCoreError):
    """A report cannot be made of what was chosen, or not be written where it was asked for."""
