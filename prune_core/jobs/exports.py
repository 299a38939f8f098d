"""Jobs that write a model down or say what it costs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import Job
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe


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
