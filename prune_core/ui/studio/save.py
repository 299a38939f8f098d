"""What is measured in the Studio, kept as a run that Trade-off, Compare and reports can use."""

from __future__ import annotations

import streamlit as st

from prune_core.errors import StoreError
from prune_core.jobs.sweeps import MeasureCell
from prune_core.models.info import ModelInfo
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.records import Cell
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import follow
from prune_core.ui.frame.page import page_link
from prune_core.ui.frame.runs import store
from prune_core.ui.session.language import error_sentence, t
from prune_core.ui.session.recipe_state import evaluation_settings, text_spec


def save_panel(model: ModelInfo, recipe: Recipe) -> None:
    """A button that keeps the measurement; its costs are counted on the way."""
    text, sizes = text_spec(), evaluation_settings()
    cell = Cell(model.source, recipe, text, sizes["seq_len"], sizes["windows"])
    job = MeasureCell(model.source, recipe, text, cell.seq_len, cell.windows)
    with st.container(horizontal=True, vertical_alignment="center", gap="small"):
        st.button(
            t("studio.save_run"),
            key="_save_run",
            icon=":material/bookmark_add:",
            help=t("studio.save_run_help"),
            on_click=lambda: st.session_state.update(_saving=job.key),
        )
        page_link("tradeoff", narrow=True)
    if st.session_state.get("_saving") != job.key:
        return
    outcome = follow(job, "studio_save", what=t("studio.saving"))
    if outcome.fresh is None:
        return
    kept: set[str] = st.session_state.setdefault("_saved_runs", set())
    if job.key not in kept:
        try:
            store().save_run(cell, outcome.fresh)
        except StoreError as error:
            st.error(plain(error_sentence(error)), icon=":material/error:")
            return
        kept.add(job.key)
    st.success(t("studio.saved_run"), icon=":material/check:")
