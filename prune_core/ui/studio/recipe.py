"""The Studio's left side: what goes (the recipe), and what it is measured and tried on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import streamlit as st

from prune_core.criteria import CRITERIA
from prune_core.errors import PruneCoreError
from prune_core.models.info import ModelInfo
from prune_core.patterns import example_patterns, parse_pattern
from prune_core.recipes.choices import RECONSTRUCTIONS, own_pattern
from prune_core.recipes.recipe import ALLOCATIONS, Recipe
from prune_core.ui.frame.components import choice, percent, plain
from prune_core.ui.frame.measured_on import measured_on
from prune_core.ui.frame.method_cards import about_method, method_card
from prune_core.ui.session.keys import KEYS, set_value, value, widget
from prune_core.ui.session.language import error_sentence, name_of, pattern_name, t, t_or
from prune_core.ui.session.recipe_files import read_recipe
from prune_core.ui.session.recipe_state import (
    PATTERN_CHOSEN,
    cut_by_value,
    pattern_chosen,
    recipe_from_state,
    set_recipe,
)
from prune_core.ui.studio.choices import (
    calibration_panel,
    cut_control,
    forget_changes,
    note_change,
    say_change,
    shares_editor,
    structure_panel,
)

MAX_HISTORY = 100
NEW_TOKENS = (24, 48, 64, 128, 256)


def recipe_panel(model: ModelInfo, *, presenting: bool) -> Recipe:
    """The controls; returns the recipe they give."""
    recipe = recipe_from_state()
    remember(recipe)
    _sparsity(recipe)
    _choices(model, recipe, presenting=presenting)
    _history_buttons()
    if not presenting:
        structure_panel(model)
        _fine_tuning(model, recipe)
        if recipe.may_read_calibration:
            calibration_panel(model)
        measured_on()
        _files(recipe)
    return recipe


def _sparsity(recipe: Recipe) -> None:
    if recipe.criterion == "threshold" and not recipe.sparsity:
        cut_control()
        return
    if recipe.kept_of is not None:
        n, m = recipe.kept_of
        st.slider(
            t("studio.sparsity"),
            0.0,
            1.0,
            value=1 - n / m,
            format="percent",
            disabled=True,
            key=f"_fixed_{n}_{m}",
            help=t("studio.sparsity_fixed", n=n, m=m),
        )
        st.caption(t("studio.sparsity_fixed", n=n, m=m))
        return
    st.slider(
        t("studio.sparsity"),
        0.0,
        1.0,  # all that a link or a file may ask for
        value=KEYS["sparsity"].default,
        step=0.01,
        format="percent",
        help=t("studio.sparsity_help"),
        **widget("sparsity"),
    )


def _pattern_chosen() -> None:
    forget_changes()
    pattern = str(value("pattern"))
    own = own_pattern(str(value("criterion")), str(value("allocation")))
    st.session_state[PATTERN_CHOSEN] = pattern != own
    if value("allocation") not in _allocations(pattern):
        set_value("allocation", "uniform")
        note_change("pattern", t("studio.changed_allocation", pattern=pattern_name(pattern)))
    if parse_pattern(pattern).sparsity is not None and value("overrides"):
        set_value("overrides", "")
        note_change("pattern", t("studio.changed_overrides", pattern=pattern_name(pattern)))


def _follow_criterion() -> None:
    """The pattern becomes the criterion's own unless the user chose one; the page says which."""
    criterion, pattern = str(value("criterion")), str(value("pattern"))
    own = own_pattern(criterion, str(value("allocation")))
    if pattern == own:
        return
    names = {
        "criterion": name_of(CRITERIA, criterion),
        "own": pattern_name(own),
        "pattern": pattern_name(pattern),
    }
    if pattern_chosen():
        note_change("pattern", t("studio.kept_pattern", **names))
        return
    set_value("pattern", own)
    note_change("pattern", t("studio.changed_pattern", **names))


def _allocations(pattern: str) -> list[str]:
    """What a pattern may be shared by."""
    if parse_pattern(pattern).sparsity is not None or value("criterion") == "threshold":
        return ["uniform"]
    by_block = value("reconstruction") != "none"
    return [
        entry.name
        for entry in ALLOCATIONS.values()
        if entry.pattern in ("", pattern) and not (by_block and "ordered" in entry.needs)
    ]


