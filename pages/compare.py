"""Compare: two to four recipes side by side, and whether they differ at all."""

import streamlit as st

from prune_core.jobs.command_lines import compare_line
from prune_core.models.info import ModelInfo
from prune_core.ui.compare.details import (
    compare_or_say,
    damage,
    overlap,
    passage,
    significance,
    verdicts,
)
from prune_core.ui.compare.live import Recipes, chosen_prompt, live_answers, live_cards, prompts
from prune_core.ui.compare.picker import (
    empty_state,
    picker,
    slot_buttons,
    step_prompt,
    step_slot,
    what_differs,
)
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.page import Page, current_model, open_page, reproduce
from prune_core.ui.frame.slots import slots
from prune_core.ui.session.keys import set_value, value, widget
from prune_core.ui.session.language import t
from prune_core.ui.session.recipe_state import apart_from_text, evaluation_settings, text_spec


def prompt_choice() -> None:
    """The prompts, and which of them is shown."""
    found = prompts()
    st.subheader(t("compare.answers"), anchor=False)
    left, right = st.columns([2.4, 1], gap="large", vertical_alignment="bottom")
    with left:
        st.session_state["_prompt_at"] = str(min(int(value("prompt_at")), len(found) - 1))
        st.segmented_control(
            t("compare.prompt"),
            [str(place) for place in range(len(found))],
            format_func=lambda place: plain(found[int(place)], 34),
            key="_prompt_at",
            required=True,
            on_change=lambda: set_value("prompt_at", st.session_state["_prompt_at"]),
        )
    with right.popover(t("compare.prompts"), icon=":material/edit:", width="stretch"):
        st.text_area(
            t("compare.prompts"),
            placeholder="\n".join(found),
            max_chars=2000,
            help=t("compare.prompts_help"),
            **widget("prompts", initial="value"),
        )
    st.text(chosen_prompt())


def presenter(recipes: Recipes) -> None:
    """Left and right step through the recipes, up and down through the prompts."""
    names, total = tuple(recipes), len(prompts())
    if value("slot_at") not in names:
        set_value("slot_at", names[0])
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        for key, step, text in (("Left", -1, "previous_slot"), ("Right", 1, "next_slot")):
            st.button(
                t(f"compare.{text}"),
                key=f"_step_{key}",
                shortcut=key,
                on_click=step_slot,
                args=(names, step),
                type="tertiary",
            )
        for key, step, text in (("Up", -1, "previous_prompt"), ("Down", 1, "next_prompt")):
            st.button(
                t(f"compare.{text}"),
                key=f"_step_{key}",
                shortcut=key,
                on_click=step_prompt,
                args=(total, step),
                type="tertiary",
            )


def draw(page: Page, model: ModelInfo, recipes: Recipes) -> None:
    if page.presenting:
        presenter(recipes)
    outcomes = live_cards(page, model, recipes)
    if not page.presenting:
        slot_buttons(recipes, outcomes)
        what_differs(recipes)
    if any(outcome.busy for outcome in outcomes.values()):
        return
    results = {name: outcome.fresh for name, outcome in outcomes.items() if outcome.fresh}
    measured = {name: recipes[name] for name in results}
    if page.presenting and len(results) > 1:
        compared = compare_or_say(results)
        chosen = str(value("slot_at"))
        for sentence in verdicts(compared) if compared else ():
            if f"**{chosen}**" in sentence:
                st.markdown(sentence)
    elif len(results) > 1:
        significance(page, results)
    if not measured:
        return
    written = True
    if model.has_language_head:
        if page.presenting:
            st.subheader(plain(chosen_prompt(), 120), anchor=False)
        else:
            prompt_choice()
        written = live_answers(page, model, measured)
    if page.presenting:
        return
    passage(page, results)
    if written:
        left, right = st.columns([1.5, 1], gap="large")
        with left:
            damage(page, model, measured)
        with right:
            if len(measured) > 1:
                overlap(page, model, measured)


with open_page("compare") as page:
    model = current_model()
    if model is not None and not model.layers:
        st.info(t("weights.empty"), icon=":material/info:")
    elif model is not None:
        recipes = {name: apart_from_text(recipe) for name, recipe in slots().items()}
        if not page.presenting or len(recipes) < 2:
            picker(model, recipes)
        if len(recipes) < 2:
            empty_state(recipes)
        if recipes:
            draw(page, model, recipes)
        if len(recipes) > 1 and not page.presenting:
            sizes = evaluation_settings()
            reproduce(compare_line(model.source, recipes, text_spec(), **sizes))
