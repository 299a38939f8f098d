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

from prune_core.recipe import Calibration, Recipe
from prune_core.recipe import TextSpec as TextSpec

FIRST_RECIPE = 900.0
"""Seconds for a job with a recipe: its first use may read a calibration text on a slow machine."""


@dataclass(frozen=True, slots=True)
class Job:
    """Base of all jobs.

    Attributes:
        source: the model, as text (see ``prune_core.models.sources``): a preset's name,
            ``hub:OWNER/NAME[@REVISION]``, a folder or a ``.gguf`` file.
    """

    priority: ClassVar[int] = 1  # lower runs first
    deadline: ClassVar[float] = 120.0  # seconds; past it the worker is killed
    repeatable: ClassVar[bool] = True  # done again where files that it reads have changed
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
            language-model head: mean cosine of dense and pruned sentence embeddings; with a
            classification head ``kl`` and ``top1`` too, of the classes, by window).
        ``window``, ``windows``: measured so far, asked for.
        ``tokens``: predictions scored so far; ``total_tokens``: at the end.
        ``nll``, ``nll_stderr``: mean loss in nats per token; error over windows, or None below 2.
        ``nll_dense``, ``delta_nll``, ``delta_nll_stderr``: on the same tokens, paired.
        ``perplexity``, ``perplexity_low``, ``perplexity_high``: best estimate and its 95 %
            interval from the paired difference (before the last window: estimated; after it: the
            interval says how it might differ on other text of this kind).
        ``perplexity_dense``: over all windows once they are known, else over those so far.
        ``kl``, ``kl_stderr``: mean KL(dense || pruned) per token in nats; ``kl_error``: by how
            much the compact reference is below the exact KL on the first positions, in nats.
        ``top1``, ``top1_stderr``: share of tokens whose most likely next token is unchanged.
        ``similarity``, ``similarity_stderr``: encoders only.
        ``sparsity``: counted, removed / all prunable weights; ``sparsity_of_rest``: counted over
            the weights that dropped heads, neurons and blocks leave.
        ``zeros_before``, ``added``, ``zeros_after``: counted, shares of the prunable weights that
            were zero in the loaded model, are zero by the recipe alone, are zero now;
            ``sparsity_of_model``, ``zeros_before_of_model``, ``added_of_model``,
            ``zeros_after_of_model``: the same counts over all parameters of the model;
            ``counts``: the counts, see ``prune_core.models.weight_counts.WeightCounts``.
        ``bytes_dense``, ``bytes_sparse``, ``bytes_shrunk`` (known at the end): sizes on disk, see
            ``prune_core.exporting.cost.cost_numbers``.
        ``removed``: layer name -> weights removed; ``left_dense``: names of layers the pattern
            does not fit; ``clipped``: removed whole, the allocation asked for more; ``damped``:
            layers whose singular Hessian needed more damping; ``emptied``: blocks that lost all
            their ``heads`` or ``neurons``.
        ``seconds``: dict of ``load``, ``statistics``, ``ranks``, ``apply``, ``evaluate``,
            ``first`` (from job start to first estimate).
        ``first_block``: block from which blocks were recomputed (prefix cache), or None.
    The result has in addition
        ``strip``: list of [token text, dense loss, pruned loss] of the first window(s), at most
            512 tokens, and ``window_nll``, ``window_nll_dense``, ``window_similarity``: lists over
            windows, empty where the model has no such number.
        ``protocol``: model, text, text fingerprint, seq_len, windows, tokens, dtype, versions.
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 8
    priority: ClassVar[int] = 0
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class MeasureCell(Job):
    """What a cell of a sweep asks for: a recipe's quality and its costs.

    ``start``: windows of the text that are left out at its beginning. ``cost``: measure speed and
    memory too.
    Events: as :class:`Evaluate`, then ``stage`` ``write`` and ``measure`` with ``done``, ``total``.
    Result: that of :class:`Evaluate` without ``strip``, and what
    ``prune_core.exporting.cost.cost_numbers`` gives.
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 512
    windows: int = 8
    start: int = 0
    cost: bool = False
    priority: ClassVar[int] = 3
    deadline: ClassVar[float] = 1800.0


@dataclass(frozen=True, slots=True)
class Budget(Job):
    """The largest removal that keeps a promise; see ``prune_core.sweeps.budget``.

    ``recipes``: one for each method that may be used. ``promise``: as ``5%`` or ``60MB``.
    ``known``: runs that answer already, as JSON of ``prune_core.sweeps.portable.run_to_dict``.
    Events: ``stage`` ``budget``, ``method`` (list), ``sparsity`` (measured now), ``evaluations``
    (of this method so far), ``limit`` (most of them), ``answers`` (of methods that are through).
    Result: what ``prune_core.sweeps.telling.solution_to_dict`` gives, and ``seconds``.
    """

    recipes: tuple[Recipe, ...] = ()
    promise: str = "5%"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 512
    windows: int = 8
    known: tuple[str, ...] = ()
    deadline: ClassVar[float] = 7200.0


@dataclass(frozen=True, slots=True)
class Generate(Job):
    """Continue a prompt with the pruned model and, in step, with the dense one.

    Events and result: ``prompt_tokens`` (count), ``pruned`` and ``dense`` (None unless asked
    for): each ``text`` so far, ``pieces`` (token texts), ``ids`` (tokens), ``finished`` (bool);
    ``divergence``: index of the first differing token, or None; ``tokens_per_second`` (of both
    together).
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
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class LayerTable(Job):
    """Statistics of every layer's dense weights, and what the recipe removes of each.

    Result: ``rows``: list of dicts with ``name``, ``block``, ``stack``, ``role``, ``rows``,
    ``columns``, ``numel``, ``mean_abs``, ``std``, ``kurtosis``, ``zeros`` (count), ``norm``
    (Frobenius), ``q01``, ``q25``, ``q50``, ``q75``, ``q99`` (quantiles of |w|), ``max_abs``,
    ``distinct_share`` (distinct |w| / numel: small = quantised source), ``removed`` (count under
    the recipe); ``left_dense``. With ``scored`` each row has in addition what the recipe's
    criterion gives in the dense model: ``score_mean``, ``score_std``, ``score_zeros`` (count),
    ``score_q01``, ``score_q25``, ``score_q50``, ``score_q75``, ``score_q99``, ``score_max``.
    """

    recipe: Recipe = field(default_factory=Recipe)
    scored: bool = False
    deadline: ClassVar[float] = FIRST_RECIPE


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
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class ScoreHistogram(Job):
    """Histogram of one layer's scores under the recipe's criterion, in the dense model.

    Events: ``stage`` (``statistics``, ``sensitivity``, ``ranks``, ``reconstruction``), ``done``,
    ``total``.
    Result: ``name``, ``block``, ``role``, ``criterion``; ``edges`` (bins + 1 scores, even in
    log10; the first bin takes in what is smaller), ``counts``, ``removed_counts`` (under the
    recipe), ``zeros`` and ``removed_zeros`` (scores of exactly 0), ``cut`` (largest score removed,
    or None), ``numel``, ``removed``.
    """

    layer: str = ""
    recipe: Recipe = field(default_factory=Recipe)
    bins: int = 128
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class MaskOverlap(Job):
    """How far two recipes remove the same weights.

    Events: as in :class:`ScoreHistogram`, of the recipe that is being worked out.
    Result: ``layers``: list of dicts ``name``, ``block``, ``role``, ``numel``, ``ours`` and
    ``theirs`` (removed by either recipe), ``both``, ``either`` (counts) and ``jaccard`` (both /
    either, or None where neither removes anything); ``total``: the same fields over all layers;
    ``by_chance``: Jaccard that independent masks of the same counts would have, layer by layer.
    """

    recipe: Recipe = field(default_factory=Recipe)
    other: Recipe = field(default_factory=Recipe)
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class BlockDamage(Job):
    """What a recipe does to each block; see ``prune_core.engine.block_damage`` for the formulas.

    ``measure``: ``output`` (how far the blocks' outputs turn away from the dense model's) or
    ``loss`` (how much the loss rises when one block alone is pruned; about half a pass per block).
    Events: as in :class:`ScoreHistogram`, then ``stage`` ``blocks``, ``done``, ``total``.
    Result: ``measure``, ``tokens``, ``windows``, ``seconds``; with ``output``: ``own`` and
    ``accumulated``, with ``loss``: ``increase``; each a dict of ``mean`` and ``stderr``, lists over
    blocks (an error is None where there is but one part to take it over).
    """

    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    measure: str = "output"
    deadline: ClassVar[float] = FIRST_RECIPE


