"""The engine's core: runs one job at a time on the models it holds. The worker and inline mode
share it, so that what a test or the command line measures is what the page shows.
"""

from __future__ import annotations

import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from prune_core.engine import jobs
from prune_core.engine.loaded import LoadedModel
from prune_core.engine.measure import measure
from prune_core.errors import Cancelled, PruneCoreError, RecipeError, TextError

Emit = Callable[[dict[str, Any]], None]
Poll = Callable[[], bool]


class Core:
    """Holds loaded models and runs jobs on them, one at a time.

    Args:
        device: ``cpu``, ``cuda``, ``mps``; None for ``PRUNE_DEVICE`` or the CPU.
        dtype: of the weights; None for ``PRUNE_DTYPE`` or float32.
    """

    max_models = 2  # dense and working copy of each stay in memory

    def __init__(self, device: str | None = None, dtype: str | None = None) -> None:
        self.device = device or os.environ.get("PRUNE_DEVICE", "cpu")
        self.dtype = dtype or os.environ.get("PRUNE_DTYPE", "float32")
        self._models: OrderedDict[str, LoadedModel] = OrderedDict()

    def run(self, job: jobs.Job, emit: Emit, cancelled: Poll) -> dict[str, Any]:
        """Run a job to its end.

        Args:
            job: what to do.
            emit: given events while it runs.
            cancelled: polled between blocks, windows, layers and tokens.

        Returns:
            The job's result; see ``prune_core.engine.jobs``.

        Raises:
            PruneCoreError: one sentence for the user; ``Cancelled`` among them.
        """
        started = time.perf_counter()
        if cancelled():
            raise Cancelled("Cancelled before it began.")
        try:
            loaded = self.loaded(job.source, emit, cancelled)
            loading = time.perf_counter() - started
            match job:
                case jobs.LoadModel():
                    return loaded.handle.info.to_dict()
                case jobs.Evaluate():
                    return measure(loaded, job, emit, cancelled, loading)
                case jobs.Generate():
                    return _generate(loaded, job, emit, cancelled)
                case jobs.LayerTable():
                    return _layer_table(loaded, job, emit, cancelled)
                case jobs.Histograms():
                    return _histograms(loaded, job, cancelled)
                case jobs.HeadImportance():
                    return _head_importance(loaded, job, emit, cancelled)
                case jobs.AttentionPattern():
                    return _attention_pattern(loaded, job, cancelled)
                case _:
                    raise PruneCoreError(f"There is no such job: {type(job).__name__}.")
        except (torch.OutOfMemoryError, MemoryError) as error:
            raise PruneCoreError(
                "The machine ran out of memory; choose fewer or shorter windows, "
                "or a smaller model."
            ) from error

    def loaded(self, source: str, emit: Emit, cancelled: Poll) -> LoadedModel:
        """The model of a source, loaded if it is not.

        Raises:
            PruneCoreError: see ``prune_core.models.load.load_model``.
        """
        from prune_core.models.load import load_model
        from prune_core.models.sources import parse_source

        key = parse_source(source).text
        if key in self._models:
            self._models.move_to_end(key)
            return self._models[key]

        def progress(stage: str, done: int, total: int, unit: str) -> None:
            emit({"stage": stage, "done": done, "total": total, "unit": unit})

        while len(self._models) >= self.max_models:
            self._models.popitem(last=False)
        handle = load_model(
            parse_source(source),
            dtype=self.dtype,
            device=self.device,
            progress=progress,
            cancelled=cancelled,
        )
        self._models[key] = LoadedModel(handle)
        return self._models[key]


