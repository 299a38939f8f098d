"""Jobs about intermediate neurons."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from prune_core.jobs.base import FIRST_RECIPE, Job
from prune_core.recipes.calibration import Calibration, TextSpec


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
    Result: see ``prune_core.analysis.neurons.profile``; ``gated`` (the MLPs have gates), ``bias``
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
    ``transform``; see ``analysis.neurons.details``); ``passages`` of ``text`` (dicts with
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
