"""Trade-off: size against quality, what keeps a budget, and the runs behind it."""

import streamlit as st

from prune_core.models.info import ModelInfo
from prune_core.sweeps.options import three_options
from prune_core.ui.frame.components import guarded
from prune_core.ui.frame.page import Page, current_model, open_page, reproduce
from prune_core.ui.frame.runs import store, sweep_choice
from prune_core.ui.session.keys import value
from prune_core.ui.session.language import t
from prune_core.ui.tradeoff import front as tradeoff
from prune_core.ui.tradeoff.budget import budget_panel
from prune_core.ui.tradeoff.runs import runs_list
from prune_core.ui.tradeoff.sweep import new_sweep, progress, running

LIVE_SECONDS = 2.0


def live(page: Page, sweep: str, busy: bool) -> None:
    """Progress and the picture; while a sweep runs they draw themselves."""

    @guarded("tradeoff")
    def body() -> None:
        if st.session_state.get("_to_studio"):
            st.rerun()
        sweeps = running()
        if busy and not sweeps:
            st.rerun()
        progress(sweeps)
        draw(page, sweep)

    st.fragment(body, run_every=LIVE_SECONDS if busy else None)()


def draw(page: Page, sweep: str) -> None:
    runs, others = tradeoff.shown_runs(sweep)
    if not runs:
        st.info(t("tradeoff.empty"), icon=":material/scatter_plot:")
        return
    cost, quality = tradeoff.axes(runs)
    found = tradeoff.front_of(runs, cost, quality)
    methods = tradeoff.methods_shown(found)
    tradeoff.picture(page, found, methods)
    tradeoff.conditions(runs)
    tradeoff.findings(found, others)
    tradeoff.table(found)


def presented(page: Page) -> None:
    runs, _ = tradeoff.shown_runs(str(value("sweep")))
    if not runs:
        st.info(t("tradeoff.empty"), icon=":material/scatter_plot:")
        return
    found = tradeoff.front_of(runs, str(value("cost")), str(value("quality")))
    tradeoff.present(page, found, three_options(runs))
    tradeoff.conditions(runs)


def work(page: Page, model: ModelInfo | None) -> None:
    sweep = sweep_choice()
    busy = bool(running())
    live(page, sweep, busy)
    runs, _ = tradeoff.shown_runs(sweep)
    if model is not None and model.layers:
        budget_panel(model, runs)
        new_sweep(model, opened=not runs and not busy)
    runs_list(sweep)
    reproduce(f"python -m prune_core frontier --store {store().name}")


with open_page("tradeoff") as page:
    tradeoff.moves_on()
    if page.presenting:
        presented(page)
    else:
        work(page, current_model())
