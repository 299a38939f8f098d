"""Jobs of sweeps: quality and cost of one recipe, and the largest removal within a budget."""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from typing import Any

from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.sweeps import Budget, MeasureCell
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.evaluate import begin, measure
from prune_core.tasks.loaded import LoadedModel


@answers(MeasureCell)
def measure_cell(
    loaded: LoadedModel, job: MeasureCell, progress: Progress = NONE
) -> dict[str, Any]:
    """See :class:`prune_core.jobs.sweeps.MeasureCell`.

    Raises:
        PruneCoreError: see ``measure`` and ``cost_numbers``.
    """
    from prune_core.exporting.cost import cost_numbers

    asked = Evaluate(job.source, job.recipe, job.text, job.seq_len, job.windows)
    measurement = begin(loaded, asked, progress, loaded.load_seconds, start=job.start)
    found = measurement.run(look=False)
    del found["strip"]
    cost = cost_numbers(
        loaded.handle,
        loaded.copy.model,
        measurement.named,
        measured=job.cost,
        progress=progress,
    )
    return {**found, **cost}


@answers(Budget)
def keep_budget(loaded: LoadedModel, job: Budget, progress: Progress = NONE) -> dict[str, Any]:
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
        return measure(loaded, asked, progress.silent(), look=False)

    def confirm(recipe: Recipe) -> Mapping[str, Any]:
        asked = held_out_job(question, recipe)
        plain = Evaluate(asked.source, recipe, asked.text, asked.seq_len, asked.windows)
        return begin(loaded, plain, progress.silent(), start=asked.start).run(look=False)

    answers: list[dict[str, Any]] = []

    def told(event: Mapping[str, Any]) -> None:
        progress.tell({"stage": "budget", **event, "limit": EVALUATIONS, "answers": list(answers)})

    def one(family: Family) -> Solution:
        found = solve(
            promise, [family], look, confirm=confirm, finished_runs=known, size=size, listener=told
        )
        answers.extend(solution_to_dict(found)["answers"])
        return found

    methods = families(job.recipes)
    parts = [one(family) for family in methods]
    whole = joined(promise, [answer for part in parts for answer in part.answers])
    return {**solution_to_dict(whole), "seconds": time.perf_counter() - started}
