"""The slots of a comparison: up to four recipes under the letters A to D, kept in the URL."""

from __future__ import annotations

from collections.abc import Mapping

import streamlit as st

from prune_core.allocation import ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.engine.client import Ticket
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.form import Form, value_of
from prune_core.recipes.forms import FORMS
from prune_core.recipes.notation import write_numbers
from prune_core.recipes.packing import NAMES, pack, unpack
from prune_core.recipes.parts import NEURON_METHODS, STRUCTURE
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.components import percent
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import name_of, pattern_name, t

NAMED = ("criterion", "criterion_args.value", "sparsity", *STRUCTURE, "neurons.fraction")
"""Fields that a recipe's name says already."""

NOTE = "_compare_note"
"""What the last attempt to add a recipe was refused for."""


def slots() -> dict[str, Recipe]:
    """The session's recipes by letter."""
    try:
        return unpack(str(value("slots")))
    except PruneCoreError:  # only what another version wrote into this session
        return {}


def add(recipe: Recipe) -> str:
    """Put a recipe into the first free slot and return its letter.

    Raises:
        RecipeError: all four are taken, it is there already, or it does not fit a link.
    """
    taken = slots()
    for name, other in taken.items():
        if other == recipe:
            raise RecipeError(t("compare.already", name=name))
    free = [name for name in NAMES if name not in taken]
    if not free:
        raise RecipeError(t("compare.full"))
    set_value("slots", pack({**taken, free[0]: recipe}))
    return free[0]


def try_add(*recipes: Recipe) -> None:
    """:func:`add` in a callback: a refusal is kept in :data:`NOTE` for the page to show."""
    st.session_state[NOTE] = ""
    for recipe in recipes:
        try:
            add(recipe)
        except PruneCoreError as error:
            st.session_state[NOTE] = error.sentence


def remove(name: str) -> None:
    """Empty a slot and withdraw what it waits for."""
    from prune_core.ui.frame.loading import cancel, forget

    st.session_state[NOTE] = ""
    set_value("slots", pack({k: r for k, r in slots().items() if k != name}))
    tickets: dict[str, Ticket] = st.session_state.get("_tickets", {})
    for panel in [p for p in tickets if p.startswith("compare_") and name in p.rpartition("_")[2]]:
        cancel(panel)
        forget(panel)
        st.session_state.get("_results", {}).pop(panel, None)  # the next recipe here is another


def criterion_name(name: str) -> str:
    """A criterion's short name."""
    return name_of(CRITERIA, name, "short")


def recipe_name(recipe: Recipe) -> str:
    """A recipe in a few words: ``Wanda 50 %, 3 blocks``."""
    parts = []
    if recipe.cut_value is not None:
        parts.append(f"|w| < {recipe.cut_value:.3g}")
    elif recipe.kept_of is not None and recipe.sparsity:
        n, m = recipe.kept_of
        parts.append(f"{criterion_name(recipe.criterion)} {n}:{m}")
    elif recipe.removes_weights:
        parts.append(f"{criterion_name(recipe.criterion)} {percent(recipe.sparsity, 0)}")
    for field in STRUCTURE:
        if gone := getattr(recipe, field):
            single = t(f"compare.n_{field}_one")
            parts.append(single if len(gone) == 1 else t(f"compare.n_{field}", count=len(gone)))
    if recipe.neurons is not None:
        parts.append(t("compare.neuron_share", share=percent(recipe.neurons.fraction, 0)))
    return ", ".join(parts) or t("compare.dense_recipe")


def recipe_detail(recipe: Recipe) -> str:
    """What else decides, a few words for each field that is not the default."""
    said = (_said(form, recipe) for form in FORMS)
    return " · ".join(words for words in said if words)


def _said(form: Form, recipe: Recipe) -> str:
    """A field in a few words; empty where the recipe's name says it or nothing reads it."""
    value = value_of(recipe, form.field)
    if form.group == "weights" and not recipe.removes_weights:
        return ""
    if form.field == "pattern":
        return "" if recipe.kept_of is not None else pattern_name(value)
    if value == form.default or form.field in NAMED:
        return ""
    match form.field:
        case "allocation":
            return name_of(ALLOCATIONS, value)
        case "overrides":
            return t("compare.n_overrides", count=len(value))
        case "reconstruction":
            return t("compare.repaired")
        case "compensate":
            return t("neurons.compensate")
        case "neurons.method":
            return name_of(NEURON_METHODS, value)
        case "calibration.text":
            name = t("runs.own_text") if value.kind == "inline" else value.value
            return f"{t(form.words)}: {name}"
        case "criterion_args" | "allocation_args":
            return write_numbers(value)
        case "neurons.scope":
            return t(f"neurons.scope_{_key(value)}")
        case _:  # how much is read of a text: the table of differences says it
            return ""


def _key(name: str) -> str:
    return name.replace("-", "_")


def recipe_differences(recipes: Mapping[str, Recipe]) -> list[dict[str, str]]:
    """Only the fields in which recipes differ: rows with ``field`` and a text by slot."""
    rows = []
    for form in FORMS:
        shown = {name: _shown(form, recipe) for name, recipe in recipes.items()}
        if len(set(shown.values())) > 1:
            rows.append({"field": t(form.words), **shown})
    return rows


def _shown(form: Form, recipe: Recipe) -> str:
    """A field's value for a table."""
    value = value_of(recipe, form.field)
    nothing = {
        "calibration.text": not recipe.may_read_calibration,
        "neurons.fraction": recipe.neurons is None,
        "criterion_args.value": recipe.cut_value is None,
    }
    if nothing.get(form.field):
        return t("common.none")
    if isinstance(value, TextSpec):
        return value.value[:40]
    if isinstance(value, Mapping):
        return ", ".join(f"{k} = {v}" for k, v in sorted(value.items())) or t("common.none")
    if isinstance(value, tuple):
        parts = [":".join(map(str, x)) if isinstance(x, tuple) else str(x) for x in value]
        more = f" … ({len(parts)})" if len(parts) > 12 else ""
        return ", ".join(parts[:12]) + more or t("common.none")
    return t("common.none") if value is None else str(value)
