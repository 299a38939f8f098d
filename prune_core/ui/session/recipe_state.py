"""The recipe that a session's widgets say, and back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import streamlit as st

from prune_core.errors import RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.recipes.calibration import Calibration, apart, usual_text
from prune_core.recipes.choices import own_pattern
from prune_core.recipes.form import value_of
from prune_core.recipes.forms import BY_FIELD, FORMS, forms_of
from prune_core.recipes.notation import MAX_CUT
from prune_core.recipes.recipe import Recipe
from prune_core.recipes.values import recipe_that_waits
from prune_core.ui.session.keys import Get, set_value, value

RECIPE_KEYS = tuple(form.key for form in FORMS)
"""What a recipe is kept under."""

PATTERN_CHOSEN = "_pattern_chosen"
"""Whether the session's pattern is one that its user, a link or a file chose, not the criterion."""


def pattern_chosen() -> bool:
    """Whether the pattern stays when another criterion is chosen."""
    if PATTERN_CHOSEN not in st.session_state:  # a link may have brought one
        own = own_pattern(str(value("criterion")), str(value("allocation")))
        st.session_state[PATTERN_CHOSEN] = value("pattern") != own
    return bool(st.session_state[PATTERN_CHOSEN])


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
    chosen = str(get("cal_text"))
    if chosen:
        return TextSpec("preset", chosen)
    return usual_text(TextSpec("preset", str(get("text"))))


def chosen_calibration(get: Get = value) -> Calibration:
    """The session's calibration, whether the recipe reads one or not; or that of a link."""
    values = _values(get, "calibration")
    return Calibration(**{field.partition(".")[2]: values[field] for field in values})


def _values(get: Get, *groups: str) -> dict[str, Any]:
    """Values by field, with what is chosen by itself filled in."""
    values = {form.field: form.from_session(get(form.key)) for form in forms_of(*groups)}
    if "calibration" in groups:
        text = calibration_text() if get is value else _preset_calibration(get)
        values |= {"calibration.text": text, "calibration.seq_len": calibration_length(get)}
    return values


def recipe_said(get: Get = value) -> Recipe:
    """The recipe that the session's values say."""
    return recipe_that_waits(_values(get, "weights", "structure", "calibration"))


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
            calibration=chosen_calibration(),
        ).with_pattern(str(value("pattern")))


def recipe_values(recipe: Recipe) -> dict[str, Any]:
    """A recipe as the session's values."""
    values = {
        form.key: form.to_session(value_of(recipe, form.field))
        for form in forms_of("weights", "structure")
    }
    cut = BY_FIELD["criterion_args.value"].key
    values[cut] = min(values[cut], MAX_CUT)
    return values | _calibration_values(recipe.calibration)


def _calibration_values(chosen: Calibration) -> dict[str, Any]:
    if chosen == Calibration():
        return {form.key: form.session_default for form in forms_of("calibration")}
    # what is chosen by itself stays so: written out it would be kept when the text that is measured
    # changes, and be refused as that very text
    by_itself = {"cal_text": "", "cal_seq_len": 0}

    def get(key: str) -> Any:
        return by_itself.get(key, value(key))

    values = {
        form.key: form.to_session(getattr(chosen, form.field.partition(".")[2]))
        for form in forms_of("calibration")
    }
    if chosen.text.kind != "preset" or chosen.text == _preset_calibration(get):
        values["cal_text"] = by_itself["cal_text"]
    if chosen.seq_len == calibration_length(get):
        values["cal_seq_len"] = by_itself["cal_seq_len"]
    return values


def apart_from_text(recipe: Recipe) -> Recipe:
    """The recipe with a calibration that nobody chose moved off the text that is measured now."""
    return replace(recipe, calibration=apart(recipe.calibration, text_spec()))


def set_recipe(recipe: Recipe) -> None:
    """Make ``recipe`` the session's. Call it in a callback or before the recipe's widgets run."""
    st.session_state[PATTERN_CHOSEN] = recipe.pattern != own_pattern(
        recipe.criterion, recipe.allocation
    )
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
    st.session_state[PATTERN_CHOSEN] = False
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
