"""LoadedModel: a dense model with everything the engine keeps beside it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prune_core.analysis.distributions import layer_row
from prune_core.calibration.sensitivity import block_increases
from prune_core.calibration.statistics import GRADIENTS, Statistics, statistics_of
from prune_core.calibration.windows import calibration_windows
from prune_core.criteria import CRITERIA
from prune_core.engine.activations import BlockRunner, PrefixCache
from prune_core.engine.jobs import TextSpec
from prune_core.engine.working_copy import WorkingCopy
from prune_core.errors import Cancelled
from prune_core.evaluation.reference import DenseReference
from prune_core.masks import CutPlan, Increases, plan_cuts, plan_edits
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.paths import cache_folder
from prune_core.ranks import RankProgress, RankStore, check_arguments
from prune_core.recipe import Calibration, Recipe
from prune_core.reconstruction.edits import Edits, read_edits, write_edits
from prune_core.reconstruction.sequential import decides, prune_by_block
from prune_core.texts import read_text, token_windows

DEFAULT_PREFIX_MEGABYTES = 768


class LoadedModel:
    """A handle, its working copy, ranks, dense reference and prefix cache.

    Attributes:
        handle: the dense model, never changed.
        dense: a clone of it that can be run block by block.
        dense_runner: runs ``dense``.
        copy: the working copy.
        ranks: its rank store.
        reference: dense answers.
        prefix: block outputs at the last recipes measured.
    """

    def __init__(self, handle: ModelHandle) -> None:
        self.handle = handle
        self.dense = clone_shared(handle.model)
        self.dense_runner = BlockRunner(self.dense, handle.structure)
        self.ranks = RankStore(handle.model, handle.structure.layers, handle.fingerprint)
        self.reference = DenseReference(
            self.dense, handle.structure, handle.fingerprint, handle.info.has_language_head
        )
        megabytes = os.environ.get("PRUNE_PREFIX_CACHE_MB", str(DEFAULT_PREFIX_MEGABYTES))
        self.prefix = PrefixCache(int(float(megabytes) * 1e6))
        self._windows: dict[tuple[TextSpec, int, int], list[Tensor]] = {}
        self._rows: list[dict[str, Any]] = []
        self._calibration: tuple[Calibration, Tensor] | None = None
        self._edits: Edits | None = None

    @cached_property
    def copy(self) -> WorkingCopy:
        """The working copy; its buffers are allocated at the first use."""
        return WorkingCopy(self.handle)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self.handle.model.device

    def plan(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> CutPlan:
        """Work out a recipe for this model; see ``prune_core.masks.plan_cuts``.

        Raises:
            TextError: a criterion needs a calibration text, and that one is of no use.
        """
        statistics = self.statistics(recipe, cancelled=cancelled)
        plan = plan_cuts(
            self.ranks,
            self.handle.structure,
            recipe,
            statistics=statistics,
            increases=self.increases(recipe, cancelled=cancelled),
            progress=progress,
            cancelled=cancelled,
            by_ranks=not self.needs_edits(recipe),
        )
        if not self.needs_edits(recipe):
            return plan
        edits = self._edits_of(recipe, plan, statistics, progress, cancelled)
        return plan_edits(self.handle.structure, recipe, plan, edits)

    @staticmethod
    def needs_edits(recipe: Recipe) -> bool:
        """True if weights are computed for this very recipe, not cut from ranks."""
        if not recipe.removes_weights:
            return False
        reads = bool(CRITERIA[recipe.criterion].needs_for(recipe.criterion_args))
        return recipe.reconstruction != "none" or (recipe.is_sequential and reads)

    @classmethod
    def needs_calibration(cls, recipe: Recipe) -> bool:
        """True if the recipe reads a calibration text."""
        if not recipe.removes_weights:
            return False
        return (
            bool(CRITERIA[recipe.criterion].needs_for(recipe.criterion_args))
            or (recipe.allocation == "sensitivity" and bool(recipe.sparsity))
            or cls.needs_edits(recipe)
        )

    def statistics(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Statistics | None:
        """What the recipe needs of its calibration text in the dense model; None if nothing.

        Sequential calibration gathers statistics of inputs as it prunes: then only those that
        the allocation or a gradient criterion asks for are gathered here.
        """
        needs = CRITERIA[recipe.criterion].needs_for(recipe.criterion_args)
        check_arguments(recipe.criterion, recipe.criterion_args)
        scored = recipe.allocation in ("owl", "sensitivity", "global") and recipe.sparsity
        if self.needs_edits(recipe) and not scored:
            needs = frozenset(n for n in needs if n in GRADIENTS)
        if not needs or not recipe.removes_weights:
            return None
        return statistics_of(
            self.handle.model,
            self.handle.structure,
            self.handle.fingerprint,
            self.calibration(recipe),
            needs,
            has_language_head=self.handle.info.has_language_head,
            progress=progress,
            cancelled=cancelled,
        )

    def increases(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Increases | None:
        """Each block's loss increase alone, where the allocation is ``sensitivity``."""
        if recipe.allocation != "sensitivity" or not recipe.sparsity:
            return None
        return block_increases(
            self.ranks,
            self.handle,
            recipe,
            self.calibration(recipe),
            self.statistics(recipe, cancelled=cancelled),
            progress=progress,
            cancelled=cancelled,
        )

    def _edits_of(
        self,
        recipe: Recipe,
        plan: CutPlan,
        statistics: Statistics | None,
        progress: RankProgress | None,
        cancelled: Callable[[], bool] | None,
    ) -> Edits:
        """Computed weights: those of the last recipe, from disk, or computed now."""
        windows = self.calibration(recipe)
        cuts = {name: cut.cut for name, cut in plan.cuts.items()}
        content = [1, self.handle.fingerprint, decides(recipe), cuts, list(windows.shape)]
        digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
        digest.update(windows.numpy().tobytes())
        key = digest.hexdigest()[:24]
        folder = cache_folder("edits")
        if self._edits is None or self._edits.fingerprint != key:
            self._edits = None  # before the next are made: each is as large as the model
            found = read_edits(folder, key)
            if found is None:
                found = prune_by_block(
                    self.handle.model,
                    self.handle.structure,
                    windows,
                    recipe,
                    cuts,
                    key,
                    gradients=statistics.layers if statistics is not None else None,
                    progress=progress,
                    cancelled=cancelled,
                )
                write_edits(folder, found)
            self._edits = found
        return self._edits

    def calibration(self, recipe: Recipe) -> Tensor:
        """The recipe's calibration windows, (windows, seq_len); the last text is remembered.

        Raises:
            TextError: see ``prune_core.calibration.windows``.
        """
        chosen = recipe.calibration
        if (
            self._calibration is None
            or self._calibration[0] != chosen
            or chosen.text.kind == "file"
        ):
            tokens = calibration_windows(self.handle.tokenizer, chosen, self.handle.info.context)
            self._calibration = (chosen, tokens)
        return self._calibration[1]

    def windows(self, text: TextSpec, seq_len: int, count: int) -> list[Tensor]:
        """Token windows of a text, (seq,) each; the last few texts are remembered.

        A text shorter than one window gives one window of its length.

        Raises:
            TextError: see ``prune_core.texts``.
        """
        key = (text, seq_len, count)
        if text.kind == "file" or key not in self._windows:  # a file may have changed
            stacked = token_windows(
                self.handle.tokenizer,
                read_text(text),
                seq_len=seq_len,
                windows=count,
                max_context=self.handle.info.context,
            )
            while len(self._windows) >= 8:
                self._windows.pop(next(iter(self._windows)))
            self._windows[key] = list(stacked)
        return self._windows[key]

    def layer_rows(
        self, emit: Callable[[dict[str, Any]], None], cancelled: Callable[[], bool]
    ) -> list[dict[str, Any]]:
        """Weight statistics of every layer; the dense model never changes, so once is enough."""
        if not self._rows:
            layers = list(self.handle.structure.layers.values())
            rows = []
            for index, layer in enumerate(layers):
                if cancelled():
                    raise Cancelled("Cancelled while weights were read.")
                rows.append(layer_row(self.handle.model, self.handle.structure, layer))
                emit({"done": index + 1, "total": len(layers)})
            self._rows = rows
        return self._rows

    def token_text(self, token: int) -> str:
        """One token as text; a byte that is no whole character shows as the replacement sign."""
        return str(self.handle.tokenizer.decode([token]))
