"""The engine's core: runs one job at a time on the models it holds. The worker and inline mode
share it, so that what a test or the command line measures is what the page shows.
"""

from __future__ import annotations

import gc
import os
import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import torch

from prune_core.engine import (
    handle_blocks,
    handle_cost,
    handle_export,
    handle_heads,
    handle_neurons,
    handle_sweeps,
    jobs,
)
from prune_core.engine.handle_compare import block_damage
from prune_core.engine.loaded import LoadedModel
from prune_core.engine.measure import measure
from prune_core.engine.planning import staged, work_out
from prune_core.engine.stamps import source_stamp
from prune_core.errors import Cancelled, PruneCoreError, RecipeError
from prune_core.masks import CutPlan
from prune_core.models.families import FAMILIES
from prune_core.models.structure import Layer

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
        self._stamps: dict[str, Any] = {}

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
                case jobs.MeasureCell():
                    return handle_sweeps.measure_cell(loaded, job, emit, cancelled, loading)
                case jobs.Budget():
                    return handle_sweeps.keep_budget(loaded, job, emit, cancelled)
                case jobs.Generate():
                    return _generate(loaded, job, emit, cancelled)
                case jobs.LayerTable():
                    return _layer_table(loaded, job, emit, cancelled)
                case jobs.Histograms():
                    return _histograms(loaded, job, emit, cancelled)
                case jobs.ScoreHistogram():
                    return _score_histogram(loaded, job, emit, cancelled)
                case jobs.MaskOverlap():
                    return _mask_overlap(loaded, job, emit, cancelled)
                case jobs.HeadImportance():
                    return handle_heads.head_importance(loaded, job, emit, cancelled)
                case jobs.BlockDamage():
                    return block_damage(loaded, job, emit, cancelled)
                case jobs.BlockImportance():
                    return handle_blocks.block_importance(loaded, job, emit, cancelled)
                case jobs.BlockAblation():
                    return handle_blocks.block_ablation(loaded, job, emit, cancelled)
                case jobs.GreedyBlocks():
                    return handle_blocks.greedy_blocks(loaded, job, emit, cancelled)
                case jobs.LayerImportance():
                    return handle_blocks.layer_importance(loaded, job, emit, cancelled)
                case jobs.NeuronImportance():
                    return handle_neurons.neuron_importance(loaded, job, emit, cancelled)
                case jobs.NeuronProfile():
                    return handle_neurons.neuron_profile(loaded, job, emit, cancelled)
                case jobs.NeuronDetails():
                    return handle_neurons.neuron_details(loaded, job, emit, cancelled)
                case jobs.Export():
                    return handle_export.export(loaded, job, emit, cancelled)
                case jobs.Cost():
                    return handle_cost.cost(loaded, job, emit, cancelled)
                case jobs.AttentionSteps():
                    return handle_heads.steps(loaded, job, emit, cancelled)
                case jobs.AttentionPattern():
                    return _attention_pattern(loaded, job, emit, cancelled)
                case _:
                    raise PruneCoreError(f"There is no such job: {type(job).__name__}.")
        except (RuntimeError, MemoryError) as error:  # torch.OutOfMemoryError is one of the former
            if not _out_of_memory(error):
                raise
            raise PruneCoreError(
                "The machine ran out of memory; choose fewer or shorter windows, "
                "or a smaller model."
            ) from error

    def warnings(self, source: str) -> tuple[str, ...]:
        """What loading a model gave to say; empty where it is not loaded."""
        from prune_core.models.sources import parse_source

        model = self._models.get(parse_source(source).text)
        return () if model is None else model.handle.info.warnings

    def loaded(self, source: str, emit: Emit, cancelled: Poll) -> LoadedModel:
        """The model of a source, loaded if it is not.

        Raises:
            PruneCoreError: see ``prune_core.models.load.load_model``.
        """
        from prune_core.models.load import load_model
        from prune_core.models.sources import parse_source

        key = parse_source(source).text
        stamp = source_stamp(key)
        if key in self._models and self._stamps[key] == stamp:
            self._models.move_to_end(key)
            return self._models[key]

        def progress(stage: str, done: int, total: int, unit: str) -> None:
            emit({"stage": stage, "done": done, "total": total, "unit": unit})

        gone = self._models.pop(key, None) is not None  # its files have changed
        while len(self._models) >= self.max_models:
            self._models.popitem(last=False)
            gone = True
        if gone:
            gc.collect()  # wrapped blocks refer to themselves: the memory is free only after this
        handle = load_model(
            parse_source(source),
            dtype=self.dtype,
            device=self.device,
            progress=progress,
            cancelled=cancelled,
        )
        self._models[key] = LoadedModel(handle)
        self._stamps[key] = stamp
        return self._models[key]


