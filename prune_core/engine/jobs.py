"""Jobs: everything the worker can be asked, as frozen data. No torch here: the web process uses it.

A job has a ``key`` made of all its fields: equal jobs of different sessions are computed once.
While a job runs the worker sends *events* (plain dicts, each replaces the one before) and at its
end a *result* (a plain dict). Their fields are given with each job. All numbers are floats or
ints, all arrays nested lists; nothing needs torch to be read.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, field
from typing import ClassVar

from prune_core.recipe import Recipe
from prune_core.recipe import TextSpec as TextSpec


@dataclass(frozen=True, slots=True)
class Job:
    """Base of all jobs.

    Attributes:
        source: the model, as text (see ``prune_core.models.sources``): a preset's name,
            ``hub:OWNER/NAME[@REVISION]``, a folder or a ``.gguf`` file.
    """

    priority: ClassVar[int] = 1  # lower runs first
    deadline: ClassVar[float] = 120.0  # seconds; past it the worker is killed
    source: str

    @property
    def key(self) -> str:
        """Hash over the kind of job and all its fields."""
        content = {"job": type(self).__name__, **asdict(self)}
        text = json.dumps(content, sort_keys=True, default=list)
        return hashlib.sha256(text.encode()).hexdigest()[:24]


@dataclass(frozen=True, slots=True)
class LoadModel(Job):
    """Fetch (if needed), check and load a model.

    Events: ``stage`` (``fetch``, ``verify``, ``convert``, ``load``, ``check``), ``done`` and
    ``total`` in bytes or steps (total 0 = not known), ``unit`` (``bytes`` or ``steps``).
    Result: the fields of ``prune_core.models.info.ModelInfo``.
    """

    priority: ClassVar[int] = 0
    deadline: ClassVar[float] = 1800.0


@dataclass(frozen=True, slots=True)
class Evaluate(Job):
    """Apply a recipe and measure it on a text, window by window.

    Events and result share these fields (``None`` where not known):
        ``stage``: ``dense`` (the dense reference is being measured first), ``statistics``
            (the calibration text is being read: ``done``/``total``), ``sensitivity`` (blocks are
            pruned one at a time), ``ranks`` (weights are being ranked: ``done``/``total`` layers),
            ``reconstruction`` (blocks are pruned in order: ``done``/``total``), ``evaluate``,
            ``done``.
        ``metric``: ``perplexity`` (language models) or ``similarity`` (encoders without a
            language-model head: mean cosine of dense and pruned sentence embeddings).
        ``window``, ``windows``: measured so far, asked for.
        ``tokens``: predictions scored so far; ``total_tokens``: at the end.
        ``nll``, ``nll_stderr``: mean loss in nats per token; error over windows, or None below 2.
        ``nll_dense``, ``delta_nll``, ``delta_nll_stderr``: on the same tokens, paired.
        ``perplexity``, ``perplexity_low``, ``perplexity_high``: best estimate and its 95 %
            interval from the paired difference (before the last window: estimated; after it: the
            interval says how it might differ on other text of this kind).
        ``perplexity_dense``: over all windows once they are known, else over those so far.
        ``kl``, ``kl_stderr``: mean KL(dense || pruned) per token in nats; ``kl_error``: measured
            largest possible loss by the compact reference, in nats.
        ``top1``, ``top1_stderr``: share of tokens whose most likely next token is unchanged.
        ``similarity``, ``similarity_stderr``: encoders only.
        ``sparsity``: counted, removed / all prunable weights.
        ``removed``: layer name -> weights removed; ``left_dense``: names of layers the pattern
            does not fit; ``clipped``: removed whole, the allocation asked for more; ``damped``:
            layers whose singular Hessian needed more damping.
        ``seconds``: dict of ``load``, ``statistics``, ``ranks``, ``apply``, ``evaluate``,
            ``first`` (from job start to first estimate).
        ``first_block``: block from which blocks were recomputed (prefix cache), or None.
    The result has in addition
        ``strip``: list of [token text, dense loss, pruned loss] of the first window(s), at most
            512 tokens, and ``window_nll``, ``window_nll_dense``: lists over windows.
        ``protocol``: model, text, text fingerprint, seq_len, windows, tokens, dtype, versions.
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 8
    priority: ClassVar[int] = 0
    deadline: ClassVar[float] = 900.0  # a long calibration text on a slow machine


@dataclass(frozen=True, slots=True)
class Generate(Job):
    """Continue a prompt with the pruned model and, in step, with the dense one.

    Events and result: ``prompt_tokens`` (count), ``pruned`` and ``dense`` (None unless asked
    for): each ``text`` so far, ``pieces`` (token texts), ``finished`` (bool); ``divergence``:
    index of the first differing token, or None; ``tokens_per_second`` (of both together).
    """

    recipe: Recipe = field(default_factory=Recipe)
    prompt: str = ""
    max_new_tokens: int = 64
    greedy: bool = True
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.95
    chat: bool = False
    with_dense: bool = True
    priority: ClassVar[int] = 2


@dataclass(frozen=True, slots=True)
class LayerTable(Job):
    """Statistics of every layer's dense weights, and what the recipe removes of each.

    Result: ``rows``: list of dicts with ``name``, ``block``, ``stack``, ``role``, ``rows``,
    ``columns``, ``numel``, ``mean_abs``, ``std``, ``kurtosis``, ``zeros`` (count), ``norm``
    (Frobenius), ``q01``, ``q25``, ``q50``, ``q75``, ``q99`` (quantiles of |w|), ``max_abs``,
    ``distinct_share`` (distinct |w| / numel: small = quantised source), ``removed`` (count under
    the recipe); ``left_dense``.
    """

    recipe: Recipe = field(default_factory=Recipe)


@dataclass(frozen=True, slots=True)
class Histograms(Job):
    """Histograms of |w| of chosen layers on common bins.

    Result: ``edges`` (bins + 1 values of |w|), ``layers``: list of dicts ``name``, ``block``,
    ``role``, ``counts`` (per bin), ``removed_counts`` (per bin, under the recipe),
    ``cut`` (|w| of the largest removed weight, or None), ``numel``, ``removed``.
    """

    layers: tuple[str, ...] = ()
    recipe: Recipe = field(default_factory=Recipe)
    bins: int = 128


@dataclass(frozen=True, slots=True)
class HeadImportance(Job):
    """Importance of every attention head.

    ``method``: ``gradient`` (Michel et al. 2019, arXiv 1905.10650) or ``weight-norm``.
    Events (gradient): ``done``, ``total`` windows.
    Result: ``method``, ``sites``: list of dicts ``kind`` (``self`` or ``cross``), ``stack``,
    ``scores``: list over that stack's blocks of lists over heads, ``blocks``: flat block index of
    each row, ``group_size``; ``unit``, ``seconds``, ``tokens``.
    """

    method: str = "weight-norm"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    normalize: bool = False
    deadline: ClassVar[float] = 600.0


@dataclass(frozen=True, slots=True)
class AttentionPattern(Job):
    """The attention of one block on a sentence: softmax(QK^T / sqrt(d_k)), every head.

    Result: ``tokens`` (texts of the queries), ``key_tokens`` (same, but for cross-attention),
    ``heads``: list over heads of (query x key) nested lists, rows summing to 1; ``block``,
    ``kind``.
    """

    sentence: str = ""
    block: int = 0
    kind: str = "self"
    recipe: Recipe = field(default_factory=Recipe)
