"""A live gauge for pages beside the Studio: what the recipe costs, on the same text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from prune_core.models.info import ModelInfo
from prune_core.ui.frame.components import guarded, percent
from prune_core.ui.frame.loading import draw_progress, failure_text, submit
from prune_core.ui.session.language import t
from prune_core.ui.session.questions import EVALUATE, evaluate_job
from prune_core.ui.session.recipe_state import recipe_from_state
from prune_core.words.numbers import number

POLL_SECONDS = 0.25


def mini_gauge(model: ModelInfo) -> None:
    """Perplexity (or similarity) of the session's recipe and its change against dense.

    The job is the Studio's own: what is measured here is known there.
    """
    recipe = recipe_from_state()
    busy = submit(evaluate_job(model, recipe), EVALUATE).busy

    @guarded("gauge")
    def draw() -> None:
        outcome = submit(evaluate_job(model, recipe), EVALUATE)
        if busy and not outcome.busy:
            st.rerun()  # once: polling ends
        if outcome.ticket.state == "failed":
            st.error(failure_text(outcome.ticket), icon=":material/error:")
            return
        event = outcome.ticket.event
        partial = event if event and event.get("tokens") else None
        _show(outcome.fresh or partial or outcome.result, settled=outcome.fresh is not None)
        if outcome.busy:
            draw_progress(outcome.ticket, t("common.gauge_measuring"))

    with st.container(border=True):
        st.fragment(draw, run_every=POLL_SECONDS if busy else None)()


def _show(numbers: Mapping[str, Any] | None, *, settled: bool) -> None:
    if numbers is None:
        st.metric(t("common.gauge_perplexity"), "…")
        return
    if numbers.get("metric") == "similarity":
        st.metric(t("common.gauge_similarity"), number(numbers.get("similarity"), 4))
    elif numbers.get("perplexity") is not None:
        dense = numbers.get("perplexity_dense")
        change = numbers["perplexity"] / dense - 1 if dense else None
        st.metric(
            t("common.gauge_perplexity"),
            number(numbers["perplexity"], 4),
            None if change is None or not numbers.get("sparsity") else f"{100 * change:+.1f} %",
            delta_color="inverse",
        )
        low, high = numbers.get("perplexity_low"), numbers.get("perplexity_high")
        # the interval is that of the change: dense against itself has none
        if low is not None and high is not None and low < high:
            st.caption(t("common.gauge_interval", low=number(low, 4), high=number(high, 4)))
    share = percent(float(numbers.get("sparsity") or 0.0))
    key = "gauge_settled" if settled else "gauge_estimate"
    key += "_windows" if numbers.get("metric") == "similarity" else ""
    st.caption(
        t(f"common.{key}", share=share, windows=numbers["windows"], tokens=numbers["tokens"])
    )
