"""Choosing what is compared: from the Studio, a file, a link, saved runs; and what differs."""

from __future__ import annotations

from typing import Any

import pandas as pd
import streamlit as st

from prune_core.errors import PruneCoreError, RecipeError
from prune_core.models.info import ModelInfo
from prune_core.models.sources import parse_source
from prune_core.recipes.packing import NAMES
from prune_core.recipes.recipe import Recipe
from prune_core.ui.compare.live import Recipes
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import Outcome, again
from prune_core.ui.frame.measured_on import measured_on
from prune_core.ui.frame.page import page_link
from prune_core.ui.frame.slots import NOTE, recipe_differences, recipe_name, remove, slots, try_add
from prune_core.ui.session.keys import set_value
from prune_core.ui.session.language import error_sentence, t
from prune_core.ui.session.link import read_link
from prune_core.ui.session.recipe_files import read_recipe
from prune_core.ui.session.recipe_state import recipe_from_state, set_recipe


def empty_state(recipes: Recipes) -> None:
    """What to do while there are fewer than two recipes."""
    if recipes:
        st.info(t("compare.one_more"), icon=":material/info:")
        return
    steps = st.columns(3, gap="medium")
    icons = (":material/tune:", ":material/library_add:", ":material/balance:")
    for number, (place, icon) in enumerate(zip(steps, icons, strict=True), start=1):
        with place.container(border=True, height="stretch"):
            st.markdown(f"### {icon} {t(f'compare.step_{number}')}")
            st.markdown(t(f"compare.step_{number}_help"))
    page_link("studio", label=t("compare.to_studio"))


def picker(model: ModelInfo, recipes: Recipes) -> None:
    """Add recipes, choose the text, empty the slots."""
    mine = recipe_from_state()
    full = len(recipes) == len(NAMES)
    with st.container(horizontal=True, vertical_alignment="bottom", gap="small"):
        st.button(
            t("compare.add_current", name=plain(recipe_name(mine))),
            icon=":material/add:",
            key="_add_current",
            on_click=try_add,
            args=(mine,),
            disabled=full or mine in recipes.values(),
            help=t("compare.add_current_help"),
            type="primary" if len(recipes) < 2 else "secondary",
        )
        with st.popover(t("compare.add_other"), icon=":material/library_add:", disabled=full):
            _from_link()
            _from_file()
            _ready_made()
        st.button(
            t("compare.clear"),
            icon=":material/clear_all:",
            key="_clear_slots",
            on_click=clear,
            disabled=not recipes,
            type="tertiary",
        )
    if st.session_state.get(NOTE):
        st.warning(plain(error_sentence(st.session_state[NOTE])), icon=":material/info:")
    measured_on()


def clear() -> None:
    """Empty all slots."""
    for name in slots():
        remove(name)


def _ready_made() -> None:
    """Two usual recipes with one click each, to have something to compare with."""
    st.caption(t("compare.ready"))
    with st.container(horizontal=True, gap="small"):
        for criterion in ("magnitude", "wanda", "random"):
            recipe = Recipe(criterion, sparsity=0.5)
            st.button(
                recipe_name(recipe), key=f"_ready_{criterion}", on_click=try_add, args=(recipe,)
            )


def _from_link() -> None:
    with st.form("_link_form", border=False, clear_on_submit=True):
        st.text_input(t("compare.link"), key="_link", help=t("compare.link_help"), max_chars=20_000)
        st.form_submit_button(t("compare.add"), on_click=_take_link)


def _take_link() -> None:
    st.session_state[NOTE] = ""
    link = str(st.session_state.get("_link") or "")
    if not link.strip():
        return
    try:
        source, packed, recipe = read_link(link)
        known: ModelInfo | None = st.session_state.get("_model_info")
        if known is not None and parse_source(source).text != known.source:
            raise RecipeError(t("compare.other_model", model=source, loaded=known.source))
    except PruneCoreError as error:
        st.session_state[NOTE] = error.sentence
        return
    try_add(*(packed.values() or [recipe]))


def _from_file() -> None:
    st.file_uploader(
        t("compare.files"),
        type="json",
        key="_slot_files",
        accept_multiple_files=True,
        on_change=_take_files,
    )


def _take_files() -> None:
    """Add what has been uploaded since; files that stay in the box are not added again."""
    uploads: list[Any] = st.session_state.get("_slot_files") or []
    seen: set[str] = st.session_state.setdefault("_slot_files_seen", set())
    found, st.session_state[NOTE] = [], ""
    for upload in uploads:
        if upload.file_id in seen:
            continue
        try:
            found.append(read_recipe(upload.getvalue()))
        except PruneCoreError as error:
            st.session_state[NOTE] = f"{upload.name}: {error_sentence(error)}"
    st.session_state["_slot_files_seen"] = {upload.file_id for upload in uploads}
    refused = st.session_state[NOTE]
    try_add(*found)
    st.session_state[NOTE] = st.session_state[NOTE] or refused


def slot_buttons(recipes: Recipes, outcomes: dict[str, Outcome]) -> None:
    """Under each card: retry, open in the Studio, remove."""
    places = st.columns(len(recipes), gap="medium" if len(recipes) < 4 else "small")
    for place, (name, recipe) in zip(places, recipes.items(), strict=True):
        state = outcomes[name].ticket.state
        with place.container(horizontal=True, gap="small"):
            if state in ("failed", "cancelled"):
                st.button(
                    t("common.retry" if state == "failed" else "common.resume"),
                    key=f"_again_{name}",
                    on_click=again,
                    args=((f"compare_{name}",),),
                )
            st.button(
                t("compare.use"),
                key=f"_use_{name}",
                icon=":material/tune:",
                on_click=_use,
                args=(recipe, name),
                help=t("compare.use_help"),
                type="tertiary",
            )
            st.button(
                t("compare.remove"),
                key=f"_remove_{name}",
                icon=":material/close:",
                on_click=remove,
                args=(name,),
                type="tertiary",
            )
    used = str(st.session_state.get("_slot_used") or "")
    if used in recipes and recipe_from_state() == recipes[used]:
        page_link("studio", label=t("compare.used", name=used))


def _use(recipe: Recipe, name: str) -> None:
    set_recipe(recipe)
    st.session_state["_slot_used"] = name


def step_slot(names: tuple[str, ...], step: int) -> None:
    """Move on to another slot; past the last comes the first."""
    from prune_core.ui.session.keys import value

    at = names.index(value("slot_at")) if value("slot_at") in names else (-1 if step > 0 else 0)
    set_value("slot_at", names[(at + step) % len(names)])


def step_prompt(total: int, step: int) -> None:
    """Move on to another prompt."""
    from prune_core.ui.session.keys import value

    set_value("prompt_at", str((min(int(value("prompt_at")), total - 1) + step) % total))


def what_differs(recipes: Recipes) -> None:
    """Only the fields in which the recipes differ."""
    rows = recipe_differences(recipes)
    st.subheader(t("compare.differs"), anchor=False)
    if not rows:
        st.caption(t("compare.no_difference"))
        return
    frame = pd.DataFrame(rows).rename(columns={"field": t("compare.field")})
    st.dataframe(frame, hide_index=True, width="stretch", row_height=32)