def _out_of_memory(error: BaseException) -> bool:
    """Of any device; torch's allocator for the CPU raises a plain RuntimeError."""
    said = str(error).lower()
    wanting = "can't allocate memory" in said or "not enough memory" in said
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or wanting


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
    loaded.copy.apply(work_out(loaded, job.recipe, emit, poll), poll)
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
    from prune_core.analysis.scores import score_row
    from prune_core.masks import count_removed
    from prune_core.ranks import layer_scores

    rows = loaded.layer_rows(emit, poll)
    plan = work_out(loaded, job.recipe, emit, poll)
    removed = count_removed(plan, loaded.handle.structure)
    rows = [{**row, "removed": removed[row["name"]]} for row in rows]
    if job.scored:
        recipe, told = job.recipe, staged("statistics", emit)
        statistics = loaded.dense_statistics(recipe, progress=told, cancelled=poll)
        for index, layer in enumerate(loaded.handle.structure.layers.values()):
            if poll():
                raise Cancelled("Cancelled while weights were scored.")
            scores = layer_scores(
                loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
            )
            rows[index] |= score_row(scores)
            emit({"stage": "ranks", "done": index + 1, "total": len(rows)})
    return {"rows": rows, "left_dense": list(plan.left_dense)}


def _mask(loaded: LoadedModel, plan: CutPlan, name: str) -> torch.Tensor | None:
    """A layer's keep-mask, None where nothing of it goes."""
    from prune_core.masks import layer_mask

    return layer_mask(plan, loaded.handle.structure, name) if plan.cuts[name].touched else None


def _known_layer(loaded: LoadedModel, name: str) -> Layer:
    structure = loaded.handle.structure
    if name not in structure.layers:
        raise RecipeError(f"this model has no layer {name}.")
    return structure.layers[name]


def _histograms(
    loaded: LoadedModel, job: jobs.Histograms, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis.distributions import magnitude_histograms

    layers = [_known_layer(loaded, name) for name in job.layers]
    plan = work_out(loaded, job.recipe, emit, poll)
    masks = {name: _mask(loaded, plan, name) for name in job.layers}
    return magnitude_histograms(loaded.handle.model, layers, masks, job.bins)


def _score_histogram(
    loaded: LoadedModel, job: jobs.ScoreHistogram, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis.scores import score_bins
    from prune_core.ranks import layer_scores

    layer, recipe = _known_layer(loaded, job.layer), job.recipe
    plan = work_out(loaded, recipe, emit, poll)
    told = staged("statistics", emit)
    statistics = loaded.dense_statistics(recipe, progress=told, cancelled=poll)
    scores = layer_scores(
        loaded.handle.model, layer, recipe.criterion, recipe.criterion_args, statistics
    )
    found = score_bins(scores, _mask(loaded, plan, job.layer), job.bins)
    place = {"name": layer.name, "block": layer.block, "role": layer.role}
    return {**place, "criterion": recipe.criterion, **found}


def _mask_overlap(
    loaded: LoadedModel, job: jobs.MaskOverlap, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis.scores import jaccard, overlap

    ours, theirs = (work_out(loaded, recipe, emit, poll) for recipe in (job.recipe, job.other))
    rows: list[dict[str, Any]] = []
    total = {"numel": 0, "ours": 0, "theirs": 0, "both": 0, "either": 0}
    chance = 0.0  # weights that independent masks of these counts would share
    for index, (name, layer) in enumerate(loaded.handle.structure.layers.items()):
        if poll():
            raise Cancelled("Cancelled while masks were compared.")
        masks = [_mask(loaded, plan, name) for plan in (ours, theirs)]
        whole = torch.ones(layer.out_features, layer.in_features, dtype=torch.bool)
        first, second = (whole if mask is None else mask for mask in masks)
        counts = {"numel": layer.numel, **overlap(first, second)}
        chance += counts["ours"] * counts["theirs"] / max(layer.numel, 1)
        total = {key: total[key] + counts[key] for key in total}
        place = {"name": name, "block": layer.block, "role": layer.role}
        rows.append({**place, **counts, "jaccard": jaccard(counts["both"], counts["either"])})
        emit({"stage": "overlap", "done": index + 1, "total": len(loaded.handle.structure.layers)})
    either = total["ours"] + total["theirs"] - chance
    return {
        "layers": rows,
        "total": {**total, "jaccard": jaccard(total["both"], total["either"])},
        "by_chance": chance / either if either else None,
    }


def _attention_pattern(
    loaded: LoadedModel, job: jobs.AttentionPattern, emit: Emit, poll: Poll
) -> dict[str, Any]:
    from prune_core.analysis.heads import attention_pattern

    ids = handle_heads.sentence_tokens(loaded, job.sentence)
    # a head that this block has lost is shown as it would look: its queries are zero
    recipe = job.recipe.with_heads_of(job.block)
    loaded.copy.apply(work_out(loaded, recipe, emit, poll), poll)
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
