"""What a session remembers: one table of keys, in the session, in the URL and in a shared link.

A value lives in ``st.session_state`` under its key and survives page changes. Keys whose widget
speaks the URL's language are *bound* to it by Streamlit; the others (choices whose labels are
translated: Streamlit would write the label) are written to the URL by :func:`write_url`.
"""

from __future__ import annotations

import json
import math
import re
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import streamlit as st
from streamlit.errors import StreamlitAPIException
from streamlit.runtime.scriptrunner import get_script_run_ctx

from prune_core.criteria import CRITERIA as REGISTERED
from prune_core.engine.jobs import TextSpec
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.models.sources import DEFAULT_PRESET
from prune_core.recipe import ALLOCATIONS, RECONSTRUCTIONS, Calibration, Recipe
from prune_core.ui.i18n import LANGUAGES, browser

CRITERIA = tuple(REGISTERED)
TEXTS = ("grimm", "andersen")
SEQ_LENS = (64, 128, 256, 512)
MAX_TEXT = 8000
_PAIR = re.compile(r"^\d{1,4}:\d{1,4}$")


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


def _overrides(text: str) -> str:
    Recipe(overrides=parse_overrides(text))
    return text


def parse_overrides(text: str) -> dict[str, float]:
    """``role:mlp.down=0.3,block:2=0.5`` as a mapping.

    Raises:
        ValueError: not of that form.
    """
    pairs = [part.rpartition("=") for part in text.split(",") if part]
    return {name: float(value) for name, _, value in pairs}


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
    "overrides": Key("", _overrides),
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
    # Weights
    "role": Key("", _text(32)),
    "layer": Key("", _text(300)),
    "counts": Key("linear", _choice("linear", "log")),
    # Attention
    "head_method": Key("weight-norm", _choice("weight-norm", "gradient")),
    "head": Key("", _text(32)),
    "sentence": Key("", _text(2000), bound=True),
    # Overview
    "tint": Key("parameters", _choice("parameters", "sparsity")),
}
"""Everything the app remembers. Add a key here before giving it to a widget."""

RECIPE_KEYS = (
    *("criterion", "pattern", "allocation", "reconstruction"),
    *("sparsity", "heads", "overrides"),
)


def widget(key: str) -> dict[str, Any]:
    """Widget arguments that remember its value: ``st.slider(label, 0.0, 1.0, **widget("x"))``.

    Gives ``key``, ``persist_state`` and, for bound keys, ``bind``. The value is put into the
    session first, so do not pass a default (``value=`` or ``index=``) unless the key is bound:
    Streamlit compares a bound widget's default with the URL, so give
    ``value=KEYS[key].default`` there.
    """
    if key not in st.session_state:
        st.session_state[key] = KEYS[key].default
    arguments: dict[str, Any] = {"key": key, "persist_state": "session"}
    if KEYS[key].bound:
        arguments["bind"] = "query-params"
    return arguments


def value(key: str) -> Any:
    """The session's value of a key, or its default."""
    found = st.session_state.get(key)
    return KEYS[key].default if found is None else found


def set_value(key: str, new: object) -> None:
    """Remember a value. For a widget's key only before the widget runs, or in a callback."""
    if key not in KEYS:
        raise KeyError(key)
    st.session_state[key] = new


def adopt_link() -> tuple[str, ...]:
    """Take the link's values on a session's first run, and again where Back or Forward led.

    Returns:
        Keys whose value in the link is of no use (stale or damaged); they keep their defaults.
    """
    first = "_session" not in st.session_state
    if first:
        st.session_state["_session"] = uuid.uuid4().hex
    context = get_script_run_ctx()
    back = context is not None and context.is_history_navigation
    if not first and not back:
        return ()
    refused = [key for key in KEYS if not _adopt(key, back=back and not first)]
    try:
        _recipe()
    except RecipeError:
        for key in RECIPE_KEYS:
            st.session_state.pop(key, None)
        refused.extend(key for key in RECIPE_KEYS if key in st.query_params)
    return tuple(dict.fromkeys(refused))


def _adopt(key: str, *, back: bool) -> bool:
    """Take one value; ``back``: a missing one means its default. False if it is of no use."""
    text = st.query_params.get(key)
    if text is None:
        if back and not KEYS[key].bound and key in st.session_state:
            st.session_state[key] = KEYS[key].default
        return True
    try:
        st.session_state[key] = KEYS[key].read(text)
    except (ValueError, PruneCoreError):
        return False
    return True


def session_id() -> str:
    """A random name for this session, the same on every page."""
    if "_session" not in st.session_state:
        adopt_link()
    return str(st.session_state["_session"])


def write_url() -> None:
    """Bring the URL up to date with everything chosen; ``open_page`` calls it on each run.

    One entry of the browser's history per run, and none where nothing changed.
    """
    wanted = link_values()
    stale = [key for key in KEYS if key in st.query_params and key not in wanted]
    new = {key: text for key, text in wanted.items() if st.query_params.get(key) != text}
    for key in stale:
        # a key bound to a widget of this page is Streamlit's to write
        with suppress(StreamlitAPIException):
            del st.query_params[key]
    with suppress(StreamlitAPIException):
        st.query_params.update({key: text for key, text in new.items() if not KEYS[key].bound})
    for key in new:
        if KEYS[key].bound:
            with suppress(StreamlitAPIException):
                st.query_params[key] = new[key]