def _reconstruction_chosen() -> None:
    """Repair wants its own scores, unless another criterion was chosen for good reason."""
    forget_changes()
    if value("reconstruction") == "none":
        return
    pattern_chosen()  # asked while the pattern is still that of the criterion before
    set_value("arguments", "")
    own = RECONSTRUCTIONS[str(value("reconstruction"))].criterion
    if own and value("criterion") != own:
        set_value("criterion", own)
        note_change("reconstruction", t("studio.changed_criterion"))
    if "ordered" in ALLOCATIONS[str(value("allocation"))].needs:
        set_value("allocation", "uniform")
        note_change("reconstruction", t("studio.changed_allocation_repair"))
    _follow_criterion()


def _allocation_chosen() -> None:
    forget_changes()
    if not pattern_chosen():  # global ranking had held it at per-layer
        _follow_criterion()


def _criterion_chosen() -> None:
    """A criterion brings its own pattern; the user's choice of another one stays."""
    forget_changes()
    set_value("arguments", "")  # they belonged to the criterion before
    if value("criterion") == "threshold":  # it cuts by value
        cut_by_value(float(value("cut")))
        return
    _follow_criterion()


def _choices(model: ModelInfo, recipe: Recipe, *, presenting: bool) -> None:
    pattern_chosen()  # known before a criterion is chosen
    st.selectbox(
        t("studio.criterion"),
        list(CRITERIA),
        format_func=lambda name: name_of(CRITERIA, name),
        help=method_card(str(value("criterion"))),
        on_change=_criterion_chosen,
        **widget("criterion", list(CRITERIA)),
    )
    about_method(str(value("criterion")))
    if recipe.criterion == "threshold" and not recipe.sparsity:
        return  # a cut by value has no pattern, no shares and no repair
    patterns = example_patterns()
    if value("pattern") not in patterns:  # from a link
        patterns.append(str(value("pattern")))
    st.selectbox(
        t("studio.pattern"),
        patterns,
        format_func=pattern_name,
        help=t("studio.pattern_help"),
        on_change=_pattern_chosen,
        **widget("pattern", patterns),
    )
    say_change("pattern")
    allocations = _allocations(recipe.pattern)
    if len(allocations) > 1:
        st.selectbox(
            t("studio.allocation"),
            allocations,
            format_func=lambda name: name_of(ALLOCATIONS, name),
            help=t("studio.allocation_help"),
            on_change=_allocation_chosen,
            **widget("allocation", allocations),
        )
    if not presenting:
        shares_editor(model)
    st.selectbox(
        t("studio.reconstruction"),
        list(RECONSTRUCTIONS),
        format_func=lambda name: name_of(RECONSTRUCTIONS, name),
        help=t("studio.reconstruction_help"),
        on_change=_reconstruction_chosen,
        **widget("reconstruction", list(RECONSTRUCTIONS)),
    )
    say_change("reconstruction")


# ---- undo, redo ------------------------------------------------------------------------------


def remember(recipe: Recipe) -> None:
    """Note the recipe for undo."""
    history: list[str] = st.session_state.setdefault("_history", [])
    at = int(st.session_state.setdefault("_history_at", -1))
    now = recipe.to_json()
    if 0 <= at < len(history) and history[at] == now:
        return
    del history[at + 1 :]
    history.append(now)
    del history[:-MAX_HISTORY]
    st.session_state["_history_at"] = len(history) - 1


def _go(step: int) -> None:
    history: list[str] = st.session_state.get("_history", [])
    at = int(st.session_state.get("_history_at", 0)) + step
    if 0 <= at < len(history):
        st.session_state["_history_at"] = at
        set_recipe(Recipe.from_json(history[at]))


def _history_buttons() -> None:
    history: list[str] = st.session_state.get("_history", [])
    at = int(st.session_state.get("_history_at", 0))
    with st.container(horizontal=True, gap="small"):
        st.button(
            t("studio.undo"),
            icon=":material/undo:",
            key="_undo",
            on_click=_go,
            args=(-1,),
            disabled=at < 1,
        )
        st.button(
            t("studio.redo"),
            icon=":material/redo:",
            key="_redo",
            on_click=_go,
            args=(1,),
            disabled=at >= len(history) - 1,
        )
        st.button(
            t("studio.reset"),
            icon=":material/restart_alt:",
            key="_reset",
            on_click=set_recipe,
            args=(Recipe(),),
            help=t("studio.reset_help"),
        )


# ---- fine tuning -----------------------------------------------------------------------------


