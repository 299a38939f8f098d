"""The Report page: which runs, for whom, example answers, downloads and a preview."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import streamlit as st

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import Job, LoadModel
from prune_core.reporting import examples
from prune_core.reporting.build import FORMATS, TYPES, file_name, made
from prune_core.reporting.content import Content, gather
from prune_core.reporting.words import AUDIENCES
from prune_core.sweeps.records import Run
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import Outcome, again, busy, failure_text, follow_all
from prune_core.ui.frame.runs import ALL, pick_runs, store, sweep_choice
from prune_core.ui.session.keys import value
from prune_core.ui.session.language import LANGUAGES, error_sentence, language, t
from prune_core.ui.widgets.mounting import component
from prune_core.words.translated_errors import translated

MOST = 60
"""Runs that can be chosen one by one."""

ICONS = {
    "pptx": ":material/slideshow:",
    "html": ":material/public:",
    "csv": ":material/table:",
    "recipes": ":material/folder_zip:",
}

_FRAME_CSS = """
iframe { width: 100%; height: 860px; border: 1px solid rgba(128, 128, 128, 0.35);
  background: transparent; display: block; }
"""


def choose_runs() -> tuple[list[Run], str]:
    """Runs of a sweep or chosen one by one, and the title they have together.

    Raises:
        StoreError: the store cannot be read.
    """
    left, right = st.columns([3, 2], gap="medium", vertical_alignment="bottom")
    with right:
        single = st.toggle(
            t("report.single"),
            key="_report_single",
            persist_state="session",
            help=t("report.single_help", most=MOST),
        )
    if single:
        with left:
            st.caption(t("report.single_caption"))
        return pick_runs("_report_runs", most=MOST), ""
    with left:
        sweep = sweep_choice()
    found = store().runs(sweep=None if sweep == ALL else sweep)
    names = {one.id: one.name for one in store().sweeps()}
    return found, names.get(sweep, "")


def choose_reader() -> tuple[str, str, bool]:
    """For whom, in which language, and whether example answers are wanted."""
    st.session_state.setdefault("_report_language", language())
    one, two, three = st.columns([3, 2, 3], gap="medium", vertical_alignment="bottom")
    with one:
        audience = st.segmented_control(
            t("report.audience"),
            list(AUDIENCES),
            format_func=lambda name: t(f"report.audience_{name}"),
            key="_report_audience",
            default=AUDIENCES[0],
            required=True,
            persist_state="session",
            help=t("report.audience_help"),
        )
    with two:
        chosen = st.segmented_control(
            t("report.language"),
            list(LANGUAGES),
            format_func=LANGUAGES.__getitem__,
            key="_report_language",
            required=True,
            persist_state="session",
        )
    with three:
        wanted = st.toggle(
            t("report.examples"),
            value=True,
            key="_report_examples",
            persist_state="session",
            help=t("report.examples_help", prompts=len(examples.PROMPTS)),
        )
    return str(audience), str(chosen), bool(wanted)


def gathered(runs: list[Run], title: str, audience: str, chosen: str) -> Content | None:
    """The content without examples, or None and a sentence that says why not."""
    if not runs:
        st.info(t("report.no_runs"), icon=":material/scatter_plot:")
        return None
    try:
        return gather(
            runs,
            title=title,
            audience=audience,
            language=chosen,
            cost=str(value("cost")),
            strict=bool(st.session_state.get("_report_single")),
        )
    except PruneCoreError as error:
        st.warning(plain(error_sentence(error)), icon=":material/info:")
        return None


# ---- examples ----------------------------------------------------------------------------------


def panels(content: Content, *, chat: bool) -> dict[str, tuple[tuple[int, str], Job]]:
    """Panel to place, option and job, in the order they are asked for."""
    wanted = examples.jobs(content, examples.usual(chat=chat), chat=chat)
    return {f"report_{place}_{name}": ((place, name), job) for (place, name), job in wanted.items()}


def with_examples(content: Content) -> Content | None:
    """The content with its example answers; None while they are being written or were stopped."""
    loaded = follow_all({"report_load": LoadModel(content.source)}, t("report.loading"))
    if busy(loaded):
        return None
    info = loaded["report_load"].fresh
    chat = bool(info and info["has_chat_template"])
    asked = panels(content, chat=chat)
    if info is None:
        asked = {}
    wanted = {panel: job for panel, (_, job) in asked.items()}
    outcomes = {**loaded, **follow_all(wanted, t("report.writing"))}
    if busy(outcomes):
        return None
    failed = next((o for o in outcomes.values() if o.ticket.state == "failed"), None)
    if failed is not None:
        st.warning(t("report.examples_failed", reason=failure_text(failed.ticket)))
        _again(outcomes)
        reason = failed.ticket.error or t("common.failed")
        return examples.without(content, translated(reason, content.language))
    if any(o.ticket.state == "cancelled" for o in outcomes.values()):
        st.info(t("report.examples_stopped"), icon=":material/stop_circle:")
        _again(outcomes)
        return content
    answers = {
        place: fresh
        for panel, (place, _) in asked.items()
        if (fresh := outcomes[panel].fresh) is not None
    }
    return examples.collected(content, examples.usual(chat=chat), answers)


def _again(outcomes: Mapping[str, Outcome]) -> None:
    st.button(t("common.retry"), key="_report_again", on_click=again, args=(tuple(outcomes),))


# ---- files -------------------------------------------------------------------------------------


def downloads(content: Content) -> None:
    """A button for each file; it is made when it is asked for."""
    with st.container(horizontal=True, gap="small"):
        for kind in ("pptx", *(kind for kind in FORMATS if kind != "pptx")):
            st.download_button(
                t(f"report.get_{kind}"),
                data=_maker(content, kind),
                file_name=file_name(content, kind),
                mime=TYPES[kind],
                key=f"_report_get_{kind}",
                icon=ICONS[kind],
                type="primary" if kind == "pptx" else "secondary",
                on_click="ignore",
            )


def _maker(content: Content, kind: str) -> Any:
    return lambda: made(content, kind)


def preview(content: Content, key: str) -> None:
    """The HTML report as it will be sent, in a frame that can reach nothing."""
    st.subheader(t("report.preview"), anchor=False)
    page = made(content, "html").decode("utf-8")
    component("report", '<iframe sandbox="allow-scripts allow-downloads"></iframe>')(
        key="_report_preview",
        data={"page": page, "key": key, "title": t("report.preview")},
        height="content",
    )


def command(sweep_runs: list[Run], content: Content) -> str:
    """The command that makes the same slides."""
    if st.session_state.get("_report_single"):
        chosen = f"--runs {','.join(run.id for run in sweep_runs)}"
    else:
        sweep = str(value("sweep"))
        chosen = f"--sweep {sweep}" if sweep not in (ALL, "") else ""
    words = ["python -m prune_core report", f"--store {store().name}", chosen]
    words += [f"--audience {content.audience}", f"--language {content.language}"]
    words += [] if st.session_state.get("_report_examples") else ["--examples 0"]
    return " ".join([word for word in words if word] + ["--to report.pptx"])
