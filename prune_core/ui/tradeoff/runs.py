"""The list of runs: search, notes, delete with undo, files."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import streamlit as st

from prune_core.errors import StoreError
from prune_core.evaluation.metrics import METRICS
from prune_core.models.weight_counts import added_share
from prune_core.sweeps.records import Run
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.runs import ALL, day, method_label, run_label, store, text_label
from prune_core.ui.session.language import error_sentence, metric_text, t
from prune_core.ui.tradeoff.front import open_in_studio
from prune_core.words.numbers import counted_share, error_in, measured

MOST = 500


def runs_list(sweep: str) -> None:
    """What the store holds of the chosen sweep; chosen rows can be noted, deleted, handed over."""
    with st.expander(t("tradeoff.runs"), icon=":material/list:"):
        words = st.text_input(
            t("tradeoff.search"),
            key="_runs_search",
            placeholder=t("tradeoff.search_placeholder"),
            persist_state="session",
        )
        found = store().runs(sweep=None if sweep == ALL else sweep, search=words)
        _undo()
        if st.session_state.get("_runs_error"):
            st.error(
                plain(error_sentence(st.session_state.pop("_runs_error"))), icon=":material/error:"
            )
        if not found:
            st.caption(t("tradeoff.no_match"))
        else:
            _table(found[-MOST:][::-1])
        _import()


def _table(found: Sequence[Run]) -> None:
    rows = [_row(run) for run in found]
    picked = st.dataframe(
        rows,
        hide_index=True,
        on_select="rerun",
        selection_mode="multi-row",
        key="_runs_table",
        column_config={
            t("tradeoff.column_removed"): st.column_config.NumberColumn(format="percent")
        },
    )
    chosen = [found[index] for index in picked["selection"]["rows"] if index < len(found)]
    if not chosen:
        st.caption(t("tradeoff.pick_rows"))
        return
    one = chosen[0] if len(chosen) == 1 else None
    st.session_state["_runs_note"] = one.note if one is not None else ""
    left, right = st.columns([2, 3], vertical_alignment="bottom")
    with left:
        st.text_input(
            t("tradeoff.note"),
            key="_runs_note",
            max_chars=4000,
            disabled=one is None or store().read_only,
            on_change=_guarded(lambda: store().note(chosen[0].id, st.session_state["_runs_note"])),
        )
    with right.container(horizontal=True, gap="small"):
        st.button(
            t("tradeoff.to_studio"),
            key="_runs_open",
            icon=":material/tune:",
            disabled=one is None,
            on_click=open_in_studio,
            args=(chosen[0].id,),
        )
        st.button(
            t("tradeoff.delete", count=len(chosen)),
            key="_runs_delete",
            icon=":material/delete:",
            disabled=store().read_only,
            on_click=_guarded(lambda: _delete([run.id for run in chosen])),
        )
        if one is not None and one.state in ("done", "failed"):
            st.download_button(
                t("tradeoff.export"),
                data=lambda: store().export_run(chosen[0].id),
                file_name=f"run-{one.id}.json",
                mime="application/json",
                key="_runs_export",
                icon=":material/download:",
                on_click="ignore",
            )
    if one is not None:
        st.caption(plain(f"{run_label(one)} · {error_sentence(one.error or '')}".rstrip(" ·")))


def _row(run: Run) -> dict[str, object]:
    from prune_core.sweeps.axes import method_of

    numbers = run.numbers
    low, high = numbers.get("perplexity_low"), numbers.get("perplexity_high")
    error = error_in(low, high)

    def shown(value: float | None) -> str:
        return "" if value is None else measured(value, error, too_large=t("common.million"))

    return {
        t("tradeoff.column_method"): method_label(method_of(run.cell.recipe)),
        t("tradeoff.column_removed"): counted_share(
            numbers.get("sparsity", run.cell.recipe.sparsity)
        ),
        t("tradeoff.column_added"): counted_share(added_share(numbers)) if numbers else "",
        metric_text(METRICS["perplexity"], "unit"): shown(numbers.get("perplexity")),
        "95 %": "" if error is None else f"{shown(low)} … {shown(high)}",
        t("tradeoff.column_state"): t(f"tradeoff.run_{run.state}"),
        t("tradeoff.column_note"): run.note or error_sentence(run.error or ""),
        t("tradeoff.column_model"): run.cell.source,
        t("tradeoff.column_text"): text_label(run.cell.text),
        t("tradeoff.column_day"): day(run.finished or run.created),
    }


def _guarded(act: Callable[[], object]) -> Callable[[], None]:
    """A callback whose failure is one sentence on the page."""

    def run() -> None:
        try:
            act()
        except StoreError as error:
            st.session_state["_runs_error"] = error.sentence

    return run


def _delete(ids: list[str]) -> None:
    st.session_state["_runs_deleted"] = store().delete(ids)


def _undo() -> None:
    gone = st.session_state.get("_runs_deleted")
    if not gone:
        return
    left, right = st.columns([5, 1], vertical_alignment="center")
    left.caption(t("tradeoff.deleted", count=len(gone)))

    def back() -> None:
        store().restore(gone)
        st.session_state.pop("_runs_deleted", None)

    right.button(
        t("tradeoff.undo"), key="_runs_undo", on_click=_guarded(back), icon=":material/undo:"
    )


def _import() -> None:
    files = st.file_uploader(
        t("tradeoff.import"),
        type=["json"],
        accept_multiple_files=True,
        key="_runs_files",
        disabled=store().read_only,
    )
    taken: set[str] = st.session_state.setdefault("_runs_taken", set())
    new = [file for file in files or [] if file.file_id not in taken]
    for file in new:
        taken.add(file.file_id)
        try:
            store().import_run(file.getvalue())
        except StoreError as error:
            st.error(f"{plain(file.name)}: {plain(error_sentence(error))}", icon=":material/error:")
        else:
            st.success(t("tradeoff.imported", name=plain(file.name)), icon=":material/check:")
