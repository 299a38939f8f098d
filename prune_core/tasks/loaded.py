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

from prune_core.allocation.sensitivity import Increases
from prune_core.analysis.blocks.greedy import Step
from prune_core.analysis.neurons.statistics import NeuronStatistics
from prune_core.analysis.neurons.store import NeuronStore
from prune_core.analysis.weights.distributions import layer_row
from prune_core.calibration.statistics import GRADIENTS, Statistics, statistics_of
from prune_core.calibration.windows import calibration_windows
from prune_core.criteria import CRITERIA
from prune_core.errors import Cancelled
from prune_core.evaluation.reference import DenseReference, windows_fingerprint
from prune_core.jobs.base import TextSpec
from prune_core.jobs.file_versions import Stamp, text_stamp
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.paths import cache_folder
from prune_core.pruning.edits import Edits, read_edits, write_edits
from prune_core.pruning.plan import CutPlan, plan_cuts, plan_edits
from prune_core.pruning.prefix_cache import PrefixCache
from prune_core.pruning.ranks import RankProgress, RankStore, check_arguments
from prune_core.pruning.sensitivity import block_increases
from prune_core.pruning.sequential import decides, prune_by_block
from prune_core.pruning.working_copy import WorkingCopy
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.texts.reading import read_text
from prune_core.texts.windows import token_windows

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
        neurons: statistics of its neurons.
        prefix: block outputs at the last recipes measured.
        exact_start: log-probabilities of the dense model at the start of the last text measured,
            with the fingerprint of its first window.
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
        self.neurons = NeuronStore(handle)
        self.prefix = PrefixCache(int(float(megabytes) * 1e6))
        self._windows: dict[tuple[TextSpec, Stamp, int, int], list[Tensor]] = {}
        self.exact_start: tuple[str, Tensor] | None = None
        self._rows: list[dict[str, Any]] = []
        self._calibration: tuple[tuple[Calibration, Stamp], Tensor] | None = None
        self._edits: Edits | None = None
        self._paths: dict[tuple[str, bool], list[Step]] = {}

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
        """Work out a recipe for this model; see ``prune_core.pruning.plan.plan_cuts``.

        Raises:
            TextError: a criterion needs a calibration text, and that one is of no use.
        """
        statistics = self.statistics(recipe, cancelled=cancelled)
        plan = plan_cuts(
            self.ranks,
            self.handle.structure,
            self.resolved(recipe, cancelled=cancelled),
            statistics=statistics,
            increases=self.increases(recipe, cancelled=cancelled),
            progress=progress,
            cancelled=cancelled,
            by_ranks=not self.needs_edits(recipe),
        )
        if self.needs_edits(recipe):
            plan = plan_edits(plan, self._edits_of(recipe, plan, statistics, progress, cancelled))
        if not recipe.compensate:
            return plan
        return self.neurons.compensated(plan, self.neuron_statistics(recipe, cancelled=cancelled))

    def resolved(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Recipe:
        """The recipe with its share of neurons, if it has one, as named neurons."""
        if recipe.neurons is None:
            return recipe
        self.neurons.check(recipe)
        found = self.neuron_statistics(recipe, progress=progress, cancelled=cancelled)
        return self.neurons.resolved(recipe, found)

    def neuron_statistics(
        self,
        recipe: Recipe | Calibration,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> NeuronStatistics:
        """What the recipe's calibration text teaches about the neurons of the dense model."""
        windows = self.calibration(recipe)
        return self.neurons.statistics(windows, progress=progress, cancelled=cancelled)

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
        if recipe.reads_neurons:
            return True
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
        if recipe.reads_neurons:  # the first pass over the text: here it can say how far it is
            self.neurons.check(recipe)
            self.neuron_statistics(recipe, progress=progress, cancelled=cancelled)
        scored = recipe.allocation in ("owl", "sensitivity", "global") and recipe.sparsity
        if self.needs_edits(recipe) and not scored:
            needs = frozenset(n for n in needs if n in GRADIENTS)
        if not recipe.removes_weights:
            return None
        return self._statistics(recipe, needs, progress, cancelled)

    def dense_statistics(
        self,
        recipe: Recipe,
        *,
        progress: RankProgress | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> Statistics | None:
        """What the recipe's criterion needs to score the dense model, whatever is removed."""
        check_arguments(recipe.criterion, recipe.criterion_args)
        needs = CRITERIA[recipe.criterion].needs_for(recipe.criterion_args)
        return self._statistics(recipe, needs, progress, cancelled)

    def _statistics(
        self,
        recipe: Recipe,
        needs: frozenset[str],
        progress: RankProgress | None,
        cancelled: Callable[[], bool] | None,
    ) -> Statistics | None:
        if not needs:
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
        parts = {name: cut for name, cut in plan.cuts.items() if cut.structural}
        content = [1, self.handle.fingerprint, decides(recipe), cuts, list(windows.shape)]
        if parts:  # recipes without structure keep the files that they had
            gone = {name: [cut.rows, cut.columns, cut.whole] for name, cut in parts.items()}
            content += [gone, list(plan.dropped_blocks)]
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
                    parts=parts,
                    dropped_blocks=plan.dropped_blocks,
                    gradients=statistics.layers if statistics is not None else None,
                    progress=progress,
                    cancelled=cancelled,
                )
                write_edits(folder, found)
            self._edits = found
        return self._edits

    def calibration(self, recipe: Recipe | Calibration) -> Tensor:
        """The calibration windows of a recipe, or of a calibration that no recipe reads.

        They are (windows, seq_len); the last text is remembered.

        Raises:
            TextError: see ``prune_core.calibration.windows``.
        """
        chosen = recipe.calibration if isinstance(recipe, Recipe) else recipe
        known = (chosen, text_stamp(chosen.text))
        if self._calibration is None or self._calibration[0] != known or known[1] is None:
            tokens = calibration_windows(self.handle.tokenizer, chosen, self.handle.info.context)
            self._calibration = (known, tokens)
        return self._calibration[1]

    def path_of(self, windows: list[Tensor], *, ends: bool) -> list[Step]:
        """Greedy removals found so far on these windows; the last few texts are remembered.

        Args:
            windows: (seq,) each.
            ends: the first and last block were candidates too.
        """
        key = (windows_fingerprint(windows), ends)
        while key not in self._paths and len(self._paths) >= 8:
            self._paths.pop(next(iter(self._paths)))
        return self._paths.setdefault(key, [])

    def windows(self, text: TextSpec, seq_len: int, count: int) -> list[Tensor]:
        """Token windows of a text, (seq,) each; the last few texts are remembered.

        A text shorter than one window gives one window of its length. Windows of a classifier
        stand between its special tokens.

        Raises:
            TextError: see ``prune_core.texts.reading``.
        """
        key = (text, text_stamp(text), seq_len, count)
        if key[1] is None or key not in self._windows:
            stacked = token_windows(
                self.handle.tokenizer,
                read_text(text),
                seq_len=seq_len,
                windows=count,
                max_context=self.handle.info.context,
                ends=self._ends(),
            )
            while len(self._windows) >= 8:
                self._windows.pop(next(iter(self._windows)))
            self._windows[key] = list(stacked)
        return self._windows[key]

    def _ends(self) -> tuple[list[int], list[int]]:
        """What stands around a window: a classifier reads its first token, which must be [CLS]."""
        if not self.handle.structure.classes:
            return [], []
        tokenizer = self.handle.tokenizer
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        return [x for x in (first,) if x is not None], [x for x in (last,) if x is not None]

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
