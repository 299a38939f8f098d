"""Which text a recipe is calibrated on, and how much of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from prune_core.errors import RecipeError
from prune_core.recipes.checks import checked_text, checked_whole

CALIBRATION_MODES = ("auto", "dense", "sequential")

MAX_CALIBRATION_WINDOWS = 4096

PRESET_TEXTS = ("grimm", "andersen")
"""Preset texts that a language model is measured and calibrated on."""


@dataclass(frozen=True, slots=True)
class TextSpec:
    """Which text: ``kind`` ``preset`` (value = name), ``file`` (path) or ``inline`` (the text)."""

    kind: str = "preset"
    value: str = "grimm"

    def __post_init__(self) -> None:
        checked_text(self.kind, "the kind of a text")
        checked_text(self.value, "the value of a text")


@dataclass(frozen=True, slots=True)
class Calibration:
    """The text that teaches criteria about activations and gradients, and how much of it.

    Attributes:
        text: what is read; it must not overlap the evaluation text.
        windows: token windows taken.
        seq_len: tokens of each window; the default is shortened to the context of a model that
            reads fewer, any other length that is too long is refused.
        seed: None takes the windows from the start of the text on, a number draws them at random
            from the whole text, the same ones for the same number.
        skip: tokens left out at the start of the text.
        mode: ``dense`` (statistics of the unpruned model: any sparsity at once), ``sequential``
            (each block is pruned on what the pruned blocks before it give: once per sparsity) or
            ``auto``: sequential with a reconstruction, else dense.
    """

    text: TextSpec = field(default_factory=lambda: TextSpec("preset", "andersen"))
    windows: int = 32
    seq_len: int = 512
    seed: int | None = None
    skip: int = 0
    mode: str = "auto"

    def __post_init__(self) -> None:
        if self.mode not in CALIBRATION_MODES:
            raise RecipeError(
                "unknown calibration mode {mode!r}; use {known:list}.",
                mode=self.mode,
                known=CALIBRATION_MODES,
            )
        if isinstance(self.text, Mapping):
            try:
                object.__setattr__(self, "text", TextSpec(**self.text))
            except TypeError as error:
                raise RecipeError(
                    "the calibration text is not readable: {error}.", error=error
                ) from None
        if not isinstance(self.text, TextSpec):
            raise RecipeError("the calibration text must map names to values: kind and value.")
        checked_whole(self.windows, 1, MAX_CALIBRATION_WINDOWS, "the number of calibration windows")
        checked_whole(self.seq_len, 2, 2**20, "the length of a calibration window")
        checked_whole(self.skip, 0, 2**40, "the number of calibration tokens to skip")
        if self.seed is not None:
            checked_whole(self.seed, 0, 2**63 - 1, "the calibration seed")


def usual_text(measured: TextSpec | None = None) -> TextSpec:
    """The text that calibrates where nobody chose one: a preset that is not measured on.

    Args:
        measured: the evaluation text; None where nothing is measured.
    """
    usual = Calibration().text
    if measured != usual:
        return usual
    return TextSpec("preset", next(name for name in PRESET_TEXTS if name != usual.value))


def apart(chosen: Calibration, measured: TextSpec) -> Calibration:
    """A calibration that nobody chose, moved off the text that is measured; others as they are.

    Nobody chose one that is the default in all but the name of its preset. A recipe may have been
    made while another text was measured.
    """
    if chosen.text != measured or replace(chosen, text=Calibration().text) != Calibration():
        return chosen
    other = next((name for name in PRESET_TEXTS if name != measured.value), measured.value)
    return replace(chosen, text=TextSpec("preset", other)) if measured.kind == "preset" else chosen