def _generate(loaded: LoadedModel, job: jobs.Generate, emit: Emit, poll: Poll) -> dict[str, Any]:
    from prune_core.evaluation import generation

    handle = loaded.handle
    if not handle.info.has_language_head:
        raise RecipeError("This model is an encoder; it writes no text.")
    if not 1 <= job.max_new_tokens <= generation.MAX_NEW_TOKENS:
        raise RecipeError(
            f"the number of new tokens must lie between 1 and {generation.MAX_NEW_TOKENS}, "
            f"got {job.max_new_tokens}."
        )
    sampling = generation.Sampling(job.greedy, job.seed, job.temperature, job.top_p)
    prompt = generation.encode_prompt(
        handle.tokenizer, job.prompt, chat=job.chat, max_context=handle.info.context
    ).to(loaded.device)
    room = handle.info.context - prompt.shape[-1]
    if handle.structure.kind == "encoder-decoder":
        room = job.max_new_tokens
    ends = generation.end_tokens(handle.model, handle.tokenizer)
    loaded.copy.apply(loaded.plan(job.recipe, cancelled=poll), poll)
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
    for writings in generation.write_in_step(streams, handle.tokenizer, poll):
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
        emit(state)
    if poll():
        raise Cancelled("Cancelled while writing.")
    return state


def _layer_table(
    loaded: LoadedModel, job: jobs.LayerTable, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.masks import count_removed

    rows = loaded.layer_rows(emit, poll)
    plan = loaded.plan(job.recipe, cancelled=poll)
    removed = count_removed(plan, loaded.handle.structure)
    return {
        "rows": [{**row, "removed": removed[row["name"]]} for row in rows],
        "left_dense": list(plan.left_dense),
    }


def _histograms(loaded: LoadedModel, job: jobs.Histograms, poll: Poll) -> dict[str, Any]:
    from prune_core.analysis.distributions import magnitude_histograms
    from prune_core.masks import layer_mask

    structure = loaded.handle.structure
    missing = [name for name in job.layers if name not in structure.layers]
    if missing:
        raise RecipeError(f"this model has no layer {missing[0]}.")
    plan = loaded.plan(job.recipe, cancelled=poll)
    masks = {}
    for name in job.layers:
        touched = plan.cuts[name].cut or plan.cuts[name].dropped_heads
        masks[name] = layer_mask(plan, structure, name) if touched else None
    layers = [structure.layers[name] for name in job.layers]
    return magnitude_histograms(loaded.handle.model, layers, masks, job.bins)


def _head_importance(
    loaded: LoadedModel, job: jobs.HeadImportance, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis import heads

    structure, model = loaded.handle.structure, loaded.handle.model
    started = time.perf_counter()
    tokens = 0
    if job.method == "weight-norm":
        rows, unit = heads.weight_norm_scores(model, structure), "product of norms"
    elif job.method == "gradient":
        if not loaded.handle.info.has_language_head:
            raise RecipeError(
                "This model has no language head, so there is no loss to differentiate; "
                "use weight-norm."
            )
        windows = loaded.windows(job.text, job.seq_len, job.windows)
        tokens = sum(len(w) for w in windows)
        rows = heads.gradient_scores(
            model,
            structure,
            windows,
            normalize=job.normalize,
            progress=lambda done, total: emit({"done": done, "total": total}),
            cancelled=poll,
        )
        unit = "share of the block" if job.normalize else "nats per unit of gate"
    else:
        raise RecipeError(f"unknown method {job.method!r}; use gradient or weight-norm.")
    groups: dict[tuple[str, str], dict[str, Any]] = {}
    for (block, attention), row in zip(heads.all_sites(structure), rows, strict=True):
        site = groups.setdefault(
            (attention.kind, block.stack),
            {
                "kind": attention.kind,
                "stack": block.stack,
                "scores": [],
                "blocks": [],
                "group_size": attention.group_size,
            },
        )
        site["scores"].append(row)
        site["blocks"].append(block.index)
    return {
        "method": job.method,
        "sites": list(groups.values()),
        "unit": unit,
        "seconds": time.perf_counter() - started,
        "tokens": tokens,
    }


def _attention_pattern(
    loaded: LoadedModel, job: jobs.AttentionPattern, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis.heads import attention_pattern

    tokenizer = loaded.handle.tokenizer
    ids = tokenizer(job.sentence, truncation=True, max_length=128).input_ids
    if len(ids) < 1:
        raise TextError("The sentence is empty; write at least one word.")
    loaded.copy.apply(loaded.plan(job.recipe, cancelled=poll), poll)
    model = loaded.handle.model if job.recipe.is_dense else loaded.copy.model
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
