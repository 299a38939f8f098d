"""What a session remembers: one table of keys, in the session, in the URL and in a shared link.

A value lives in ``st.session_state`` under its key and survives page changes. Keys whose widget
speaks the URL's language are *bound* to it by Streamlit; the others (choices whose labels are
translated: Streamlit would write the label) are written to the URL by :func:`write_url`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import streamlit as st

from prune_core.criteria import CRITERIA
from prune_core.exporting.formats import FORMATS
from prune_core.jobs.blocks import BLOCK_METHODS
from prune_core.jobs.heads import HEAD_METHODS
from prune_core.models.sources import DEFAULT_PRESET
from prune_core.recipes.calibration import PRESET_TEXTS
from prune_core.recipes.form import Form
from prune_core.recipes.forms import FORMS
from prune_core.recipes.notation import read_pairs
from prune_core.recipes.packing import NAMES, unpack
from prune_core.sweeps.axes import COSTS, QUALITIES
from prune_core.sweeps.options import NAMES as OPTIONS
from prune_core.ui.session.language import LANGUAGES

TEXTS = PRESET_TEXTS
SEQ_LENS = (64, 128, 256, 512)
MAX_TEXT = 8000
MAX_PROMPTS = 2000


def block_methods() -> list[str]:
    """Methods of the page Layers, as a session and a link call them."""
    return [name.removeprefix("block-") for name in BLOCK_METHODS]


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


def _choice(*options: str) -> Callable[[str], str]:
    return _name_in(options)


def _name_in(options: Collection[str]) -> Callable[[str], str]:
    def read(text: str) -> str:
        if text not in options:
            raise ValueError(text)
        return text

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


def _neuron(text: str) -> str:
    read_pairs(text, "neuron")
    return text


def _of_recipe(form: Form) -> Key:
    """A field of the recipe, as its row says."""
    return Key(form.session_default, form.session_of, form.bound)


def _slots(text: str) -> str:
    unpack(text)
    return text


KEYS: dict[str, Key] = {
    # the frame
    "model": Key(DEFAULT_PRESET, _text(4096)),
    "lang": Key(None, _choice(*LANGUAGES)),
    "present": Key(False, _flag),
    # the recipe
    **{form.key: _of_recipe(form) for form in FORMS},
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
    "export_format": Key("masked", _name_in(FORMATS)),
    # Weights
    "role": Key("", _text(32)),
    "layer": Key("", _text(300)),
    "counts": Key("linear", _choice("linear", "log")),
    "other": Key("", _choice("", *CRITERIA)),
    # Attention
    "head_method": Key("weight-norm", _name_in(HEAD_METHODS)),
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
    "neuron": Key("", _neuron),  # the one looked at closely
    # Layers
    "block_method": Key("influence", _choice(*block_methods())),
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
