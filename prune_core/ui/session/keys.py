"""What a session remembers: one table of keys, in the session, in the URL and in a shared link.

A value lives in ``st.session_state`` under its key and survives page changes. Keys whose widget
speaks the URL's language are *bound* to it by Streamlit; the others (choices whose labels are
translated: Streamlit would write the label) are written to the URL by :func:`write_url`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from prune_core.criteria import CRITERIA as REGISTERED
from prune_core.models.sources import DEFAULT_PRESET
from prune_core.recipes.calibration import CALIBRATION_MODES, MAX_CALIBRATION_WINDOWS
from prune_core.recipes.packing import NAMES, unpack
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES
from prune_core.recipes.recipe import ALLOCATIONS, RECONSTRUCTIONS, Recipe
from prune_core.sweeps.axes import COSTS, QUALITIES
from prune_core.sweeps.options import NAMES as OPTIONS
from prune_core.ui.session.language import LANGUAGES

CRITERIA = tuple(REGISTERED)
TEXTS = ("grimm", "andersen")
SEQ_LENS = (64, 128, 256, 512)
HEAD_METHODS = ("weight-norm", "gradient", "ablation", "confidence", "entropy")
MAX_TEXT = 8000
MAX_CUT = 1e6
MAX_PROMPTS = 2000
_PAIR = re.compile(r"^\d{1,4}:\d{1,6}$")


@dataclass(frozen=True, slots=True)
class Key:
    """One remembered value.

    Attributes:
        default: value of a fresh session; not written to the URL.
        read: turns a link's text into a value; raises ValueError for nonsense.
        bound: Streamlit keeps it in the URL itself (``bind="query-params"``).
    """

    default: Any
    read: Callable[[str], Any]
    bound: bool = False


def parse_indices(text: str) -> tuple[int, ...]:
    """``3,5`` as whole numbers.

    Raises:
        ValueError: not of that form.
    """
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() and len(part) <= 4 for part in parts):
        raise ValueError(text)
    return tuple(int(part) for part in parts)


def parse_overrides(text: str) -> dict[str, float]:
    """``role:mlp.down=0.3,block:2=0.5`` as a mapping.

    Raises:
        ValueError: not of that form.
    """
    pairs = [part.rpartition("=") for part in text.split(",") if part]
    return {name: float(value) for name, _, value in pairs}


def parse_numbers(text: str) -> dict[str, float | int]:
    """``power=0.5,seed=3`` as a mapping; what is written as a whole number stays one.

    Raises:
        ValueError: not of that form.
    """
    found: dict[str, float | int] = {}
    for part in filter(None, text.split(",")):
        name, _, number = part.rpartition("=")
        found[name] = int(number) if number.lstrip("-").isdecimal() else float(number)
        if not name or not math.isfinite(found[name]):
            raise ValueError(part)
    return found


def write_numbers(numbers: Mapping[str, float | int]) -> str:
    """What :func:`parse_numbers` reads, exactly."""
    return ",".join(f"{name}={number!r}" for name, number in sorted(numbers.items()))


def _choice(*options: str) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in options:
            raise ValueError(text)
        return text

    return read


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(text: str) -> float:
        value = float(text)
        if not math.isfinite(value) or not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _whole(low: int, high: int) -> Callable[[str], int]:
    def read(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise ValueError(text)
        return value

    return read


def _text(limit: int) -> Callable[[str], str]:
    def read(text: str) -> str:
        if len(text) > limit:
            raise ValueError(text)
        return text

    return read


def _flag(text: str) -> bool:
    if text.lower() not in ("1", "0", "true", "false"):
        raise ValueError(text)
    return text.lower() in ("1", "true")


def _seq_len(text: str) -> int:
    if int(text) not in SEQ_LENS:
        raise ValueError(text)
    return int(text)


def _pattern(text: str) -> str:
    Recipe().with_pattern(text)
    return text


def _heads(text: str) -> str:
    if not all(_PAIR.match(pair) for pair in text.split(",") if pair):
        raise ValueError(text)
    return text


def _indices(text: str) -> str:
    parse_indices(text)
    return text


def _overrides(text: str) -> str:
    Recipe(overrides=parse_overrides(text))
    return text


def _numbers(text: str) -> str:
    parse_numbers(text)
    return text


def _seed(text: str) -> str:
    return str(_whole(0, 2**31 - 1)(text)) if text else ""


def _slots(text: str) -> str:
    unpack(text)
    return text


KEYS: dict[str, Key] = {
    # the frame
    "model": Key(DEFAULT_PRESET, _text(4096)),
    "lang": Key(None, _choice(*LANGUAGES)),
    "present": Key(False, _flag),
    # the recipe
    "criterion": Key("magnitude", _choice(*CRITERIA)),
    "pattern": Key("per-layer", _pattern),
    "allocation": Key("uniform", _choice(*ALLOCATIONS)),
    "reconstruction": Key("none", _choice(*RECONSTRUCTIONS)),
    "sparsity": Key(0.0, _number(0.0, 1.0), bound=True),
    "heads": Key("", _heads),
    "cross_heads": Key("", _heads),
    "neurons": Key("", _heads),
    "neuron_share": Key(0.0, _number(0.0, 1.0)),
    "neuron_method": Key(NEURON_METHODS[0], _choice(*NEURON_METHODS)),
    "neuron_scope": Key(NEURON_SCOPES[0], _choice(*NEURON_SCOPES)),
    "compensate": Key(False, _flag),
    "drop_blocks": Key("", _indices),
    "drop_attention": Key("", _indices),
    "drop_mlp": Key("", _indices),
    "overrides": Key("", _overrides),
    "arguments": Key("", _numbers),  # of the criterion
    "shares": Key("", _numbers),  # of the allocation, by role or block
    "cut": Key(0.0, _number(0.0, MAX_CUT)),
    # what it is calibrated on
    "cal_text": Key("", _choice("", *TEXTS)),  # "": the preset that is not measured on
    "cal_windows": Key(32, _whole(1, MAX_CALIBRATION_WINDOWS)),
    "cal_seq_len": Key(0, _whole(0, 2**20)),  # 0: 512, or the model's context
    "cal_skip": Key(0, _whole(0, 2**40)),
    "cal_seed": Key("", _seed),  # "": from the start of the text on
    "cal_mode": Key("auto", _choice(*CALIBRATION_MODES)),
    # what it is measured on
    "text": Key("grimm", _choice(*TEXTS)),
    "seq_len": Key(256, _seq_len),
    "windows": Key(8, _whole(1, 64)),
    # the Studio
    "prompt": Key("", _text(MAX_TEXT), bound=True),
    "new_tokens": Key(64, _whole(1, 256)),
    "sampling": Key("greedy", _choice("greedy", "sample")),
    "seed": Key(0, _whole(0, 2**31 - 1)),
    "chat": Key(False, _flag, bound=True),
    "export_format": Key("masked", _choice("masked", "shrunk", "compressed")),
    # Weights
    "role": Key("", _text(32)),
    "layer": Key("", _text(300)),
    "counts": Key("linear", _choice("linear", "log")),
    "other": Key("", _choice("", *CRITERIA)),
    # Attention
    "head_method": Key("weight-norm", _choice(*HEAD_METHODS)),
    "head": Key("", _text(32)),
    "sentence": Key("", _text(2000), bound=True),
    # Trade-off
    "cost": Key("nonzero", _choice(*COSTS)),
    "quality": Key("perplexity", _choice(*QUALITIES)),
    "sweep": Key("*", _text(64)),  # "*": every run, "": those saved on their own
    "option": Key("", _choice("", *OPTIONS)),
    "budget": Key("", _text(40)),
    # Compare
    "slots": Key("", _slots),
    "slot_at": Key("", _choice("", *NAMES)),
    "prompts": Key("", _text(MAX_PROMPTS)),
    "prompt_at": Key("0", _choice(*(str(place) for place in range(4)))),
    "block_measure": Key("accumulated", _choice("own", "accumulated", "increase")),
    # Neurons
    "neuron": Key("", _heads),  # the one looked at closely
    # Layers
    "block_method": Key("influence", _choice("influence", "angular", "ablation", "greedy")),
    "block_part": Key("block", _choice("block", "attention", "mlp")),
    "block_windows": Key(2, _whole(1, 16)),
    "block_steps": Key(4, _whole(1, 64)),
    "block_ends": Key(False, _flag),
    # Overview
    "tint": Key("parameters", _choice("parameters", "sparsity")),
}
"""Everything the app remembers. Add a key here before giving it to a widget."""


def widget(key: str, options: Sequence[Any] | None = None, initial: str = "") -> dict[str, Any]:
    """Widget arguments that remember its value: ``st.slider(label, 0.0, 1.0, **widget("x"))``.

    Gives ``key``, ``persist_state`` and, for bound keys, ``bind``. The value is put into the
    session first, so do not pass a default (``value=`` or ``index=``) unless the key is bound:
    Streamlit compares a bound widget's default with the URL, so give
    ``value=KEYS[key].default`` there.

    Streamlit tells the browser a value from the session once. A browser that draws the widget
    late (its code still loading, the page run again meanwhile) misses that, takes the default and
    sends it back as if chosen. So the current value is the default too, where one is named:

    Args:
        key: of ``KEYS``.
        options: of a ``selectbox``; adds ``index``.
        initial: name of the argument for the first value: ``value``, ``default``.
    """
    if key not in st.session_state:
        st.session_state[key] = KEYS[key].default
    arguments: dict[str, Any] = {"key": key, "persist_state": "session"}
    if KEYS[key].bound:
        arguments["bind"] = "query-params"
    if options is not None and value(key) in options:
        arguments["index"] = list(options).index(value(key))
    if initial:
        arguments[initial] = value(key)
    return arguments


def value(key: str) -> Any:
    """The session's value of a key, or its default."""
    found = st.session_state.get(key)
    return KEYS[key].default if found is None else found


Get = Callable[[str], Any]
"""Gives the value of a key: :func:`value`, or one that reads a link."""


def set_value(key: str, new: object) -> None:
    """Remember a value. For a widget's key only before the widget runs, or in a callback."""
    if key not in KEYS:
        raise KeyError(key)
    st.session_state[key] = new
