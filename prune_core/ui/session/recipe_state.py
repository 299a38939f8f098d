"""The recipe that a session's widgets say, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import streamlit as st

from prune_core.errors import RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import ALLOCATION_ARGS, Recipe, choices_read_calibration
from prune_core.ui.session.keys import (
    KEYS,
    MAX_CUT,
    TEXTS,
    Get,
    parse_indices,
    parse_numbers,
    parse_overrides,
    set_value,
    value,
    write_numbers,
)

RECIPE_KEYS = (
    *("criterion", "pattern", "allocation", "reconstruction"),
    *("sparsity", "heads", "cross_heads", "neurons", "drop_blocks", "drop_attention", "drop_mlp"),
    *("neuron_share", "neuron_method", "neuron_scope", "compensate"),
    *("overrides", "arguments", "shares", "cut"),
    *("cal_text", "cal_windows", "cal_seq_len", "cal_skip", "cal_seed", "cal_mode"),
)


def reads_calibration(get: Get = value) -> bool:
    """Whether the chosen recipe reads a calibration text at all."""
    return choices_read_calibration(
        str(get("criterion")),
        str(get("allocation")),
        str(get("reconstruction")),
        neurons=bool(get("neuron_share")) or bool(get("compensate")),
    )


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


def recipe_said(get: Get = value) -> Recipe:
    """The recipe that the session's values say."""
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


def recipe_from_state() -> Recipe:
    """The session's recipe.

    A combination that cannot be (global ranking per row) loses its allocation: single widgets may
    pass through such states while a user turns one after the other.
    """
    try:
        return recipe_said()
    except (RecipeError, ValueError):
        return Recipe(
            criterion=str(value("criterion")),
            sparsity=float(value("sparsity")),
            calibration=_calibration(),
        ).with_pattern(str(value("pattern")))


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the session's values."""
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
    for key, new in recipe_values(recipe).items():
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


def cut_by_value(cut: float) -> None:
    """Make the recipe one that removes every weight below ``cut``; call it in a callback."""
    for key, new in (
        ("criterion", "threshold"),
        ("arguments", ""),
        ("cut", cut),
        ("sparsity", 0.0),
        ("pattern", "per-layer"),
        ("allocation", "uniform"),
        ("reconstruction", "none"),
        ("overrides", ""),
    ):
        set_value(key, new)
