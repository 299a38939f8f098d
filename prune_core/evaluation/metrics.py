"""What an evaluation can hold: one row for each metric, with all that is shown of it.

Pages, command line, reports, model cards and axes loop over these rows. A new metric is a row here
and, where it is a mean over tokens (or over windows, of a classifier), a function of the same name
in ``prune_core/evaluation/agreement.py``. No torch here: the web process reads the rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

from prune_core.words.numbers import MOST_DECIMALS, error_of, measured, percent_measured

Role = Literal["headline", "beside", "detail", "share"]

LANGUAGE = frozenset({"decoder", "encoder-decoder"})
"""Kinds of model that predict tokens."""

CLASSIFIER = frozenset({"classifier"})
ENCODER = frozenset({"encoder"})
KINDS = LANGUAGE | ENCODER | CLASSIFIER

FALLBACK = {
    "axis": "title",
    "unit": "axis",
    "report_axis": "axis",
    "column": "title",
    "fact": "title",
    "line": "title",
    "card": "title",
}
"""The text that stands for one that a row does not have."""

ENGLISH_ONLY = frozenset({"line", "after", "card"})
"""Texts of the command line and of model cards, which are in English."""


@dataclass(frozen=True, slots=True)
class Metric:
    """One row.

    Attributes:
        name: its field in an evaluation.
        texts: language to texts. ``title`` and ``help`` (``{error}`` stands for ``bias``); where
            they differ from the title: ``axis`` (of a front), ``unit`` (of that axis),
            ``report_axis``, ``column`` (of a report's table), ``fact`` (of its options); in English
            ``line`` and ``after`` (before and behind the number on the command line) and ``card``
            (of a model card). A name with ``_classes`` is what a classifier says instead.
        kinds: of model that have it, of :data:`KINDS`.
        more_is_better: larger values are better.
        role: ``headline`` (the one large number of a kind of model), ``beside`` (everywhere beside
            it), ``detail`` (only where all is written) or ``share`` (counted, not measured).
        unchanged: its value for the dense model against itself; None where only measuring tells.
        percent: shown in percent.
        scale: ``logarithmic`` where ratios count, else ``linear``.
        needs_dense: compared with the dense model's answers to the same tokens.
        digits: decimals at most where it is one fact among others.
        technical: of no use to a stakeholder.
        kept: stands in tables and files of runs.
        error: field of its standard error, empty without one.
        low, high: fields of its 95 % interval.
        dense: field of the dense model's own value.
        bias: field of what the way of measuring hides.
        paired: what is compared window by window where this is the headline: of field
            ``window_...``.
    """

    name: str
    texts: Mapping[str, Mapping[str, str]]
    kinds: frozenset[str]
    more_is_better: bool
    role: Role = "beside"
    unchanged: float | None = None
    percent: bool = False
    scale: Literal["linear", "logarithmic"] = "linear"
    needs_dense: bool = True
    digits: int = MOST_DECIMALS
    technical: bool = False
    kept: bool = True
    error: str = ""
    low: str = ""
    high: str = ""
    dense: str = ""
    bias: str = ""
    paired: str = ""

    @property
    def fields(self) -> tuple[str, ...]:
        """All fields of an evaluation that are this metric's."""
        names = (self.name, self.low, self.high, self.error, self.dense, self.bias)
        return tuple(name for name in names if name)

    def phrase(
        self, place: str, language: str = "en", *, classes: bool = False, **values: object
    ) -> str:
        """What is said of it.

        Args:
            place: one of the names of ``texts``; empty text where there is none.
            language: ``en`` or ``zh``.
            classes: of a classifier.
            values: for placeholders.
        """
        texts = self.texts[language]
        key: str | None = place
        while key is not None:
            text = texts.get(f"{key}_classes") if classes else None
            text = texts.get(key) if text is None else text
            if text is not None:
                return text.format(**values) if values else text
            key = FALLBACK.get(key)
        return ""

    def written(
        self,
        value: float | None,
        error: float | None = None,
        *,
        too_large: str = "more than a million",
        absent: str = "",
    ) -> str:
        """A value with the digits that its error decides, in percent where that is usual."""
        if value is None:
            return absent
        if self.percent:
            return percent_measured(value, error)
        return measured(value, error, too_large=too_large)

    def error_written(self, value: float | None, error: float | None) -> str:
        """The error with the digits of the value; empty where there is none."""
        if value is None or not error:
            return ""
        if self.percent:
            return f"{error_of(100 * value, 100 * error)} %"
        return error_of(value, error)


_ROWS = (
    Metric(
        "perplexity",
        {
            "en": {
                "title": "Perplexity",
                "help": "exp of the mean loss per token: lower is better. The interval comes from "
                "paired differences to the dense model on the same tokens.",
                "unit": "perplexity (lower is better)",
                "report_axis": "Perplexity (lower is better)",
                "line": "perplexity",
                "card": "perplexity",
            },
            "zh": {
                "title": "困惑度",
                "help": "每个词元平均损失的指数：越低越好。"
                "区间来自在相同词元上与稠密模型的成对差异。",
                "unit": "困惑度（越低越好）",
                "report_axis": "困惑度（越低越好）",
            },
        },
        LANGUAGE,
        more_is_better=False,
        role="headline",
        scale="logarithmic",
        low="perplexity_low",
        high="perplexity_high",
        dense="perplexity_dense",
        paired="nll",
    ),
    Metric(
        "nll",
        {
            "en": {
                "title": "Loss",
                "help": "Mean loss per token in nats.",
                "line": "loss",
                "after": "nats per token",
            },
            "zh": {"title": "损失", "help": "每个词元的平均损失，单位奈特。"},
        },
        LANGUAGE,
        more_is_better=False,
        role="detail",
        needs_dense=False,
        kept=False,
        error="nll_stderr",
        dense="nll_dense",
    ),
    Metric(
        "delta_nll",
        {
            "en": {
                "title": "Change of the loss",
                "help": "Mean loss per token minus the dense model's on the same tokens, in nats.",
                "line": "change",
                "after": "nats per token, paired",
            },
            "zh": {
                "title": "损失的变化",
                "help": "每个词元的平均损失减去稠密模型在相同词元上的损失，单位奈特。",
            },
        },
        LANGUAGE,
        more_is_better=False,
        role="detail",
        unchanged=0.0,
        error="delta_nll_stderr",
    ),
    Metric(
        "kl",
        {
            "en": {
                "title": "KL from dense",
                "title_classes": "KL of the classes",
                "help": "Mean KL(dense || pruned) per token in nats, over the 1,024 likeliest "
                "tokens and the merged rest; that hides about {error} nats here.",
                "help_classes": "Mean KL(dense || pruned) of the class distribution per window, "
                "in nats.",
                "axis": "KL divergence",
                "unit": "KL from dense (nats per token)",
                "report_axis": "KL to the original (nats)",
                "column": "KL",
                "fact": "KL to dense (nats)",
                "line": "KL",
                "after": "nats per token; the merged tail hides about {error}",
                "after_classes": "nats per window, of the classes",
                "card": "KL from dense, nats per token",
                "card_classes": "KL from dense, nats per window",
            },
            "zh": {
                "title": "与稠密的 KL",
                "title_classes": "类别的 KL",
                "help": "每个词元的平均 KL(稠密 || 剪枝)，单位奈特，取最可能的 1,024 个词元"
                "及合并的其余部分；此处约隐去 {error} 奈特。",
                "help_classes": "每个窗口类别分布的平均 KL(稠密 || 剪枝)，单位奈特。",
                "axis": "KL 散度",
                "unit": "与稠密的 KL（奈特/词元）",
                "report_axis": "与原模型的 KL（奈特）",
                "column": "KL",
                "fact": "与原模型的 KL（奈特）",
            },
        },
        LANGUAGE | CLASSIFIER,
        more_is_better=False,
        unchanged=0.0,
        digits=4,
        technical=True,
        error="kl_stderr",
        bias="kl_error",
    ),
    Metric(
        "top1",
        {
            "en": {
                "title": "Same top token",
                "title_classes": "Same class",
                "help": "Share of positions where the most likely next token is unchanged.",
                "help_classes": "Share of windows to which the pruned model gives the dense "
                "model's class.",
                "axis": "Unchanged top tokens",
                "unit": "unchanged top-1 tokens",
                "report_axis": "Next word unchanged",
                "column": "Top-1 same",
                "fact": "Next word unchanged",
                "line": "top-1 same",
                "line_classes": "same class",
                "after_classes": "of the windows",
                "card": "most likely token unchanged",
                "card_classes": "most likely class unchanged",
            },
            "zh": {
                "title": "首选词元不变",
                "title_classes": "类别不变",
                "help": "最可能的下一个词元保持不变的位置所占比例。",
                "help_classes": "剪枝模型与稠密模型判定类别相同的窗口所占比例。",
                "unit": "首选词元不变的比例",
                "report_axis": "下一个词不变",
                "column": "首选词不变",
                "fact": "下一个词不变",
            },
        },
        LANGUAGE | CLASSIFIER,
        more_is_better=True,
        unchanged=1.0,
        percent=True,
        error="top1_stderr",
    ),
    Metric(
        "similarity",
        {
            "en": {
                "title": "Similarity to dense",
                "help": "Mean cosine between the sentence embeddings of the pruned and the dense "
                "model; 1 is unchanged.",
                "axis": "Similarity",
                "unit": "cosine to dense",
                "report_axis": "Similarity to the original",
                "column": "Similarity",
                "fact": "Similarity to the original",
                "line": "similarity",
                "after": "(cosine to the dense embedding)",
                "card": "cosine to the dense embedding",
            },
            "zh": {
                "title": "与稠密模型的相似度",
                "help": "剪枝模型与稠密模型句向量的平均余弦；1 表示不变。",
                "axis": "相似度",
                "unit": "与稠密的余弦",
                "report_axis": "与原模型的相似度",
                "column": "相似度",
                "fact": "与原模型的相似度",
            },
        },
        ENCODER | CLASSIFIER,
        more_is_better=True,
        role="headline",
        unchanged=1.0,
        error="similarity_stderr",
        paired="similarity",
    ),
    Metric(
        "sparsity",
        {
            "en": {
                "title": "Removed",
                "help": "Counted: removed weights over all prunable weights, those in layers. "
                "Embeddings, output head, norms and biases are never pruned, so the share of the "
                "whole model is smaller. What was zero before is no gain: see what is added.",
            },
            "zh": {
                "title": "已移除",
                "help": "计数所得：剪去的权重占全部可剪权重（各层中的权重）的比例。嵌入、输出头、"
                "归一化和偏置从不剪枝，因此占整个模型的比例更小。原本为零的权重不算收益：请看新增了多少。",
            },
        },
        KINDS,
        more_is_better=True,
        role="share",
        unchanged=0.0,
        percent=True,
        needs_dense=False,
        kept=False,  # tables of runs have columns for all shares
    ),
)

METRICS: dict[str, Metric] = {row.name: row for row in _ROWS}
"""All rows by name, in the order in which they are shown."""


def metrics_of(*roles: Role, kinds: Iterable[str] = KINDS) -> list[Metric]:
    """Rows of some roles that a model of one of these kinds has, in the order of these roles."""
    mine = frozenset(kinds)
    return [
        row for role in roles for row in METRICS.values() if row.role == role and row.kinds & mine
    ]


def qualities() -> tuple[str, ...]:
    """Names of the metrics that can be an axis of a front."""
    return tuple(row.name for row in METRICS.values() if row.role in ("headline", "beside"))


def headline_of(kinds: Iterable[str]) -> Metric:
    """The one large number of a kind of model: perplexity, or similarity."""
    return metrics_of("headline", kinds=kinds)[0]


def kind_of(kind: str, has_language_head: bool, classes: int) -> str:
    """The kind of a model, of :data:`KINDS`, as far as it decides what can be measured.

    Args:
        kind: ``decoder``, ``encoder`` or ``encoder-decoder``.
        has_language_head: it predicts tokens.
        classes: that its classification head tells apart, 0 without one.
    """
    if has_language_head:
        return kind
    return "classifier" if classes else "encoder"


def all_fields() -> tuple[str, ...]:
    """Every field of an evaluation that belongs to a metric."""
    return tuple(field for row in METRICS.values() for field in row.fields)


def kept_fields() -> tuple[str, ...]:
    """Fields that tables and files of runs keep: value, interval, error and dense value."""
    return tuple(
        field for row in METRICS.values() if row.kept for field in row.fields if field != row.bias
    )
