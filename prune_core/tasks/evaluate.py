"""The Evaluate job: apply a recipe, then measure window by window, telling after each."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from prune_core.errors import ModelFileError, RecipeError, TextError
from prune_core.evaluation.agreement import compact_kl
from prune_core.evaluation.estimate import Z95, Estimate, estimate, safe_exp
from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import METRICS, headline_of, kind_of
from prune_core.evaluation.reference import window_fingerprint, windows_fingerprint
from prune_core.evaluation.scoring import (
    DenseWindow,
    WindowScore,
    part_scores_alike,
    predictions_per_window,
    score_window,
)
from prune_core.jobs.evaluate import Evaluate
from prune_core.progress import NONE, Progress
from prune_core.pruning.plan import CutPlan, emptied
from prune_core.pruning.prefix_cache import BlockStates
from prune_core.pruning.working_copy import Applied
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.answers import answers
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import plan, prepare
from prune_core.texts.windows import MAX_WINDOWS, adds_start, check_windows, start_of_windows

FIRST_TOKENS = 128
"""Length of the first look: the leading part of the first window, for a number within a second."""

CHECKED_TOKENS = 64
"""Positions whose exact KL is computed too, to state the error of the compact one."""

STRIP_TOKENS = 512

OnLogits = Callable[[slice, Tensor], None]


@answers(Evaluate)
def evaluate(loaded: LoadedModel, job: Evaluate, progress: Progress = NONE) -> dict[str, Any]:
    """Run an Evaluate job; see :func:`measure`."""
    return measure(loaded, job, progress, loaded.load_seconds)


def measure(
    loaded: LoadedModel,
    job: Evaluate,
    progress: Progress = NONE,
    load_seconds: float = 0.0,
    *,
    look: bool = True,
) -> dict[str, Any]:
    """Run an Evaluate job; see ``prune_core.jobs.evaluate.Evaluate`` for events and result.

    Args:
        loaded: the model.
        job: what to measure.
        progress: a cancel is seen between blocks, layers and windows.
        load_seconds: what loading took.
        look: give a first number early, which costs a little more in all.

    Raises:
        RecipeError, TextError: the recipe or text does not fit the model.
        Cancelled: between blocks, layers or windows.
    """
    return begin(loaded, job, progress, load_seconds).run(look=look)


def begin(
    loaded: LoadedModel,
    job: Evaluate,
    progress: Progress = NONE,
    load_seconds: float = 0.0,
    *,
    start: int = 0,
) -> Measurement:
    """Bring the working copy to a job's recipe, ready to be measured.

    Args:
        loaded: the model.
        job: what to measure.
        progress: a cancel is seen between blocks and layers.
        load_seconds: what loading took.
        start: windows of the text to leave out at its beginning.

    Raises:
        RecipeError, TextError: the recipe or text does not fit the model.
        Cancelled: between blocks or layers.
    """
    check_windows(job.seq_len, job.windows)
    if not 0 <= start <= MAX_WINDOWS:
        raise RecipeError(
            "0 to {most} windows can be left out, got {start}.", most=MAX_WINDOWS, start=start
        )
    started = time.perf_counter()
    seconds = {"load": load_seconds, "statistics": 0.0, "ranks": 0.0, "apply": 0.0, "evaluate": 0.0}
    windows = loaded.windows(job.text, job.seq_len, start + job.windows)[start:]
    if not windows:
        raise TextError(
            "the text has no windows after the first {start}; name a longer text.", start=start
        )
    before = progress.stage("", windows=len(windows))
    mark = time.perf_counter()
    prepared = prepare(loaded, job.recipe, before, apart_from=windows)
    seconds["statistics"] = time.perf_counter() - mark
    mark = time.perf_counter()
    cuts = plan(prepared, before)
    seconds["ranks"] = time.perf_counter() - mark
    mark = time.perf_counter()
    applied = loaded.copy.apply(cuts, progress)
    seconds["apply"] = time.perf_counter() - mark
    # statistics are as large as the model for some criteria: they go before the windows come
    named = prepared.named
    del prepared
    return Measurement(loaded, named, job, windows, applied, cuts, seconds, started, progress)


class Measurement:
    """What one Evaluate job knows so far.

    Attributes:
        named: the recipe that the working copy is at, its share of neurons as named ones.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        named: Recipe,
        job: Evaluate,
        windows: list[Tensor],
        applied: Applied,
        cuts: CutPlan,
        seconds: dict[str, float],
        started: float,
        progress: Progress,
    ) -> None:
        self.loaded, self.named, self.job, self.windows = loaded, named, job, windows
        self.applied, self.left_dense = applied, list(cuts.left_dense)
        self.clipped = list(cuts.clipped)
        self.emptied = emptied(cuts, loaded.handle.structure)
        self.damped = list(cuts.edits.damped) if cuts.edits is not None else []
        self.seconds, self.started, self.progress = seconds, started, progress
        self.structure = loaded.handle.structure
        self.language = loaded.handle.info.has_language_head
        self.kind = kind_of(self.structure.kind, self.language, self.structure.classes)
        self.leading = part_scores_alike(self.structure, loaded.handle.model.config)
        self.dense: list[DenseWindow] = []
        self.scores: list[WindowScore] = []
        self.first_block: int | None = None
        self.kl_error: float | None = None
        self.exact = torch.empty(0)

    def run(self, *, look: bool = True) -> dict[str, Any]:
        """Measure window by window; the job's result.

        Raises:
            ModelFileError: answers that are not finite.
            Cancelled: between blocks or windows.
        """
        mark = time.perf_counter()
        known = [self.loaded.reference.find(tokens) for tokens in self.windows]
        self.loaded.prefix.retain(window_fingerprint(t) for t in self.windows)
        states = self.loaded.copy.block_states()
        complete = all(k is not None for k in known)
        if complete:
            self.dense = [k for k in known if k is not None]
        if look:
            self._first_look(known[0], states)
        for index, tokens in enumerate(self.windows):
            answer = known[index]
            if answer is None:
                answer = self._dense(tokens)
            if not complete:
                self.dense.append(answer)
            self._window(tokens, answer, states)
            self.seconds["evaluate"] = time.perf_counter() - mark
            if index + 1 < len(self.windows):
                self.progress.tell(self.state("evaluate").to_dict())
        if self.language:
            self.kl_error = self._kl_error()
        return self.result().to_dict()

    def _kl_error(self) -> float:
        """Mean exact KL minus mean compact KL over the first positions of the text, in nats."""
        pruned, dense = self.exact, self._exact_dense().double()
        ids = self.dense[0].top_ids[: len(dense)]
        full = (dense.exp() * (dense - pruned)).sum(-1)
        compact = compact_kl(dense.gather(1, ids), pruned.gather(1, ids))
        return max(0.0, float(full.mean() - compact.double().mean()))

    def _exact_dense(self) -> Tensor:
        """The dense model's log-probabilities there; those of the last text are kept."""
        tokens, kept = self.windows[0], self.loaded.exact_start
        key = window_fingerprint(tokens)
        if kept is not None and kept[0] == key:
            return kept[1]
        if self.leading:
            tokens = tokens[: CHECKED_TOKENS + 1]
        found: list[Tensor] = []
        with self.loaded.dense_runner.session(progress=self.progress):
            batch = tokens[None].to(self.loaded.device)
            on_logits = _start(found)
            score_window(
                self.loaded.dense, self.structure, batch, self.dense[0], on_logits=on_logits
            )
        self.loaded.exact_start = (key, found[0].float())
        return self.loaded.exact_start[1]

    def _dense(self, tokens: Tensor) -> DenseWindow:
        if not self.scores:
            self.progress.tell(self.state("dense").to_dict())
        with self.loaded.dense_runner.session(progress=self.progress):
            return self.loaded.reference.measure(tokens)

    def _score(
        self,
        tokens: Tensor,
        dense: DenseWindow,
        known: list[Any],
        record: list[Any] | None,
        on_logits: OnLogits | None = None,
    ) -> WindowScore:
        copy = self.loaded.copy
        with copy.runner.session(leading=known, record=record, progress=self.progress):
            batch = tokens[None].to(self.loaded.device)
            return score_window(copy.model, self.structure, batch, dense, on_logits=on_logits)

    def _first_look(self, dense: DenseWindow | None, states: BlockStates) -> None:
        """A first number from the start of the first window, where that is much cheaper.

        Only where a leading part is scored as it is in the whole window.
        """
        tokens = self.windows[0]
        if dense is None or not self.leading or len(tokens) < 2 * FIRST_TOKENS:
            return
        known = self.loaded.prefix.leading(window_fingerprint(tokens), states)
        if len(known) > len(self.structure.blocks) // 2:
            return  # the whole window will be there as soon
        score = self._score(tokens[:FIRST_TOKENS], dense, [], None)
        before = self.dense
        self.scores, self.dense = [score], before or [dense]
        self.progress.tell(self.state("evaluate", looking=True).to_dict())
        self.scores, self.dense = [], before

    def _window(self, tokens: Tensor, dense: DenseWindow, states: BlockStates) -> None:
        self.progress.check("Cancelled between two windows.")
        key = window_fingerprint(tokens)
        known = self.loaded.prefix.leading(key, states)
        if self.first_block is None or len(known) < self.first_block:
            self.first_block = len(known)
        record: list[Any] = []
        found: list[Tensor] = []
        on_logits = None if self.scores else _start(found)
        score = self._score(tokens, dense, known, record, on_logits)
        if found:
            self.exact = found[0]
        values = (score.losses, *score.agreement.values())
        if not all(bool(x.isfinite().all()) for x in values):
            raise ModelFileError(
                "With this recipe the model gives values that are not finite; choose a milder one, "
                "or float32 where the weights are narrower."
            )
        self.loaded.prefix.keep(key, states, record)
        self.scores.append(score)

    def _paired(self) -> tuple[list[Any], list[Any], Estimate]:
        """Losses of pruned and dense on the same tokens, and the estimate of their difference."""
        pruned = [s.losses.numpy() for s in self.scores]
        dense = [d.losses[: len(p)].numpy() for d, p in zip(self.dense, pruned, strict=False)]
        return pruned, dense, estimate([p - d for p, d in zip(pruned, dense, strict=True)])

    def state(self, stage: str, *, looking: bool = False) -> Evaluation:
        """What is known at this moment."""
        per_window = predictions_per_window(self.structure, self.language, len(self.windows[0]))
        counted = self.applied.counts.to_numbers()
        numbers: dict[str, float | None] = {"sparsity": counted["sparsity"]}
        if self.scores and self.language:
            numbers |= self._language_numbers()
        elif self.scores:
            cosines = [np.array([s.similarity], dtype=np.float32) for s in self.scores]
            cosine = estimate(cosines)
            numbers |= {"similarity": cosine.mean, "similarity_stderr": cosine.stderr}
            numbers |= self._agreement()
        return Evaluation(
            headline_of({self.kind}).name,
            numbers,
            stage=stage,
            window=0 if looking else len(self.scores),
            windows=len(self.windows),
            tokens=sum(len(s.losses) for s in self.scores),
            total_tokens=per_window * len(self.windows),
            shares={"sparsity_of_rest": self.applied.of_rest},
            counts=self.applied.counts,
            bytes_dense=self.loaded.handle.info.bytes_in_memory,
            bytes_sparse=self.applied.bytes_sparse,
            removed=self.applied.removed,
            left_dense=self.left_dense,
            clipped=self.clipped,
            damped=self.damped,
            emptied=self.emptied,
            first_block=self.first_block,
            seconds=self._seconds(),
        )

    def _agreement(self) -> dict[str, float | None]:
        """How far the answers, tokens or classes, are those of the dense model."""
        numbers: dict[str, float | None] = {}
        for name in self.scores[0].agreement:
            mean = estimate([s.agreement[name].numpy() for s in self.scores])
            numbers |= {name: mean.mean, METRICS[name].error: mean.stderr}
        return numbers

    def _seconds(self) -> dict[str, float]:
        if "first" not in self.seconds and self.scores:
            self.seconds["first"] = time.perf_counter() - self.started
        return dict(self.seconds)

    def _language_numbers(self) -> dict[str, float | None]:
        pruned, dense_here, delta = self._paired()
        nll = estimate(pruned)
        # what dense lost on ALL windows is known before the pruned passes are: the paired
        # difference on the tokens so far then estimates the whole far better than they alone
        dense = estimate([d.losses.numpy() for d in self.dense])
        best = dense.mean + delta.mean
        error = delta.stderr
        low = None if error is None else safe_exp(best - Z95 * error)
        high = None if error is None else safe_exp(best + Z95 * error)
        here = estimate(dense_here)
        return {
            "nll": nll.mean,
            "nll_stderr": nll.stderr,
            "nll_dense": here.mean,
            "delta_nll": delta.mean,
            "delta_nll_stderr": delta.stderr,
            "perplexity": safe_exp(best),
            "perplexity_low": low,
            "perplexity_high": high,
            "perplexity_dense": safe_exp(dense.mean),
            **self._agreement(),
            "kl_error": self.kl_error,
        }

    def result(self) -> Evaluation:
        """The final state, with strip, per-window losses and protocol."""
        import transformers

        info = self.loaded.handle.info
        state = self.state("done")
        shrunk = None
        if self.job.recipe.removes_structure:
            from prune_core.exporting.cost import shrunk_numbers

            shrunk = shrunk_numbers(self.loaded.handle, self.named)["bytes_shrunk"]
        per_window = {
            "window_nll": [float(s.losses.mean()) for s in self.scores if len(s.losses)],
            "window_nll_dense": [float(d.losses.mean()) for d in self.dense if len(d.losses)],
            "window_similarity": [s.similarity for s in self.scores if s.similarity is not None],
        }
        protocol = {
            "model": info.source,
            "model_fingerprint": info.fingerprint,
            "text": self.job.text.value if self.job.text.kind != "inline" else "inline",
            "text_fingerprint": windows_fingerprint(self.windows),
            "seq_len": len(self.windows[0]),
            "windows": len(self.windows),
            "tokens": state.tokens,
            "bos": self._starts(),
            "tokenizer_adds_bos": adds_start(self.loaded.handle.tokenizer),
            "dtype": info.dtype,
            "device": info.device,
            "threads": torch.get_num_threads(),
            "torch": str(torch.__version__),  # as it is, it would import torch where it is read
            "transformers": transformers.__version__,
            "python": platform.python_version(),
        }
        return replace(
            state,
            bytes_shrunk=shrunk,
            strip=self._strip(),
            per_window=per_window,
            protocol=protocol,
        )

    def _starts(self) -> bool:
        """Each window starts with a beginning-of-sequence token."""
        handle = self.loaded.handle
        structure = handle.structure
        return bool(start_of_windows(handle.tokenizer, structure.family, structure.kind))

    def _strip(self) -> list[list[Any]]:
        strip: list[list[Any]] = []
        for tokens, score, dense in zip(self.windows, self.scores, self.dense, strict=True):
            targets = tokens[len(tokens) - len(score.losses) :].tolist()
            for token, mine, theirs in zip(
                targets, score.losses.tolist(), dense.losses.tolist(), strict=True
            ):
                if len(strip) == STRIP_TOKENS:
                    return strip
                strip.append([self.loaded.token_text(token), theirs, mine])
        return strip


def _start(kept: list[Tensor]) -> OnLogits:
    """Keeps log-probabilities of the first positions, (CHECKED_TOKENS, vocab) float64."""

    def take(rows: slice, logits: Tensor) -> None:
        if rows.start == 0:
            kept.append(torch.log_softmax(logits[:CHECKED_TOKENS].cpu().double(), dim=-1))

    return take
