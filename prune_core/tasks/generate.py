"""Writes text with the pruned model and, in step, with the dense one."""

from __future__ import annotations

import time
from typing import Any

from prune_core.errors import RecipeError
from prune_core.jobs.evaluate import Generate
from prune_core.models.families import FAMILIES
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out


@answers(Generate)
def generate(loaded: LoadedModel, job: Generate, progress: Progress = NONE) -> dict[str, Any]:
    """Run a Generate job; see ``prune_core.jobs.evaluate.Generate``."""
    from prune_core.evaluation import generation

    handle = loaded.handle
    if not handle.info.has_language_head:
        raise RecipeError("This model is an encoder; it writes no text.")
    if not 1 <= job.max_new_tokens <= generation.MAX_NEW_TOKENS:
        raise RecipeError(
            "the number of new tokens must lie between 1 and {most}, got {asked}.",
            most=generation.MAX_NEW_TOKENS,
            asked=job.max_new_tokens,
        )
    sampling = generation.Sampling(job.greedy, job.seed, job.temperature, job.top_p)
    prompt = generation.encode_prompt(
        handle.tokenizer,
        job.prompt,
        chat=job.chat,
        max_context=handle.info.context,
        continued=handle.structure.kind == "decoder",
    ).to(loaded.device)
    handle.check_tokens(prompt[0].tolist())
    room = handle.info.context - prompt.shape[-1]
    if handle.structure.kind == "encoder-decoder":
        relative = FAMILIES[handle.structure.family].positions == "relative"
        room = job.max_new_tokens if relative else handle.info.context - 1  # it starts with one
    ends = generation.end_tokens(handle.model, handle.tokenizer)
    loaded.copy.apply(work_out(loaded, job.recipe, progress), progress)
    models = {"pruned": loaded.copy.model} | ({"dense": loaded.dense} if job.with_dense else {})
    streams = {
        name: generation.next_tokens(
            model,
            handle.structure,
            prompt,
            sampling,
            ends=ends,
            max_new_tokens=min(job.max_new_tokens, room),
        )
        for name, model in models.items()
    }
    started = time.perf_counter()
    state: dict[str, Any] = {}
    for writings in generation.write_in_step(streams, handle.tokenizer, progress):
        written = sum(len(w.ids) for w in writings.values())
        finished = all(w.finished for w in writings.values())
        state = {
            "prompt_tokens": prompt.shape[-1],
            "pruned": writings["pruned"].to_dict(),
            "dense": writings["dense"].to_dict() if job.with_dense else None,
            "divergence": None,
            "tokens_per_second": written / max(time.perf_counter() - started, 1e-9),
        }
        if job.with_dense:
            state["divergence"] = generation.first_difference(
                writings["pruned"].ids, writings["dense"].ids, finished=finished
            )
        progress.tell(state)
    progress.check("Cancelled while writing.")
    return state
