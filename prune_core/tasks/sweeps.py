"""Jobs of sweeps: quality and cost of one recipe, and the largest removal within a budget."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from typing import Any

from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.sweeps import Budget, MeasureCell
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel

Emit = Callable[[dict[str, Any]], None]
Poll = Callable[[], bool]


def measure_cell(
    loaded: LoadedModel, job: MeasureCell, emit: Emit, poll: Poll, load_seconds: float
) -> dict[str, Any]:
    """See :class:`prune_core.jobs.sweeps.MeasureCell`.

    Raises:
        PruneCoreError: see ``measure`` and ``cost_numbers``.
    """
    from prune_core.exporting.cost import cost_numbers

    asked = Evaluate(job.source, job.recipe, job.text, job.seq_len, job.windows)
    found = measure(loaded, asked, emit, poll, load_seconds, start=job.start, look=False)
    del found["strip"]

    def told(stage: str, done: int, total: int) -> None:
        emit({"stage": stage, "done": done, "total": total})

    recipe = loaded.resolved(job.recipe)
    cost = cost_numbers(
        loaded.handle, loaded.copy.model, recipe, measured=job.cost, progress=told, cancelled=poll
    )
    return {**found, **cost}


def keep_budget(loaded: LoadedModel, job: Budget, emit: Emit, poll: Poll) -> dict[str, Any]:
    """See :class:`prune_core.jobs.sweeps.Budget`.

    Raises:
        BudgetError: the promise is not readable, or there is no method.
        Cancelled: between blocks of any measurement.
    """
    from prune_core.jobs.questions import held_out_job, measure_job
    from prune_core.recipes.recipe import Recipe
    from prune_core.sweeps.budget import (
        EVALUATIONS,
        Family,
        FileSize,
        Solution,
        families,
        joined,
        solve,
    )
    from prune_core.sweeps.limits import parse_promise
    from prune_core.sweeps.records import Cell
    from prune_core.sweeps.store.portable import run_from_dict
    from prune_core.sweeps.telling import solution_to_dict

    started = time.perf_counter()
    promise = parse_promise(job.promise)
    question = Cell(job.source, text=job.text, seq_len=job.seq_len, windows=job.windows)
    info = loaded.handle.info
    size = FileSize(info.parameters, info.prunable, info.bytes_in_memory, info.zeros)
    known = [run_from_dict(json.loads(text)) for text in job.known]

    def look(recipe: Recipe) -> Mapping[str, Any]:
        asked = measure_job(question, recipe)
        return measure(loaded, asked, lambda event: None, poll, 0.0, look=False)

    def confirm(recipe: Recipe) -> Mapping[str, Any]:
        asked = held_out_job(question, recipe)
        plain = Evaluate(asked.source, recipe, asked.text, asked.seq_len, asked.windows)
        return measure(loaded, plain, lambda event: None, poll, 0.0, start=asked.start, look=False)

    answers: list[dict[str, Any]] = []

    def told(event: Mapping[str, Any]) -> None:
        emit({"stage": "budget", **event, "limit": EVALUATIONS, "answers": list(answers)})

    def one(family: Family) -> Solution:
        found = solve(promise, [family], look, confirm=confirm, known=known, size=size, told=told)
        answers.extend(solution_to_dict(found)["answers"])
        return found

    methods = families(job.recipes)
    parts = [one(family) for family in methods]
    whole = joined(promise, [answer for part in parts for answer in part.answers])
    return {**solution_to_dict(whole), "seconds": time.perf_counter() - started}
