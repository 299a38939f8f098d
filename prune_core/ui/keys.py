"""What a session remembers: one table of keys, in the session, in the URL and in a shared link.

A value lives in ``st.session_state`` under its key and survives page changes. Keys whose widget
speaks the URL's language are *bound* to it by Streamlit; the others (choices whose labels are
translated: Streamlit would write the label) are written to the URL by :func:`write_url`.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import streamlit as st
from streamlit.runtime.scriptrunner import get_script_run_ctx

from prune_core.criteria import CRITERIA as REGISTERED
from prune_core.engine.jobs import TextSpec
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.models.sources import DEFAULT_PRESET
from prune_core.packing import NAMES, unpack
from prune_core.recipe import (
    ALLOCATION_ARGS,
    ALLOCATIONS,
    CALIBRATION_MODES,
    MAX_CALIBRATION_WINDOWS,
    NEURON_METHODS,
    NEURON_SCOPES,
    RECONSTRUCTIONS,
    Calibration,
    NeuronShare,
    Recipe,
)
from prune_core.sweeps.axes import COSTS, QUALITIES
from prune_core.sweeps.options import NAMES as OPTIONS
from prune_core.ui.i18n import LANGUAGES, browser, t

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


def parse_indices(text: str) -> tuple[int, ...]:
    """``3,5`` as whole numbers.

    Raises:
        ValueError: not of that form.
    """
    parts = [part for part in text.split(",") if part]
    if not all(part.isdecimal() and len(part) <= 4 for part in parts):
        raise ValueError(text)
    return tuple(int(part) for part in parts)


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


def _numbers(text: str) -> str:
    parse_numbers(text)
    return text


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

RECIPE_KEYS = (
    *("criterion", "pattern", "allocation", "reconstruction"),
    *("sparsity", "heads", "cross_heads", "neurons", "drop_blocks", "drop_attention", "drop_mlp"),
    *("neuron_share", "neuron_method", "neuron_scope", "compensate"),
    *("overrides", "arguments", "shares", "cut"),
    *("cal_text", "cal_windows", "cal_seq_len", "cal_skip", "cal_seed", "cal_mode"),
)


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
        # a bound widget of this page takes its default too, but only when it is drawn
        if back and key in st.session_state and (not KEYS[key].bound or _is_bound(key)):
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
    wanted, context = link_values(), get_script_run_ctx()
    changed = [key for key in KEYS if st.query_params.get(key) != wanted.get(key)]
    # a key bound to a widget of this page is Streamlit's to write, unless others change with it
    if context is None or all(_is_bound(key) for key in changed):
        return
    with context.session_state.query_params() as query:
        kept = {key: query.get_all(key) for key in query if key not in changed}
        query.clear_with_no_forward_msg(preserve_embed=True)
        # each ``del`` and each bound widget would be an entry of its own: all in one message
        for key, texts in kept.items():
            query.set_with_no_forward_msg(key, texts)
        for key in changed:
            if key in wanted:
                query.set_with_no_forward_msg(key, wanted[key])
    st.query_params.update({})


def _is_bound(key: str) -> bool:
    """Whether a widget of this page writes the key into the URL."""
    context = get_script_run_ctx()
    if context is None:
        return False
    with context.session_state.query_params() as query:
        return query.is_bound(key)


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


def reads_calibration(get: Get = value) -> bool:
    """Whether the chosen recipe reads a calibration text at all."""
    reads = bool(REGISTERED[str(get("criterion"))].needs)
    reads = reads or bool(get("neuron_share")) or bool(get("compensate"))
    return reads or get("allocation") == "sensitivity" or str(get("reconstruction")) != "none"


def calibration_length(get: Get = value) -> int:
    """Tokens of a calibration window: as chosen, else 512 or the model's context."""
    known = st.session_state.get("_model_info")  # a window may not be longer than its context
    usual = int(get("cal_seq_len")) or Calibration().seq_len
    return min(usual, known.context) if known is not None else usual


def calibration_text() -> TextSpec:
    """Chosen, pasted (kept in ``_own_calibration``) or of a loaded recipe's file."""
    brought = st.session_state.get("_calibration_file")
    if isinstance(brought, TextSpec):
        return brought
    own = st.session_state.get("_own_calibration", "")
    if st.session_state.get("_use_own_calibration") and own:
        return TextSpec("inline", own)
    return _preset_calibration(value)


def _preset_calibration(get: Get) -> TextSpec:
    other = next(name for name in reversed(TEXTS) if name != get("text"))
    return TextSpec("preset", str(get("cal_text")) or other)


def chosen_calibration(get: Get = value) -> Calibration:
    """The session's calibration, whether the recipe reads one or not; or that of a link."""
    seed = str(get("cal_seed"))
    return Calibration(
        calibration_text() if get is value else _preset_calibration(get),
        int(get("cal_windows")),
        calibration_length(get),
        int(seed) if seed else None,
        int(get("cal_skip")),
        str(get("cal_mode")),
    )


def _calibration(get: Get = value) -> Calibration:
    # what nothing reads must not part equal recipes
    return chosen_calibration(get) if reads_calibration(get) else Calibration()


def _pairs(key: str, get: Get) -> tuple[tuple[int, int], ...]:
    found = [pair.split(":") for pair in str(get(key)).split(",") if pair]
    return tuple((int(block), int(part)) for block, part in found)


def _written(pairs: Sequence[tuple[int, int]]) -> str:
    return ",".join(f"{block}:{part}" for block, part in pairs)