def link_values(recipe: Recipe | None = None) -> dict[str, str]:
    """What differs from the defaults, as URL text by key; ``recipe`` stands in for the current."""
    values = {key: value(key) for key in KEYS}
    if recipe is not None:
        values.update(_recipe_values(recipe))
    return {
        key: _as_text(v)
        for key, v in values.items()
        if v is not None and v != KEYS[key].default and not (key == "lang" and v == browser())
    }


def _as_text(content: object) -> str:
    if isinstance(content, bool):
        return "1" if content else "0"
    return f"{content:.6g}" if isinstance(content, float) else str(content)


def share_link(recipe: Recipe | None = None, page: str = "") -> str:
    """A link that opens the same state elsewhere: model, language, text and recipe.

    Args:
        recipe: in place of the session's.
        page: URL path of another page; this page if empty.
    """
    base = (st.context.url or "").partition("?")[0]
    if page:
        base = base.rpartition("/")[0] + f"/{page}"
    query = urlencode({k: v for k, v in link_values(recipe).items() if k != "present"})
    return f"{base}?{query}" if query else base


def _calibration() -> Calibration:
    """What a loaded recipe brought, else a preset that is not the evaluation text."""
    reads = REGISTERED[str(value("criterion"))].needs or value("allocation") == "sensitivity"
    if not reads and value("reconstruction") == "none":
        return Calibration()  # nothing reads it: it must not part equal recipes
    brought = st.session_state.get("_calibration")
    if isinstance(brought, Calibration):
        return brought
    other = next(name for name in reversed(TEXTS) if name != value("text"))
    known = st.session_state.get("_model_info")  # a window may not be longer than its context
    usual = Calibration().seq_len
    seq_len = min(usual, known.context) if known is not None else usual
    return Calibration(TextSpec("preset", other), seq_len=seq_len)


def _recipe() -> Recipe:
    heads = [pair.split(":") for pair in str(value("heads")).split(",") if pair]
    recipe = Recipe(
        criterion=str(value("criterion")),
        criterion_args=json.loads(st.session_state.get("_criterion_args", "{}")),
        allocation=str(value("allocation")),
        sparsity=float(value("sparsity")),
        overrides=parse_overrides(str(value("overrides"))),
        drop_heads=tuple((int(block), int(head)) for block, head in heads),
        calibration=_calibration(),
        reconstruction=str(value("reconstruction")),
        allocation_args=_allocation_args(),
    )
    return recipe.with_pattern(str(value("pattern")))


def _allocation_args() -> dict[str, float]:
    """Of a loaded recipe's allocation; another allocation has none of them."""
    name, brought = st.session_state.get("_allocation_args", ("", {}))
    return dict(brought) if name == value("allocation") else {}


def recipe_from_state() -> Recipe:
    """The session's recipe.

    A combination that cannot be (global ranking per row) loses its allocation: single widgets may
    pass through such states while a user turns one after the other.
    """
    try:
        return _recipe()
    except (RecipeError, ValueError):
        return Recipe(
            criterion=str(value("criterion")),
            sparsity=float(value("sparsity")),
            calibration=_calibration(),
        ).with_pattern(str(value("pattern")))


def _recipe_values(recipe: Recipe) -> dict[str, Any]:
    return {
        "criterion": recipe.criterion,
        "pattern": recipe.pattern,
        "allocation": recipe.allocation,
        "reconstruction": recipe.reconstruction,
        "sparsity": recipe.sparsity,
        "heads": ",".join(f"{block}:{head}" for block, head in recipe.drop_heads),
        "overrides": ",".join(f"{k}={v:.6g}" for k, v in sorted(recipe.overrides.items())),
    }


def set_recipe(recipe: Recipe) -> None:
    """Make ``recipe`` the session's. Call it in a callback or before the recipe's widgets run."""
    st.session_state["_criterion_args"] = json.dumps(dict(recipe.criterion_args))
    chosen = recipe.calibration
    st.session_state["_calibration"] = chosen if chosen != Calibration() else None
    st.session_state["_allocation_args"] = (recipe.allocation, dict(recipe.allocation_args))
    for key, new in _recipe_values(recipe).items():
        set_value(key, new)


def text_spec() -> TextSpec:
    """The chosen evaluation text: a preset, or what the user pasted (kept in ``_own_text``)."""
    own = st.session_state.get("_own_text", "")
    if st.session_state.get("_use_own_text") and own:
        return TextSpec("inline", own)
    return TextSpec("preset", str(value("text")))


def evaluation_settings() -> Mapping[str, int]:
    """``seq_len`` and ``windows`` as jobs take them."""
    return {"seq_len": int(value("seq_len")), "windows": int(value("windows"))}
