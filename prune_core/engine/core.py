"""The engine's core: runs one job at a time on the models it holds. The worker and inline mode
share it, so that what a test or the command line measures is what the page shows.
"""

from __future__ import annotations

import gc
import os
import time
from collections import OrderedDict
from typing import Any

import torch

from prune_core.errors import Cancelled, PruneCoreError
from prune_core.jobs import base as jobs
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks, LayerImportance
from prune_core.jobs.compare import BlockDamage, MaskOverlap
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.exports import Cost, Export
from prune_core.jobs.file_versions import source_stamp
from prune_core.jobs.heads import AttentionPattern, AttentionSteps, HeadImportance
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.jobs.sweeps import Budget, MeasureCell
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.progress import Emit, Poll
from prune_core.tasks import blocks, cost, export, heads, neurons, sweeps
from prune_core.tasks.compare import block_damage, mask_overlap
from prune_core.tasks.evaluate import measure
from prune_core.tasks.generate import generate
from prune_core.tasks.heads import pattern
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.weights import histograms, layer_table, score_histogram


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
            The job's result; see ``prune_core.jobs.base``.

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
                case Evaluate():
                    return measure(loaded, job, emit, cancelled, loading)
                case MeasureCell():
                    return sweeps.measure_cell(loaded, job, emit, cancelled, loading)
                case Budget():
                    return sweeps.keep_budget(loaded, job, emit, cancelled)
                case Generate():
                    return generate(loaded, job, emit, cancelled)
                case LayerTable():
                    return layer_table(loaded, job, emit, cancelled)
                case Histograms():
                    return histograms(loaded, job, emit, cancelled)
                case ScoreHistogram():
                    return score_histogram(loaded, job, emit, cancelled)
                case MaskOverlap():
                    return mask_overlap(loaded, job, emit, cancelled)
                case HeadImportance():
                    return heads.head_importance(loaded, job, emit, cancelled)
                case BlockDamage():
                    return block_damage(loaded, job, emit, cancelled)
                case BlockImportance():
                    return blocks.block_importance(loaded, job, emit, cancelled)
                case BlockAblation():
                    return blocks.block_ablation(loaded, job, emit, cancelled)
                case GreedyBlocks():
                    return blocks.greedy_blocks(loaded, job, emit, cancelled)
                case LayerImportance():
                    return blocks.layer_importance(loaded, job, emit, cancelled)
                case NeuronImportance():
                    return neurons.neuron_importance(loaded, job, emit, cancelled)
                case NeuronProfile():
                    return neurons.neuron_profile(loaded, job, emit, cancelled)
                case NeuronDetails():
                    return neurons.neuron_details(loaded, job, emit, cancelled)
                case Export():
                    return export.export(loaded, job, emit, cancelled)
                case Cost():
                    return cost.cost(loaded, job, emit, cancelled)
                case AttentionSteps():
                    return heads.steps(loaded, job, emit, cancelled)
                case AttentionPattern():
                    return pattern(loaded, job, emit, cancelled)
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
