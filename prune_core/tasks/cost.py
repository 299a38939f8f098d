"""The Cost job: a recipe applied, counted and, if asked for, timed beside the dense model."""

from __future__ import annotations

from typing import Any

import torch

from prune_core.errors import RecipeError
from prune_core.jobs.exports import Cost
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import plan, prepare

MAX_REPEATS = 100


@answers(Cost)
def cost(loaded: LoadedModel, job: Cost, progress: Progress = NONE) -> dict[str, Any]:
    """Run a Cost job; see ``prune_core.jobs.exports.Cost``.

    Raises:
        RecipeError: the recipe does not fit the model, or the number of repeats is no number of
            repeats.
        SpeedError: a process that measures was ended.
        Cancelled: by ``progress``; nothing is kept on disk.
    """
    import transformers

    from prune_core.exporting.cost import cost_numbers, prompt
    from prune_core.exporting.speed import NEW_TOKENS

    check_repeats(job.repeats)
    handle = loaded.handle
    prepared = prepare(loaded, job.recipe, progress)
    loaded.copy.apply(plan(prepared, progress), progress)
    tokens = prompt(handle)
    numbers = cost_numbers(
        handle,
        loaded.copy.model,
        prepared.named,
        measured=job.repeats > 0,
        zeros=True,
        tokens=tokens,
        repeats=job.repeats,
        progress=progress,
    )
    return {
        **numbers,
        "item": handle.model.dtype.itemsize,
        "repeats": job.repeats,
        "parts": prepared.named.parts_dropped,
        "protocol": {
            "dtype": handle.info.dtype,
            "device": handle.info.device,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),  # as it is, it would import torch where it is read
            "transformers": transformers.__version__,
            "prompt_tokens": len(tokens),
            "new_tokens": NEW_TOKENS,
        },
    }


def check_repeats(repeats: int) -> None:
    """Refuse what is no number of repeats.

    Raises:
        RecipeError: below 0 or above 100.
    """
    if not 0 <= repeats <= MAX_REPEATS:
        raise RecipeError(
            "speed is measured 0 (not at all) to {most} times, got {repeats}.",
            most=MAX_REPEATS,
            repeats=repeats,
        )
