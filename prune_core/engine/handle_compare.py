"""Jobs that compare recipes: what each does to the blocks."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from prune_core.engine import jobs
from prune_core.engine.loaded import LoadedModel
from prune_core.engine.planning import staged, work_out
from prune_core.errors import RecipeError

MEASURES = ("output", "loss")


def block_damage(
    loaded: LoadedModel,
    job: jobs.BlockDamage,
    emit: Callable[[dict[str, Any]], None],
    cancelled: Callable[[], bool],
) -> dict[str, Any]:
    """Run a BlockDamage job; see ``prune_core.engine.jobs.BlockDamage``.

    Raises:
        RecipeError: an unknown measure, or a loss of a model that has none.
        PruneCoreError: the recipe or the text does not fit; ``Cancelled`` among them.
    """
    from prune_core.engine.block_damage import loss_damage, output_damage

    if job.measure not in MEASURES:
        raise RecipeError(f"unknown measure {job.measure!r}; use {' or '.join(MEASURES)}.")
    if job.measure == "loss" and not loaded.handle.info.has_language_head:
        raise RecipeError("This model is an encoder without a loss; measure the blocks' outputs.")
    started = time.perf_counter()
    windows = loaded.windows(job.text, job.seq_len, job.windows)
    plan = work_out(loaded, job.recipe, emit, cancelled)
    loaded.copy.apply(plan, cancelled)
    dense, told = (loaded.dense, loaded.dense_runner), staged("blocks", emit)
    found: dict[str, Any]
    if job.measure == "loss":
        increase = loss_damage(
            *dense, loaded.copy, plan, windows, progress=told, cancelled=cancelled
        )
        found = {"increase": increase}
    else:
        found = dict(
            output_damage(*dense, loaded.copy, windows, progress=told, cancelled=cancelled)
        )
    return {
        "measure": job.measure,
        **found,
        "tokens": sum(len(window) for window in windows),
        "windows": len(windows),
        "seconds": time.perf_counter() - started,
    }
