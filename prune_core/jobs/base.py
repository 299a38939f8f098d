"""Jobs: everything the worker can be asked, as frozen data. No torch here: the web process uses it.

A job has a ``key`` made of all its fields: equal jobs of different sessions are computed once.
While a job runs the worker sends *events* (plain dicts, each replaces the one before) and at its
end a *result* (a plain dict). Their fields are given with each job. All numbers are floats or
ints, all arrays nested lists; nothing needs torch to be read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from typing import ClassVar

from prune_core.recipes.calibration import TextSpec as TextSpec

FIRST_RECIPE = 900.0
"""Seconds for a job with a recipe: its first use may read a calibration text on a slow machine."""


@dataclass(frozen=True, slots=True)
class Job:
    """Base of all jobs.

    Attributes:
        source: the model, as text (see ``prune_core.models.sources``): a preset's name,
            ``hub:OWNER/NAME[@REVISION]``, a folder or a ``.gguf`` file.
    """

    priority: ClassVar[int] = 1  # lower runs first
    deadline: ClassVar[float] = 120.0  # seconds; past it the worker is killed
    repeatable: ClassVar[bool] = True  # done again where files that it reads have changed
    source: str

    @property
    def key(self) -> str:
        """Hash over the kind of job and all its fields."""
        content = {"job": type(self).__name__, **asdict(self)}
        text = json.dumps(content, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class LoadModel(Job):
    """Fetch (if needed), check and load a model.

    Events: ``stage`` (``fetch``, ``verify``, ``convert``, ``load``, ``check``), ``done`` and
    ``total`` in bytes or steps (total 0 = not known), ``unit`` (``bytes`` or ``steps``).
    Result: the fields of ``prune_core.models.info.ModelInfo``.
    """

    priority: ClassVar[int] = 0
    deadline: ClassVar[float] = 1800.0
