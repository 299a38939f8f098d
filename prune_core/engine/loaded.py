"""LoadedModel: a dense model with everything the engine keeps beside it."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prune_core.analysis.distributions import layer_row
from prune_core.calibration.statistics import Statistics, input_statistics
from prune_core.calibration.windows import calibration_windows
from prune_core.criteria import CRITERIA
from prune_core.engine.activations import BlockRunner, PrefixCache
from prune_core.engine.jobs import TextSpec
from prune_core.engine.working_copy import WorkingCopy
from prune_core.errors import Cancelled
from prune_core.evaluation.reference import DenseReference
from prune_core.masks import CutPlan, plan_cuts
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.ranks import RankProgress, RankStore
from prune_core.recipe import Calibration, Recipe
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
        return plan_cuts(
            self.ranks,
            self.handle.structure,
            recipe,
            statistics=self.statistics(recipe, cancelled=cancelled),
            progress=progress,
            cancelled=cancelled,
        )

    @staticmethod
    def needs_calibration(recipe: Recipe) -> bool:
        """True if weights go by a criterion that reads a calibration text."""
        cuts = bool(recipe.sparsity) or any(recipe.overrides.values())
        return cuts and bool(CRITERIA[recipe.criterion].needs)

    def statistics(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Statistics | None:
        """What the recipe's criterion needs of its calibration text; None if nothing."""
        if not self.needs_calibration(recipe):
            return None
        return input_statistics(
            self.dense,
            self.handle.structure,
            self.handle.fingerprint,
            self.calibration(recipe),
            progress=progress,
            cancelled=cancelled,
        )

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
