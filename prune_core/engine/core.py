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

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job
from prune_core.jobs.file_versions import source_stamp
from prune_core.progress import NONE, Progress
from prune_core.tasks.answers import all_answers, answer_to
from prune_core.tasks.loaded import LoadedModel


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
        all_answers()  # what they import is there before the first job, whose time is taken

    def run(self, job: Job, progress: Progress = NONE) -> dict[str, Any]:
        """Run a job to its end.

        Args:
            job: what to do.
            progress: given events while it runs; a cancel is seen between blocks, windows, layers
                and tokens.

        Returns:
            The job's result; see ``prune_core.jobs.base``.

        Raises:
            PruneCoreError: one sentence for the user; ``Cancelled`` among them.
        """
        started = time.perf_counter()
        progress.check("Cancelled before it began.")
        answer = answer_to(job)
        try:
            loaded = self.loaded(job.source, progress)
            loaded.load_seconds = time.perf_counter() - started
            return answer(loaded, job, progress)
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

    def loaded(self, source: str, progress: Progress = NONE) -> LoadedModel:
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

        is_removed = self._models.pop(key, None) is not None  # its files have changed
        while len(self._models) >= self.max_models:
            self._models.popitem(last=False)
            is_removed = True
        if is_removed:
            gc.collect()  # wrapped blocks refer to themselves: the memory is free only after this
        handle = load_model(
            parse_source(source),
            dtype=self.dtype,
            device=self.device,
            progress=progress,
        )
        self._models[key] = LoadedModel(handle)
        self._stamps[key] = stamp
        return self._models[key]


def _out_of_memory(error: BaseException) -> bool:
    """Of any device; torch's allocator for the CPU raises a plain RuntimeError."""
    message = str(error).lower()
    wanting = "can't allocate memory" in message or "not enough memory" in message
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or wanting
