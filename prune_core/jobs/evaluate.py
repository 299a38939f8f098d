"""Jobs that measure a recipe or write with it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


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
class Generate(Job):
    """Continue a prompt with the pruned model and, in step, with the dense one.

    Events while the recipe is worked out: as :class:`ScoreHistogram`.
    Events then, and result: ``prompt_tokens`` (count), ``pruned`` and ``dense`` (None unless asked
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