def _set_override(key: str, share: float | None) -> None:
    recipe = recipe_from_state()
    overrides = {k: v for k, v in recipe.overrides.items() if k != key}
    if share is not None:
        overrides[key] = share
    set_recipe(replace(recipe, overrides=overrides))


def _apply_override() -> None:
    _set_override(str(st.session_state["_part"]), float(st.session_state["_part_share"]))


def _part_name(key: str) -> str:
    kind, _, name = key.partition(":")
    if kind == "role":
        role = t_or(f"common.role_{name.replace('.', '_')}", name)
        return t("studio.part_role", name=role)
    return t(f"studio.part_{kind}", name=name)


def _fine_tuning(model: ModelInfo, recipe: Recipe) -> None:
    with st.expander(t("studio.fine"), icon=":material/instant_mix:"):
        if recipe.kept_of is not None:
            st.caption(t("studio.fine_nm"))
            return
        st.caption(t("studio.fine_help"))
        roles = list(dict.fromkeys(f"role:{layer.role}" for layer in model.layers))
        parts = [*roles, *(f"block:{block.index}" for block in model.blocks)]
        st.selectbox(t("studio.part"), parts, format_func=_part_name, key="_part")
        st.slider(
            t("studio.part_share"), 0.0, 1.0, value=0.5, step=0.01, format="percent",
            key="_part_share",
        )  # fmt: skip
        st.button(t("studio.part_set"), key="_part_set", on_click=_apply_override)
        for key, share in sorted(recipe.overrides.items()):
            left, right = st.columns([4, 1], vertical_alignment="center")
            left.text(t("studio.part_row", part=_part_name(key), share=percent(share, 0)))
            right.button(
                t("studio.part_clear"),
                icon=":material/close:",
                key=f"_clear_{key}",
                on_click=_set_override,
                args=(key, None),
                type="tertiary",
            )


# ---- what it is measured on ------------------------------------------------------------------


# ---- recipe files ----------------------------------------------------------------------------


def _load_recipe() -> None:
    upload: Any = st.session_state.get("_recipe_file")
    if upload is None:
        return
    try:
        set_recipe(read_recipe(upload.getvalue()))
        st.session_state["_recipe_error"] = ""
    except PruneCoreError as error:
        st.session_state["_recipe_error"] = error.sentence


def _files(recipe: Recipe) -> None:
    with st.expander(t("studio.files"), icon=":material/description:"):
        st.download_button(
            t("studio.save"),
            data=recipe.to_json(),
            file_name=f"recipe-{recipe.fingerprint}.json",
            mime="application/json",
            key="_save_recipe",
            icon=":material/download:",
            on_click="ignore",
        )
        st.file_uploader(t("studio.load"), type="json", key="_recipe_file", on_change=_load_recipe)
        if st.session_state.get("_recipe_error"):
            st.error(
                plain(error_sentence(st.session_state["_recipe_error"])), icon=":material/error:"
            )


# ---- the prompt ------------------------------------------------------------------------------


def prompt_panel(model: ModelInfo) -> None:
    """What both models are asked to continue, and how they choose their words."""
    left, right = st.columns([4, 1], vertical_alignment="bottom")
    left.text_input(
        t("studio.prompt"),
        value=KEYS["prompt"].default,
        placeholder=t("studio.prompt_default"),
        max_chars=4000,
        help=t("studio.prompt_help"),
        **widget("prompt"),
    )
    with right.popover(t("studio.settings"), icon=":material/settings:", width="stretch"):
        choice(
            "sampling",
            t("studio.sampling"),
            ["greedy", "sample"],
            lambda name: t(f"studio.sampling_{name}"),
            help_text=t("studio.sampling_help"),
        )
        if value("sampling") == "sample":
            st.number_input(
                t("studio.seed"), 0, 2**31 - 1, step=1, **widget("seed", initial="value")
            )
        lengths = sorted({*NEW_TOKENS, int(value("new_tokens"))})
        st.selectbox(
            t("studio.new_tokens"),
            lengths,
            help=t("studio.new_tokens_help"),
            **widget("new_tokens", lengths),
        )
        if model.has_chat_template:
            st.toggle(
                t("studio.chat"),
                value=KEYS["chat"].default,
                help=t("studio.chat_help"),
                **widget("chat"),
            )
        st.toggle(
            t("studio.auto"),
            value=True,
            key="_auto_write",
            persist_state="session",
            help=t("studio.auto_help"),
        )
