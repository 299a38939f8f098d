"""LoadedModel: a dense model with everything the engine keeps beside it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from prune_core.analysis.blocks.greedy import Step
from prune_core.analysis.neurons.store import NeuronStore
from prune_core.analysis.weights.distributions import layer_row
from prune_core.calibration.statistics import Statistics, statistics_of
from prune_core.calibration.windows import calibration_windows
from prune_core.criteria import LayerStats
from prune_core.disk_cache import key_of
from prune_core.evaluation.reference import DenseReference, windows_fingerprint
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.file_versions import Stamp, text_stamp
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.runner import BlockRunner
from prune_core.progress import NONE, Progress
from prune_core.pruning.edits import Edits, read_edits, write_edits
from prune_core.pruning.plan import CutPlan
from prune_core.pruning.prefix_cache import PrefixCache
from prune_core.pruning.ranks import RankStore
from prune_core.pruning.sequential import decides, prune_by_block
from prune_core.pruning.working_copy import WorkingCopy
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.answers import answers
from prune_core.texts.reading import read_text
from prune_core.texts.windows import start_of_windows, token_windows

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
        load_seconds: how long the job that runs waited for the model.
    """

    def __init__(self, handle: ModelHandle) -> None:
        self.handle = handle
        self.load_seconds = 0.0
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

    def statistics(
        self, windows: Tensor, needs: frozenset[str], progress: Progress = NONE
    ) -> Statistics | None:
        """Statistics of the dense model's layers on a text; None if nothing is needed.

        Args:
            windows: (windows, seq_len) int64.
            needs: see ``prune_core.calibration.statistics.statistics_of``.
            progress: of the pass that runs; a cancel is seen between blocks.
        """
        if not needs:
            return None
        return statistics_of(
            self.handle.model,
            self.handle.structure,
            self.handle.fingerprint,
            windows,
            needs,
            has_language_head=self.handle.info.has_language_head,
            progress=progress,
        )

    def edits(
        self,
        recipe: Recipe,
        plan: CutPlan,
        windows: Tensor,
        gradients: Mapping[str, LayerStats] | None,
        progress: Progress = NONE,
    ) -> Edits:
        """Computed weights: those of the last recipe, from disk, or computed now.

        Args:
            recipe: that computes them.
            plan: its cuts.
            windows: (windows, seq_len) int64 of its calibration text.
            gradients: statistics that are not of inputs, if its criterion reads some.
            progress: (blocks done, blocks); a cancel is seen between batches and layers.

        Raises:
            PruneCoreError: see ``prune_core.pruning.sequential.prune_by_block``.
        """
        cuts = {name: cut.cut for name, cut in plan.cuts.items()}
        parts = {name: cut for name, cut in plan.cuts.items() if cut.structural}
        content = [1, self.handle.fingerprint, decides(recipe), cuts, list(windows.shape)]
        if parts:  # recipes without structure keep the files that they had
            gone = {name: [cut.rows, cut.columns, cut.whole] for name, cut in parts.items()}
            content += [gone, list(plan.dropped_blocks)]
        key = key_of(content, windows)
        edits = self._edits
        if edits is None or edits.fingerprint != key or not edits.intact():
            self._edits = None  # before the next are made: each is as large as the model
            edits = read_edits(key)
            if edits is None:
                edits = prune_by_block(
                    self.handle.model,
                    self.handle.structure,
                    windows,
                    recipe,
                    cuts,
                    key,
                    parts=parts,
                    dropped_blocks=plan.dropped_blocks,
                    gradients=gradients,
                    progress=progress,
                )
                write_edits(edits)
            self._edits = edits
        return edits

    def calibration(self, chosen: Calibration) -> Tensor:
        """Calibration windows, (windows, seq_len) int64; the last text is remembered.

        Raises:
            TextError: see ``prune_core.calibration.windows``.
        """
        known = (chosen, text_stamp(chosen.text))
        if self._calibration is None or self._calibration[0] != known or known[1] is None:
            start = () if self.handle.structure.classes else self._ends()[0]
            tokens = calibration_windows(
                self.handle.tokenizer, chosen, self.handle.info.context, start
            )
            self.handle.check_tokens(tokens.unique().tolist())
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
            self.handle.check_tokens(stacked.unique().tolist())
            while len(self._windows) >= 8:
                self._windows.pop(next(iter(self._windows)))
            self._windows[key] = list(stacked)
        return self._windows[key]

    def _ends(self) -> tuple[list[int], list[int]]:
        """What stands around a window: a classifier reads its first token, which must be [CLS];
        some decoders need a beginning-of-sequence token.
        """
        if not self.handle.structure.classes:
            structure = self.handle.structure
            start = start_of_windows(self.handle.tokenizer, structure.family, structure.kind)
            return list(start), []
        tokenizer = self.handle.tokenizer
        first, last = tokenizer.cls_token_id, tokenizer.sep_token_id
        return [x for x in (first,) if x is not None], [x for x in (last,) if x is not None]

    def layer_rows(self, progress: Progress = NONE) -> list[dict[str, Any]]:
        """Weight statistics of every layer; the dense model never changes, so once is enough."""
        if not self._rows:
            layers = list(self.handle.structure.layers.values())
            rows = []
            for index, layer in enumerate(layers):
                progress.check("Cancelled while weights were read.")
                rows.append(layer_row(self.handle.model, self.handle.structure, layer))
                progress.step(index + 1, len(layers))
            self._rows = rows
        return self._rows

    def token_text(self, token: int) -> str:
        """One token as text; a byte that is no whole character shows as the replacement sign."""
        return str(self.handle.tokenizer.decode([token]))


@answers(LoadModel)
def load_model(loaded: LoadedModel, job: LoadModel, progress: Progress = NONE) -> dict[str, Any]:
    """What is known of the model, once it is loaded; see ``prune_core.jobs.base.LoadModel``."""
    return loaded.handle.info.to_dict()