COST_UNITS = {"loss": "nats per token", "classes": "nats per window", "distance": "1 - cosine"}
"""What the cost of a part is counted in, by the ``metric`` of its job."""


@dataclass(frozen=True, slots=True)
class HeadImportance(Job):
    """Importance of every attention head.

    ``method``: ``gradient`` (Michel et al. 2019, arXiv 1905.10650; for encoders without a head the
    second-order term of 1 - cosine), ``weight-norm``, ``ablation`` (loss without the head minus
    the dense loss, signed), ``confidence`` (arXiv 1905.09418) or ``entropy``. A classifier's loss
    is that of the class which the dense model gives.
    Events: ``done``, ``total``; of ablation also ``seconds_left``, ``unit`` and ``sites`` as far as
    they are known (scores are None where nothing is).
    Result: ``method``, ``sites``: list of dicts ``kind`` (``self`` or ``cross``), ``stack``,
    ``scores``: list over that stack's blocks of lists over heads, ``stderr`` likewise (of
    ablation, over windows; else None), ``blocks``: flat block index of each row, ``group_size``;
    ``unit``, ``seconds``, ``tokens``.
    """

    method: str = "weight-norm"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    normalize: bool = False
    deadline: ClassVar[float] = 7200.0


@dataclass(frozen=True, slots=True)
class BlockImportance(Job):
    """Block influence and angular distances; see ``prune_core.analysis.blocks.block_influence``.

    Events: ``done``, ``total`` windows.
    Result: ``influence``, ``angular``, ``tokens``, ``seconds``.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    priority: ClassVar[int] = 0  # as short as an evaluation, and what its page is about
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class BlockAblation(Job):
    """Loss without each block minus the dense loss, signed; see ``engine.block_ablation``.

    ``parts``: of ``block``, ``attention`` and ``mlp``: the whole block, or only that half of it.
    Events and result: ``metric`` (``loss`` in nats per token; ``classes``, the loss of the dense
    model's class in nats per window, for encoders with a classification head; or ``distance``:
    1 - cosine of the sentence embeddings, for those without); for each part a dict of ``mean``
    and ``stderr`` by block (None where nothing is known yet, or the block lacks that half);
    ``window`` (windows done), ``windows``, ``done``, ``total`` (units of work),
    ``seconds_left`` (or None), ``nll_dense``. The result has in addition ``tokens``, ``seconds``.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    parts: tuple[str, ...] = ("block",)
    deadline: ClassVar[float] = 3600.0


