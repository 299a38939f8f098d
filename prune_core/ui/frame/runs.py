"""Runs on pages: the server's one store, what runs and methods are called, a picker of runs.

For a page::

    runs = pick_runs("_compare_runs", most=4)    # done runs, in the order they were chosen
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime

import streamlit as st

from prune_core.recipes.calibration import TextSpec
from prune_core.sweeps.axes import method_of
from prune_core.sweeps.names import method_name
from prune_core.sweeps.records import Run, Sweep
from prune_core.sweeps.store.journal import RunStore
from prune_core.ui.frame.components import percent
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import language, t
from prune_core.words.catalogue import Words
from prune_core.words.numbers import error_in, measured

ALL = "*"
"""Of the choice of a sweep: runs of every one."""


def store() -> RunStore:
    """The server's one store of runs.

    Raises:
        StoreError: it cannot be opened; the next call tries again.
    """
    return _store()


@st.cache_resource(show_spinner=False)
def _store() -> RunStore:
    return RunStore()


# ---- what things are called: plain text, as widgets show it; escape it for Markdown and figures --


def method_label(method: tuple[str, ...]) -> str:
    """A method (see ``sweeps.axes.method_of``) in the session's language."""
    return method_name(method, Words(language()))


def run_label(run: Run) -> str:
    """A run in one line: method, share removed, perplexity where it is known."""
    if run.cell.recipe.is_dense:
        label = t("runs.dense")
    else:
        share = run.numbers.get("sparsity", run.cell.recipe.sparsity)
        method = method_label(method_of(run.cell.recipe))
        label = t("runs.label", method=method, share=percent(float(share)))
    perplexity = run.numbers.get("perplexity")
    if perplexity is None:
        return label
    error = error_in(run.numbers.get("perplexity_low"), run.numbers.get("perplexity_high"))
    text = measured(float(perplexity), error, too_large=t("common.million"))
    return t("runs.label_perplexity", label=label, perplexity=text)


def sweep_label(sweep: Sweep) -> str:
    """A sweep's name, or the day it was asked for, and how far it is."""
    name = sweep.name or t("runs.unnamed", day=day(sweep.created))
    done = sweep.counts.get("done", 0)
    return t("runs.sweep_label", name=name, done=done, cells=sweep.cells)


def day(seconds: float) -> str:
    """A moment as date and time of the server's clock."""
    return datetime.fromtimestamp(seconds).astimezone().strftime("%Y-%m-%d %H:%M")


def text_label(text: TextSpec) -> str:
    """What a run was measured on."""
    return t("runs.own_text") if text.kind == "inline" else text.value


# ---- choosing ----------------------------------------------------------------------------------


def pick_sweep(
    key: str, *, on_change: Callable[[], None] | None = None, all_runs: bool = True
) -> str:
    """A choice of one sweep; :data:`ALL` for every run, ``""`` for runs saved on their own.

    Args:
        key: of the widget, in the session.
        on_change: called when another is chosen.
        all_runs: offer :data:`ALL`, first.

    Raises:
        StoreError: the store cannot be read.
    """
    labels: dict[str, str] = {ALL: t("runs.all_sweeps")} if all_runs else {}
    labels |= {sweep.id: sweep_label(sweep) for sweep in store().sweeps()}
    if store().runs(sweep=""):
        labels[""] = t("runs.alone")
    if not labels:
        return ""
    if st.session_state.get(key) not in labels:
        st.session_state[key] = next(iter(labels))
    st.selectbox(
        t("runs.sweep"),
        list(labels),
        format_func=lambda id: labels.get(id, id),
        key=key,
        persist_state="session",
        on_change=on_change,
    )
    return str(st.session_state[key])


def pick_runs(
    key: str, *, most: int, usual: Callable[[Sequence[Run]], Sequence[str]] | None = None
) -> list[Run]:
    """A sweep and runs of it, finished ones only; says so where there are none yet.

    Args:
        key: of the widget of runs; the widget of the sweep has ``{key}_sweep``.
        most: runs that may be chosen.
        usual: ids chosen before the user chose any, given all runs of the sweep.

    Returns:
        The runs chosen, in that order.

    Raises:
        StoreError: the store cannot be read.
    """
    left, right = st.columns([2, 5], gap="medium")
    with left:
        sweep = pick_sweep(f"{key}_sweep")
    found: Mapping[str, Run] = {
        run.id: run
        for run in store().runs(sweep=None if sweep == ALL else sweep)
        if run.state == "done"
    }
    # chosen runs stay on offer when the sweep changes, and deleted ones leave
    before = [str(id) for id in st.session_state.get(key) or []]
    gone = [id for id in before if id not in found]
    kept = {run.id: run for run in store().runs(ids=gone)} if gone else {}
    offered = {**kept, **found}
    if not offered:
        st.info(t("runs.none_yet"), icon=":material/scatter_plot:")
        return []
    if key not in st.session_state:
        st.session_state[key] = list(usual(list(found.values())))[:most] if usual else []
    else:
        st.session_state[key] = [id for id in before if id in offered][:most]
    with right:
        st.multiselect(
            t("runs.pick"),
            list(offered),
            format_func=lambda id: run_label(offered[id]) if id in offered else id,
            key=key,
            persist_state="session",
            max_selections=most,
            placeholder=t("runs.pick_placeholder"),
            help=t("runs.pick_help", most=most),
        )
    return [offered[id] for id in st.session_state[key] if id in offered]


def sweep_choice() -> str:
    """A choice of one sweep, of the runs saved on their own, or of all.

    Raises:
        StoreError: the store cannot be read.
    """
    labels = {ALL: t("runs.all_sweeps")}
    labels |= {sweep.id: sweep_label(sweep) for sweep in store().sweeps()}
    if store().runs(sweep=""):
        labels[""] = t("runs.alone")
    now = value("sweep") if value("sweep") in labels else ALL
    st.session_state["_sweep"] = now
    st.selectbox(
        t("runs.sweep"),
        list(labels),
        format_func=lambda id: labels.get(id, id),
        key="_sweep",
        on_change=lambda: set_value("sweep", st.session_state["_sweep"]),
    )
    return str(now)
