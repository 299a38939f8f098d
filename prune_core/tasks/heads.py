"""Jobs about heads: scores by any method, and one head step by step."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import torch

from prune_core.analysis.heads.methods import HeadRequest
from prune_core.errors import RecipeError, TextError
from prune_core.jobs.heads import HEAD_METHODS, AttentionPattern, AttentionSteps, HeadImportance
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

SENTENCE_TOKENS = 128
"""Of a sentence whose attention is drawn; the rest is not read."""


@answers(HeadImportance)
def head_importance(
    loaded: LoadedModel, job: HeadImportance, progress: Progress = NONE
) -> dict[str, Any]:
    """Run a HeadImportance job; see ``prune_core.jobs.heads.HeadImportance``.

    Raises:
        RecipeError: no attention, or an unknown method.
        TextError: the text does not fit, or the model gives no attention weights.
        Cancelled: by ``progress``.
    """
    from prune_core.analysis.heads.scores import all_sites

    if job.method not in HEAD_METHODS:
        raise RecipeError(
            "unknown method {method!r}; use {known:list}.", method=job.method, known=HEAD_METHODS
        )
    method, sites = HEAD_METHODS[job.method], all_sites(loaded.handle.structure)
    started = time.perf_counter()
    windows = []
    if "text" in method.needs:
        windows = loaded.windows(job.text, job.seq_len, job.windows)
    asked = HeadRequest(
        loaded.handle, windows, job.normalize, progress, lambda rows: _sites(sites, rows)
    )
    found = method.fn(asked)
    return {
        "method": job.method,
        "sites": _sites(sites, found.rows, found.stderr),
        "unit": found.unit,
        "seconds": time.perf_counter() - started,
        "tokens": sum(len(w) for w in windows),
    }


def _sites(
    sites: Sequence[Any], rows: Sequence[Any], stderr: Sequence[Any] | None = None
) -> list[dict[str, Any]]:
    """Rows gathered by stack and kind of attention."""
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for place, ((block, attention), row) in enumerate(zip(sites, rows, strict=True)):
        site = groups.setdefault(
            (attention.kind, block.stack),
            {
                "kind": attention.kind,
                "stack": block.stack,
                "scores": [],
                "stderr": None if stderr is None else [],
                "blocks": [],
                "group_size": attention.group_size,
            },
        )
        site["scores"].append(row)
        site["blocks"].append(block.index)
        if stderr is not None:
            site["stderr"].append(stderr[place])
    return list(groups.values())


def sentence_tokens(loaded: LoadedModel, sentence: str) -> list[int]:
    """Of a sentence whose attention is drawn, at most :data:`SENTENCE_TOKENS`.

    Raises:
        TextError: it has none.
    """
    longest = min(SENTENCE_TOKENS, loaded.handle.info.context)
    ids: list[int] = loaded.handle.tokenizer(
        sentence, truncation=True, max_length=longest
    ).input_ids
    if not ids:
        raise TextError("The sentence is empty; write at least one word.")
    loaded.handle.check_tokens(ids)
    return ids


@answers(AttentionSteps)
def steps(loaded: LoadedModel, job: AttentionSteps, progress: Progress = NONE) -> dict[str, Any]:
    """Run an AttentionSteps job; see ``prune_core.jobs.heads.AttentionSteps``.

    Raises:
        RecipeError, TextError: see ``prune_core.analysis.heads.steps``.
    """
    import torch

    from prune_core.analysis.heads.steps import attention_steps

    ids = sentence_tokens(loaded, job.sentence)
    recipe = job.recipe.with_heads_of(job.block)
    loaded.copy.apply(work_out(loaded, recipe, progress), progress)
    model = loaded.handle.model if recipe.is_dense else loaded.copy.model
    tokens = torch.tensor([ids], device=loaded.device)
    found = attention_steps(
        model, loaded.handle.structure, tokens, job.block, job.head, job.token, job.kind
    )
    texts = [loaded.token_text(i) for i in ids]
    return {**found, "tokens": texts, "key_tokens": texts}


@answers(AttentionPattern)
def pattern(
    loaded: LoadedModel, job: AttentionPattern, progress: Progress = NONE
) -> dict[str, Any]:
    """Run an AttentionPattern job; see ``prune_core.jobs.heads.AttentionPattern``."""
    from prune_core.analysis.heads.scores import attention_pattern

    ids = sentence_tokens(loaded, job.sentence)
    # a head that this block has lost is shown as it would look: its queries are zero
    recipe = job.recipe.with_heads_of(job.block)
    loaded.copy.apply(work_out(loaded, recipe, progress), progress)
    model = loaded.handle.model if recipe.is_dense else loaded.copy.model
    tokens = torch.tensor([ids], device=loaded.device)
    maps = attention_pattern(model, loaded.handle.structure, tokens, job.block, job.kind)
    texts = [loaded.token_text(i) for i in ids]
    return {
        "tokens": texts,
        "key_tokens": texts,
        "heads": maps.tolist(),
        "block": job.block,
        "kind": job.kind,
    }