@dataclass(frozen=True, slots=True)
class GreedyBlocks(Job):
    """Blocks removed one at a time, the cheapest first, scored again after each.

    ``steps``: how many go. ``ends``: the first and the last block of a stack may go too.
    Events and result: ``metric`` (``perplexity``, or ``classes`` or ``distance`` as in
    :class:`BlockAblation`), ``dense`` (its value without removals), ``step`` (found so far),
    ``steps``; ``path``: list of dicts ``block`` (that went),
    ``blocks`` (all that are gone then), ``value``, ``low``, ``high`` (95 %, from the paired
    difference to dense; or None), ``delta``, ``delta_stderr`` (nats, or 1 - cosine),
    ``costs`` (by block: what each candidate would have cost, None for the others); ``trying``: the
    costs of the step that is being found; ``done``, ``total``, ``seconds_left``. The result has
    in addition ``tokens``, ``seconds``. What was found is kept: the same job with more steps, or
    after it was cancelled, goes on from there.
    """

    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 2
    steps: int = 4
    ends: bool = False
    deadline: ClassVar[float] = 3600.0


@dataclass(frozen=True, slots=True)
class LayerImportance(Job):
    """One number for each layer.

    ``method``: ``ablation`` (loss with the layer's output set to zero minus the dense loss) or
    ``score``: the mean score of the recipe's criterion over the layer's weights.
    Events: ``stage``, ``done``, ``total``, of ablation also ``seconds_left``.
    Result: ``layers`` (names in forward order), ``blocks``, ``roles``, ``scores``, ``stderr`` (None
    for ``score``), ``tokens`` (0 where no text was read), ``seconds``.
    """

    method: str = "score"
    recipe: Recipe = field(default_factory=Recipe)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    deadline: ClassVar[float] = 3600.0