def _share(get: Get) -> NeuronShare | None:
    fraction = float(get("neuron_share"))
    if not fraction:
        return None
    return NeuronShare(fraction, str(get("neuron_method")), str(get("neuron_scope")))


def _recipe(get: Get = value) -> Recipe:
    arguments = dict(parse_numbers(str(get("arguments"))))
    if get("criterion") == "threshold" and get("cut") and not get("sparsity"):
        arguments["value"] = float(get("cut"))
    recipe = Recipe(
        criterion=str(get("criterion")),
        criterion_args=arguments,
        allocation=str(get("allocation")),
        sparsity=float(get("sparsity")),
        overrides=parse_overrides(str(get("overrides"))),
        drop_heads=_pairs("heads", get),
        drop_cross_heads=_pairs("cross_heads", get),
        drop_neurons=_pairs("neurons", get),
        neurons=_share(get),
        compensate=bool(get("compensate")) and bool(get("neurons") or get("neuron_share")),
        drop_blocks=parse_indices(str(get("drop_blocks"))),
        drop_attention=parse_indices(str(get("drop_attention"))),
        drop_mlp=parse_indices(str(get("drop_mlp"))),
        calibration=_calibration(get),
        reconstruction=str(get("reconstruction")),
        allocation_args=allocation_args(get),
    )
    return recipe.with_pattern(str(get("pattern")))


def allocation_args(get: Get = value) -> dict[str, float]:
    """Shares that belong to the allocation chosen now; those of another one wait."""
    given = parse_numbers(str(get("shares")))
    known = ALLOCATION_ARGS.get(str(get("allocation")), {})
    named = {name for arguments in ALLOCATION_ARGS.values() for name in arguments}
    match get("allocation"):
        case "manual":
            return {name: share for name, share in given.items() if name.isdecimal()}
        case "per-role":
            return {n: v for n, v in given.items() if not n.isdecimal() and n not in named}
        case _:
            return {name: share for name, share in given.items() if name in known}


def read_link(link: str) -> tuple[str, dict[str, Recipe], Recipe]:
    """What a link of another session holds; nothing of this session changes.

    Returns:
        The model as the link names it, the recipes of its comparison by slot, and its own recipe.

    Raises:
        RecipeError: not a link of Prunescope, or damaged; the sentence names the part.
    """
    try:
        query = parse_qs(urlsplit(link.strip()).query, keep_blank_values=True)
    except ValueError:
        query = {}
    known = [key for key in query if key in KEYS]
    if not known and "://" not in link:
        raise RecipeError(t("compare.no_link"))
    values: dict[str, Any] = {}
    for key in known:
        try:
            values[key] = KEYS[key].read(query[key][0])
        except (ValueError, PruneCoreError):
            raise RecipeError(t("compare.damaged_link", part=key)) from None

    def get(key: str) -> Any:
        return values.get(key, KEYS[key].default)

    return str(get("model")), unpack(str(get("slots"))), _recipe(get)


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
        "heads": _written(recipe.drop_heads),
        "cross_heads": _written(recipe.drop_cross_heads),
        "neurons": _written(recipe.drop_neurons),
        "neuron_share": 0.0 if recipe.neurons is None else recipe.neurons.fraction,
        "neuron_method": NEURON_METHODS[0] if recipe.neurons is None else recipe.neurons.method,
        "neuron_scope": NEURON_SCOPES[0] if recipe.neurons is None else recipe.neurons.scope,
        "compensate": recipe.compensate,
        **{
            name: ",".join(str(block) for block in getattr(recipe, name))
            for name in ("drop_blocks", "drop_attention", "drop_mlp")
        },
        "overrides": ",".join(f"{k}={v:.6g}" for k, v in sorted(recipe.overrides.items())),
        "arguments": write_numbers(
            {
                name: number
                for name, number in recipe.criterion_args.items()
                if name != "value" or recipe.cut_value is None
            }
        ),
        "shares": write_numbers(recipe.allocation_args),
        "cut": min(recipe.cut_value or 0.0, MAX_CUT),
        **_calibration_values(recipe.calibration),
    }


def _calibration_values(chosen: Calibration) -> dict[str, Any]:
    if chosen == Calibration():
        return {key: KEYS[key].default for key in RECIPE_KEYS if key.startswith("cal_")}
    # what is chosen by itself stays so: written out it would be kept when the text that is measured
    # changes, and be refused as that very text
    by_itself = {"cal_text": "", "cal_seq_len": 0}

    def get(key: str) -> Any:
        return by_itself.get(key, value(key))

    text = chosen.text.value if chosen.text.kind == "preset" else ""
    length = chosen.seq_len if chosen.seq_len != calibration_length(get) else 0
    return {
        "cal_text": text if text != _preset_calibration(get).value else "",
        "cal_windows": chosen.windows,
        "cal_seq_len": length,
        "cal_skip": chosen.skip,
        "cal_seed": "" if chosen.seed is None else str(chosen.seed),
        "cal_mode": chosen.mode,
    }


def set_recipe(recipe: Recipe) -> None:
    """Make ``recipe`` the session's. Call it in a callback or before the recipe's widgets run."""
    text = recipe.calibration.text
    st.session_state["_calibration_file"] = text if text.kind == "file" else None
    st.session_state["_use_own_calibration"] = text.kind == "inline"
    if text.kind == "inline":
        st.session_state["_own_calibration"] = text.value
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
