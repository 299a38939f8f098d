"""Every job has one answer, of one file of ``prune_core/tasks``."""

from __future__ import annotations

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
import typing
from collections import Counter
from collections.abc import Iterator

import pytest

from prune_core import jobs, tasks
from prune_core.engine.core import Core
from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job, LoadModel
from prune_core.paths import PROJECT_ROOT
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import all_answers, answer_to, answers


def job_classes() -> list[type[Job]]:
    """Every job of ``prune_core/jobs``, in the files' own words."""
    modules = [importlib.import_module(f"prune_core.jobs.{x.name}") for x in _modules(jobs)]
    kinds = [
        kind
        for module in modules
        for kind in vars(module).values()
        if isinstance(kind, type) and issubclass(kind, Job) and kind.__module__ == module.__name__
    ]
    return [kind for kind in kinds if kind is not Job]


def _modules(package: typing.Any) -> Iterator[pkgutil.ModuleInfo]:
    return pkgutil.iter_modules(package.__path__)


def registered() -> Counter[str]:
    """Names of jobs in ``@answers(...)``, read from the text of the files: no import hides one."""
    names: Counter[str] = Counter()
    for path in sorted((PROJECT_ROOT / "prune_core" / "tasks").glob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef):
                names.update(
                    ast.unparse(mark.args[0])
                    for mark in node.decorator_list
                    if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "answers"
                )
    return names


def test_every_job_has_exactly_one_answer() -> None:
    kinds = job_classes()
    assert len(kinds) > 20, "the jobs were found"
    assert registered() == Counter(kind.__name__ for kind in kinds)
    assert set(all_answers()) == set(kinds)


@pytest.mark.parametrize("kind", job_classes(), ids=lambda kind: kind.__name__)
def test_an_answer_takes_its_own_job(kind: type[Job]) -> None:
    function = all_answers()[kind]
    parameters = inspect.signature(function).parameters
    assert list(parameters) == ["loaded", "job", "progress"]
    hints = typing.get_type_hints(function)
    assert hints["job"] is kind and hints["progress"] is Progress
    assert parameters["progress"].default is NONE
    assert inspect.getdoc(function)


def test_a_second_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="LoadModel has an answer already"):
        answers(LoadModel)(lambda loaded, job, progress: {})
    assert all_answers()[LoadModel].__module__ == "prune_core.tasks.loaded"


def test_a_job_without_an_answer_is_said_before_a_model_is_loaded() -> None:
    with pytest.raises(PruneCoreError, match="There is no such job: Job"):
        answer_to(Job("tiny-llama"))
    core = Core()
    with pytest.raises(PruneCoreError, match="There is no such job: Job"):
        core.run(Job("tiny-llama"))
    assert not core._models


def test_files_are_found_without_being_named() -> None:
    """In a fresh process: what other tests have imported does not help."""
    code = (
        "from prune_core.tasks.answers import all_answers; "
        "print(sorted({f.__module__ for f in all_answers().values()}))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True
    )
    found = set(ast.literal_eval(done.stdout))
    helpers = {"answers", "planning"}
    assert found == {f"prune_core.tasks.{x.name}" for x in _modules(tasks)} - {
        f"prune_core.tasks.{name}" for name in helpers
    }
