"""Which function answers which job: each file of this folder registers its own, here they meet.

A new job is a class in ``prune_core.jobs`` and one function in a file of this folder::

    @answers(HeadImportance)
    def head_importance(loaded, job, progress=NONE):
        ...

Nothing else lists it: all files of the folder are imported once, when the first job is looked up.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping
from functools import cache
from types import MappingProxyType
from typing import Any, TypeVar

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job

Result = dict[str, Any]
F = TypeVar("F", bound=Callable[..., Result])

_answers: dict[type[Job], Callable[..., Result]] = {}


def answers(kind: type[Job]) -> Callable[[F], F]:
    """Register the function that answers jobs of a class; a decorator.

    The function is given the loaded model, the job and the progress, and returns the job's result
    as plain data (see the job's docstring for its events and fields).

    Raises:
        ValueError: the class has an answer already.
    """

    def register(function: F) -> F:
        if kind in _answers:
            raise ValueError(f"the job {kind.__name__} has an answer already")
        _answers[kind] = function
        return function

    return register


@cache
def all_answers() -> Mapping[type[Job], Callable[..., Result]]:
    """Job classes and their functions, of every file of this folder."""
    folder = importlib.import_module(__package__)
    for module in pkgutil.iter_modules(folder.__path__):
        importlib.import_module(f"{__package__}.{module.name}")
    return MappingProxyType(_answers)


def answer_to(job: Job) -> Callable[..., Result]:
    """The function that answers a job.

    Raises:
        PruneCoreError: no file registers one for the job's class.
    """
    if type(job) not in all_answers():
        raise PruneCoreError("There is no such job: {name}.", name=type(job).__name__)
    return all_answers()[type(job)]
