"""An evaluation: what was measured of a recipe on a text, as one typed object.

Between processes, in stores and as ``--json`` it is plain data (:meth:`Evaluation.to_dict`).
No torch here: pages and command line read it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from prune_core.evaluation.estimate import Z95
from prune_core.evaluation.metrics import (
    CLASSIFIER,
    ENCODER,
    LANGUAGE,
    METRICS,
    Metric,
    all_fields,
    headline_of,
    metrics_of,
)
from prune_core.models.weight_counts import WeightCounts, counts_of

SHARES = (
    *("zeros_before", "added", "zeros_after"),
    *("sparsity_of_model", "zeros_before_of_model", "added_of_model", "zeros_after_of_model"),
    "sparsity_of_rest",
)
"""Counted shares beside ``sparsity``, which is a metric."""

PROTOCOL = (
    *("model", "model_fingerprint", "text", "text_fingerprint", "seq_len", "windows", "tokens"),
    *("bos", "tokenizer_adds_bos", "dtype", "device", "threads", "torch", "transformers", "python"),
)
"""Fields of ``protocol``: how it was measured."""


@dataclass(frozen=True, slots=True)
class Measurement:
    """One metric of an evaluation.

    Attributes:
        value: best estimate, None where it is not known.
        error: its standard error over windows, None below two windows or where there is none.
        low, high: ends of its 95 % interval, None where it is not known.
        dense: the dense model's own value on the same tokens, where it is measured.
    """

    value: float | None
    error: float | None = None
    low: float | None = None
    high: float | None = None
    dense: float | None = None


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What is known of a recipe on a text: while it is being measured, and at the end.

    Each metric's number is an attribute too: ``evaluation.perplexity`` is
    ``evaluation.numbers["perplexity"]``, a float or None.

    Attributes:
        stage: ``dense`` (the dense reference is being measured first), ``statistics`` (the
            calibration text is being read), ``sensitivity`` (blocks are pruned one at a time),
            ``ranks`` (weights are being ranked), ``reconstruction`` (blocks are pruned in order),
            ``evaluate``, ``done``.
        metric: ``perplexity`` (language models) or ``similarity`` (encoders without a
            language-model head: mean cosine of dense and pruned sentence embeddings; with a
            classification head ``kl`` and ``top1`` too, of the classes, by window).
        window, windows: measured so far, asked for.
        tokens: predictions scored so far; ``total_tokens``: at the end.
        numbers: the fields of all metrics (``prune_core.evaluation.metrics.METRICS``), None where
            not known. ``nll``, ``nll_stderr``: mean loss in nats per token; error over windows, or
            None below 2. ``nll_dense``, ``delta_nll``, ``delta_nll_stderr``: on the same tokens,
            paired. ``perplexity``, ``perplexity_low``, ``perplexity_high``: best estimate and its
            95 % interval from the paired difference (before the last window: estimated; after it:
            the interval says how it might differ on other text of this kind).
            ``perplexity_dense``: over all windows once they are known, else over those so far.
            ``kl``, ``kl_stderr``: mean KL(dense || pruned) per token in nats; ``kl_error``: by how
            much the compact reference is below the exact KL on the first positions, in nats.
            ``top1``, ``top1_stderr``: share of tokens whose most likely next token is unchanged.
            ``similarity``, ``similarity_stderr``: encoders only. ``sparsity``: counted, removed /
            all prunable weights.
        shares: counted. ``sparsity_of_rest``: over the weights that dropped heads, neurons and
            blocks leave. ``zeros_before``, ``added``, ``zeros_after``: shares of the prunable
            weights that were zero in the loaded model, are zero by the recipe alone, are zero now;
            ``sparsity_of_model``, ``zeros_before_of_model``, ``added_of_model``,
            ``zeros_after_of_model``: the same counts over all parameters of the model.
        counts: the counts; None in a run of a version that did not count them.
        bytes_dense, bytes_sparse, bytes_shrunk: sizes on disk (the last known at the end), see
            ``prune_core.exporting.cost.cost_numbers``.
        removed: layer name -> weights removed.
        left_dense: names of layers the pattern does not fit.
        clipped: removed whole, the allocation asked for more.
        damped: layers whose singular Hessian needed more damping.
        emptied: blocks that lost all their ``heads`` or ``neurons``.
        first_block: block from which blocks were recomputed (prefix cache), or None.
        seconds: ``load``, ``statistics``, ``ranks``, ``apply``, ``evaluate``, ``first`` (from job
            start to first estimate).
        strip: [token text, dense loss, pruned loss] of the first window(s), at most 512 tokens;
            None before the end and in stored runs.
        per_window: ``window_nll``, ``window_nll_dense``, ``window_similarity``: numbers of each
            window, empty where the model has no such number; nothing before the end.
        protocol: how it was measured, see :data:`PROTOCOL`; None before the end.
        more: fields that others have added: costs of a run, warnings.
    """

    metric: str = "perplexity"
    numbers: Mapping[str, float | None] = field(default_factory=dict)
    stage: str = "done"
    window: int = 0
    windows: int = 0
    tokens: int = 0
    total_tokens: int = 0
    shares: Mapping[str, float] = field(default_factory=dict)
    counts: WeightCounts | None = None
    bytes_dense: int | None = None
    bytes_sparse: int | None = None
    bytes_shrunk: int | None = None
    removed: Mapping[str, int] = field(default_factory=dict)
    left_dense: Sequence[str] = ()
    clipped: Sequence[str] = ()
    damped: Sequence[str] = ()
    emptied: Mapping[str, Sequence[int]] = field(default_factory=dict)
    first_block: int | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    strip: Sequence[Sequence[Any]] | None = None
    per_window: Mapping[str, Sequence[float]] = field(default_factory=dict)
    protocol: Mapping[str, Any] | None = None
    more: Mapping[str, Any] = field(default_factory=dict)

    def __getattr__(self, name: str) -> float | None:
        if name in all_fields():
            return self.numbers.get(name)
        if name in SHARES:
            return self.shares.get(name)
        raise AttributeError(f"an evaluation has no {name!r}")

    @property
    def headline(self) -> Metric:
        """The one large number: perplexity, or similarity."""
        row = METRICS.get(self.metric)  # a run may come from a file that somebody wrote
        return row if row is not None and row.role == "headline" else headline_of(LANGUAGE)

    @property
    def kinds(self) -> frozenset[str]:
        """Kinds of model, of ``metrics.KINDS``, that it may be of."""
        if self.headline.kinds >= LANGUAGE:
            return LANGUAGE
        answers = [self.numbers.get(row.name) for row in metrics_of("beside", kinds=CLASSIFIER)]
        return CLASSIFIER if any(value is not None for value in answers) else ENCODER

    @property
    def of_classes(self) -> bool:
        """It is of a classifier: its answers are classes of windows."""
        return self.kinds == CLASSIFIER

    def value(self, row: Metric) -> Measurement:
        """A metric with its error and interval; where only an error is known, from that."""
        get = self.numbers.get
        mine, error = get(row.name), get(row.error)
        low, high = get(row.low), get(row.high)
        if not row.low and mine is not None and error is not None:
            low, high = mine - Z95 * error, mine + Z95 * error
        return Measurement(mine, error, low, high, get(row.dense))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, one flat dict: what processes send, stores keep and ``--json`` prints."""
        plain: dict[str, Any] = {name: self.numbers.get(name) for name in all_fields()}
        plain |= {name: getattr(self, name) for name in _PLAIN}
        plain |= {name: list(getattr(self, name)) for name in _LISTS}
        plain |= {name: dict(getattr(self, name)) for name in _DICTS}
        plain |= self.shares
        if self.counts is not None:
            plain |= self.counts.to_numbers()
        if self.strip is not None:
            plain["strip"] = list(self.strip)
        plain |= self.per_window
        if self.protocol is not None:
            plain["protocol"] = dict(self.protocol)
        return {**plain, **self.more}

    @classmethod
    def from_dict(cls, plain: Mapping[str, Any]) -> Evaluation:
        """An evaluation from plain data, also of an earlier version: what it lacks is not known."""
        names = {*all_fields(), *SHARES, *_PLAIN, *_LISTS, *_DICTS, "counts", "strip", "protocol"}
        direct = {name: plain[name] for name in (*_PLAIN, *_LISTS, *_DICTS) if name in plain}
        windows = {n: rest for n, rest in plain.items() if n.startswith("window_")}
        return cls(
            **{name: value for name, value in direct.items() if value is not None},
            numbers={name: plain.get(name) for name in all_fields()},
            shares={name: plain[name] for name in SHARES if name in plain},
            counts=counts_of(plain),
            strip=plain.get("strip"),
            per_window=windows,
            protocol=plain.get("protocol"),
            more={n: rest for n, rest in plain.items() if n not in names and n not in windows},
        )


_LISTS = ("left_dense", "clipped", "damped")
_DICTS = ("removed", "emptied", "seconds")
_PLAIN = (
    *("stage", "metric", "window", "windows", "tokens", "total_tokens", "first_block"),
    *("bytes_dense", "bytes_sparse", "bytes_shrunk"),
)

PLAIN_FIELDS = frozenset({*_PLAIN, *_LISTS, *_DICTS, "counts", "strip", "protocol"})
"""Fields of the plain data that no metric has: how far, sizes, what was done, the protocol."""
