"""A live gauge for pages beside the Studio: what the recipe costs, on the same text."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import streamlit as st

from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import LANGUAGE, headline_of
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import counts_of
from prune_core.ui.frame.components import guarded
from prune_core.ui.frame.loading import draw_progress, failure_text, submit
from prune_core.ui.frame.weight_bar import both_said, zeros_said
from prune_core.ui.session.language import metric_text, t
from prune_core.ui.session.questions import EVALUATE, evaluate_job
from prune_core.ui.session.recipe_state import recipe_from_state
from prune_core.words.numbers import error_in, percent_measured, with_error

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
        st.metric(metric_text(headline_of(LANGUAGE), "title"), "…")
        return
    evaluation = Evaluation.from_dict(numbers)
    row = evaluation.headline
    mine, title = evaluation.value(row), metric_text(row, "title")
    if not row.low:
        text = t("common.none") if mine.value is None else with_error(mine.value, mine.error)
        st.metric(title, text)
    elif mine.value is not None:
        dense, many = mine.dense, t("common.million")
        # the interval is that of the change: dense against itself has none
        error = error_in(mine.low, mine.high)
        change = mine.value / dense - 1 if dense else None
        shown = None
        if change is not None and numbers.get("sparsity") and math.isfinite(change):
            spread = None if error is None or not dense else error / dense
            shown = percent_measured(change, spread, sign=True)
        better: Literal["normal", "inverse"] = "normal" if row.more_is_better else "inverse"
        st.metric(title, row.written(mine.value, error, too_large=many), shown, delta_color=better)
        if error is not None:
            low, high = (row.written(end, error, too_large=many) for end in (mine.low, mine.high))
            st.caption(t("common.gauge_interval", low=low, high=high))
    counts = counts_of(numbers)
    removed = "" if counts is None else both_said(counts)
    zeros = "" if counts is None else zeros_said(counts)
    key = "gauge_settled" if settled else "gauge_estimate"
    key += "" if evaluation.kinds == LANGUAGE else "_windows"
    st.caption(
        t(f"common.{key}", removed=removed, windows=numbers["windows"], tokens=numbers["tokens"])
    )
    if zeros:
        st.caption(zeros)
