"""The Export job: a recipe applied and measured as the screen does, then written and measured."""

from __future__ import annotations

from typing import Any

from prune_core.errors import RecipeError
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.cost import check_repeats
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import named_neurons


@answers(Export)
def export(loaded: LoadedModel, job: Export, progress: Progress = NONE) -> dict[str, Any]:
    """Run an Export job; see ``prune_core.jobs.exports.Export``.

    Raises:
        ExportError: the place or the result will not do; nothing is kept.
        RecipeError: the recipe does not fit the model or the format.
        Cancelled: by ``progress``; nothing is kept.
    """
    from prune_core.exporting.formats import format_problem
    from prune_core.exporting.run import export as write
    from prune_core.exporting.shrink import plan_surgery
    from prune_core.exporting.write import chosen_folder

    check_repeats(job.repeats)
    folder = chosen_folder(job.folder, overwrite=job.overwrite)  # before minutes of work
    resolved = named_neurons(loaded, job.recipe, progress)
    if job.format == "shrunk":
        plan_surgery(loaded.handle.model, loaded.handle.structure, resolved)
    problem = format_problem(job.format, loaded.handle.info, resolved)
    if problem is not None:
        raise RecipeError(problem)
    asked = Evaluate(job.source, job.recipe, job.text, job.seq_len, job.windows)
    screen = measure(loaded, asked, progress)
    return write(
        loaded.handle,
        loaded.copy.model,
        job.recipe,
        job.format,
        folder,
        loaded.windows(job.text, job.seq_len, job.windows),
        screen,
        overwrite=job.overwrite,
        repeats=job.repeats,
        progress=progress,
        resolved=resolved,
    )