@dataclass(frozen=True, slots=True)
class NeuronImportance(Job):
    """Scores of all intermediate neurons by one method; see ``prune_core.analysis.neurons``.

    ``method``: ``mean-activation``, ``firing``, ``weighted`` or ``fluctuation``.
    Events: ``done``, ``total`` windows.
    Result: ``method``, ``shape``, ``blocks`` (flat indices), ``scores`` (block x neuron),
    ``dead`` and ``rare`` (counts by block: never firing, firing on fewer than 1 % of the tokens,
    where firing in a gated MLP means that the gate is open), ``tokens``, ``seconds``.
    """

    method: str = "mean-activation"
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 4
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class NeuronProfile(Job):
    """All neurons at a glance, by every method, on a calibration text.

    Events: ``done``, ``total`` windows.
    Result: see ``prune_core.analysis.neuron_profile``; ``gated`` (the MLPs have gates), ``bias``
    (the model can hold what dropped neurons gave on average), ``seconds``.
    """

    calibration: Calibration = field(default_factory=Calibration)
    bins: int = 50
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class NeuronDetails(Job):
    """One neuron: its scores, the tokens it writes towards, where in a text it fires most.

    Events: ``done``, ``total`` windows.
    Result: ``block``, ``neuron``, ``size`` (neurons in the block); of the calibration text
    ``scores`` and ``places`` (neurons of the block that score lower) by method, ``mean``, ``open``,
    ``dead``, ``rare``; ``raised`` and ``lowered`` ([token text, change of its logit per unit of
    activation], strongest first) with ``reason`` where there are none (``no-head``, ``encoder``,
    ``transform``; see ``prune_core.analysis.neuron_details``); ``passages`` of ``text`` (dicts with
    ``window``, ``position``, ``activation``, ``tokens``, ``activations``, ``at``), ``tokens``
    (read), ``seconds``.
    """

    block: int = 0
    neuron: int = 0
    calibration: Calibration = field(default_factory=Calibration)
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 8
    deadline: ClassVar[float] = FIRST_RECIPE


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
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class AttentionSteps(Job):
    """softmax(QK^T / sqrt(d_k)) V of one head for one token of a sentence, step by step.

    Result: see ``prune_core.analysis.attention_steps``; and ``tokens``, ``key_tokens`` (texts).
    """

    sentence: str = ""
    block: int = 0
    head: int = 0
    token: int = 0
    kind: str = "self"
    recipe: Recipe = field(default_factory=Recipe)
    deadline: ClassVar[float] = FIRST_RECIPE


@dataclass(frozen=True, slots=True)
class Export(Job):
    """Write a recipe's model as a checkpoint that plain transformers loads, and measure it.

    ``format``: ``masked`` (zeros, unchanged shapes), ``shrunk`` (heads, neurons and blocks gone) or
    ``compressed`` (zeros left out, by compressed-tensors). ``asked`` tells one wish from the next:
    a second click writes again where a first has written.
    Events: ``stage`` (``statistics``, ``ranks``, ``write``, ``load``, ``verify``, ``measure``),
    ``done``, ``total``.
    Result: ``folder``, ``format``, ``library_format`` (of compressed-tensors, or None), ``cut``
    (dropped parts are gone from the file), ``parts`` (dropped ``head``, ``neuron``, ``block``: how
    many), ``card`` (Markdown), ``files`` (name to bytes), ``difference`` (largest, of the answers
    on screen and of the loaded file, relative to the largest), ``repeats``, ``prompt_tokens``,
    ``screen`` (what :class:`Evaluate` gives on the same windows: perplexity with interval, KL,
    protocol), and for ``dense`` and ``exported`` each ``parameters``, ``nonzero``, ``bytes`` (of
    the weight files; of the dense model in memory without repeats), ``flops_per_token``,
    ``perplexity`` (None without a language head), ``prefill`` and ``decode`` (``median``, ``low``,
    ``high``, ``values``, tokens per second) and ``peak_memory`` (bytes), None without repeats.
    """

    recipe: Recipe = field(default_factory=Recipe)
    folder: str = ""
    format: str = "masked"
    overwrite: bool = False
    text: TextSpec = field(default_factory=TextSpec)
    seq_len: int = 256
    windows: int = 8
    repeats: int = 5
    asked: str = ""
    repeatable: ClassVar[bool] = False  # it may write the very folder that it reads
    deadline: ClassVar[float] = 1800.0


@dataclass(frozen=True, slots=True)
class Cost(Job):
    """What a recipe saves: parameters, bytes by format, FLOPs; with repeats also speed and memory.

    Events: ``stage`` (as :class:`Evaluate` for working the recipe out, then ``write``,
    ``measure``), ``done``, ``total``.
    Result: what ``prune_core.exporting.cost.cost_numbers`` gives, ``item`` (bytes of one weight as
    stored), ``repeats``, ``parts`` (dropped ``head``, ``neuron``, ``block``: how many) and
    ``protocol``: ``dtype``, ``device``, ``threads``, ``torch``, ``transformers``,
    ``prompt_tokens``, ``new_tokens``.
    """

    recipe: Recipe = field(default_factory=Recipe)
    repeats: int = 0
    deadline: ClassVar[float] = 1800.0
