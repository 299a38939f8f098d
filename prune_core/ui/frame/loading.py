"""Asking the engine and waiting well: submit, show what is happening, how far it is, a way to stop.

A page calls :func:`follow` and draws whatever it gets. While a job runs, a small fragment polls it
four times a second and reruns the page once at its end.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import streamlit as st

from prune_core.engine.client import Engine, Ticket
from prune_core.jobs.base import Job
from prune_core.jobs.file_versions import lookup_key
from prune_core.ui.frame.boot import engine as engine
from prune_core.ui.frame.components import plain
from prune_core.ui.session.language import error_sentence, t, t_or
from prune_core.ui.session.link import session_id

POLL_SECONDS = 0.25
PARTIAL_SECONDS = 1.0  # a figure drawn anew more often would flicker
MIN_PACE_SECONDS = 2.0  # shorter, and a forecast would jump


@dataclass(eq=False)
class _Presence:
    """That a browser is connected: Streamlit drops it, and with it what it asked for, when not."""

    engine: Engine
    session: str
    renewed: bool = True

    def leave(self) -> None:
        self.engine.leave(self.session)


@st.cache_resource(scope="session", on_release=_Presence.leave, show_spinner=False)
def _presence() -> _Presence:
    return _Presence(engine(), session_id())


def _attend() -> None:
    """Note that the session is here; one that comes back asks again for all it had asked for."""
    presence = _presence()
    if presence.renewed:
        presence.renewed = False
        st.session_state.pop("_tickets", None)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a job a page asked for.

    Attributes:
        ticket: the job on its way.
        result: of this job, or of the panel's job before it while this one runs, or None.
        stale: ``result`` belongs to an earlier job: draw it dimmed and say so.
    """

    ticket: Ticket
    result: Mapping[str, Any] | None
    stale: bool

    @property
    def busy(self) -> bool:
        """The job waits or runs."""
        return self.ticket.state in ("waiting", "running")

    @property
    def fresh(self) -> Mapping[str, Any] | None:
        """The result, if it is this job's own."""
        return None if self.stale else self.result


def submit(job: Job, panel: str) -> Outcome:
    """Ask for a job unless this panel has already; draw nothing.

    Args:
        job: what is wanted now; a newer job of the same panel replaces the older.
        panel: name of the place on the page, unique within the session.
    """
    _attend()
    tickets: dict[str, Ticket] = st.session_state.setdefault("_tickets", {})
    ticket = tickets.get(panel)
    # a cancelled job stays cancelled until the user asks for it again or for another one
    if ticket is None or ticket.key != lookup_key(job):
        ticket = engine().submit(job, session=session_id(), panel=panel)
        tickets[panel] = ticket
    results: dict[str, tuple[str, Mapping[str, Any]]] = st.session_state.setdefault("_results", {})
    if ticket.state == "done" and ticket.result is not None:
        results[panel] = (job.source, ticket.result)
        return Outcome(ticket, ticket.result, stale=False)
    source, before = results.get(panel, ("", None))
    # nothing of another model, and nothing under the sentence that says why there is nothing new
    if before is None or source != job.source or ticket.state == "failed":
        return Outcome(ticket, None, stale=False)
    return Outcome(ticket, before, stale=True)


def forget(panel: str) -> None:
    """Drop a panel's ticket, so that its next :func:`submit` asks again (a retry button)."""
    st.session_state.get("_tickets", {}).pop(panel, None)


def cancel(panel: str) -> None:
    """Stop a panel's job."""
    ticket = st.session_state.get("_tickets", {}).get(panel)
    if ticket is not None:
        engine().cancel(ticket)


def follow(
    job: Job,
    panel: str,
    *,
    what: str,
    height: int = 0,
    partial: Callable[[Mapping[str, Any]], None] | None = None,
) -> Outcome:
    """Ask for a job and show its progress, its failure or its cancellation in place.

    Args:
        job: what is wanted now.
        panel: name of the place on the page, unique within the session.
        what: says in the user's words what is being done ("Reading the weights").
        height: pixels of the placeholder shown while there is nothing to draw yet; 0 for none.
        partial: draws what is known so far from the job's last event, while it runs.
    """
    outcome = submit(job, panel)
    if outcome.busy:
        _waiting(panel, what, partial)
        if partial is None and height and outcome.result is None:
            st.skeleton(height)
    elif outcome.ticket.state == "failed":
        st.error(failure_text(outcome.ticket), icon=":material/error:")
        st.button(t("common.retry"), key=f"_retry_{panel}", on_click=forget, args=(panel,))
    elif outcome.ticket.state == "cancelled":
        st.info(t("common.cancelled", what=what), icon=":material/stop_circle:")
        st.button(t("common.resume"), key=f"_retry_{panel}", on_click=forget, args=(panel,))
    return outcome


def failure_text(ticket: Ticket) -> str:
    """The engine's sentence, with Markdown made harmless."""
    return plain(error_sentence(ticket.error or t("common.failed")))


def _waiting(
    panel: str, what: str, partial: Callable[[Mapping[str, Any]], None] | None = None
) -> None:
    """The polling fragment of a panel that waits."""

    def poll() -> None:
        ticket: Ticket = st.session_state["_tickets"][panel]
        if ticket.state not in ("waiting", "running"):
            st.rerun()
        left, right = st.columns([6, 1], vertical_alignment="center")
        with left:
            draw_progress(ticket, what)
        right.button(
            t("common.stop"),
            key=f"_stop_{panel}",
            on_click=cancel,
            args=(panel,),
            help=t("common.stop_help"),
            width="stretch",
        )
        if partial is not None and ticket.event:
            partial(ticket.event)

    pace = POLL_SECONDS if partial is None else PARTIAL_SECONDS
    st.fragment(poll, run_every=pace)()


def draw_progress(ticket: Ticket, what: str) -> None:
    """One progress bar: stage, share done, amount; an empty bar where the total is not known."""
    event = ticket.event or {}
    stage = str(event.get("stage") or "")
    done, total = float(event.get("done") or 0), float(event.get("total") or 0)
    text = what
    if ticket.state == "waiting":
        place = ticket.position or 0
        text = t("common.queued", what=what, ahead=place) if place else what
    elif stage:
        said = t_or(f"common.stage_{stage}", stage)
        # "Measuring · measuring" says nothing twice
        text = what if said.casefold() in what.casefold() else f"{what} · {said}"
    if total > 1:  # a single step has nothing to count
        text = f"{text} · {amount(done, total, str(event.get('unit') or ''))}"
        left = _seconds_left(f"{ticket.job.key} {stage}", done, total)
        if left is not None:
            text = f"{text} · {t('common.time_left', seconds=left)}"
    st.progress(min(1.0, done / total) if total > 0 else 0.0, text=text)


def _seconds_left(what: str, done: float, total: float) -> int | None:
    """From the pace since this page first saw the stage; None before there is one."""
    now = time.monotonic()
    seen, start, before = st.session_state.get("_pace", ("", now, done))
    if seen != what:
        st.session_state["_pace"] = (what, now, done)
        return None
    if done <= before or now - start < MIN_PACE_SECONDS:
        return None
    return max(1, round((now - start) * (total - done) / (done - before)))


def amount(done: float, total: float, unit: str) -> str:
    """``41.2 of 98.4 MB`` or ``7 of 30``."""
    if unit == "bytes":
        return t("common.of_megabytes", done=f"{done / 1e6:.1f}", total=f"{total / 1e6:.1f}")
    return t("common.of_steps", done=int(done), total=int(total))


def submit_all(jobs: Mapping[str, Job]) -> dict[str, Outcome]:
    """Ask for several jobs, in order; draw nothing."""
    return {panel: submit(job, panel) for panel, job in jobs.items()}


def busy(outcomes: Mapping[str, Outcome]) -> bool:
    """Any of them waits or runs."""
    return any(outcome.busy for outcome in outcomes.values())


def _stop(panels: tuple[str, ...]) -> None:
    for panel in panels:
        cancel(panel)


def again(panels: tuple[str, ...]) -> None:
    """Ask again for what failed or was stopped; what is done stays."""
    for panel in panels:
        ticket = st.session_state.get("_tickets", {}).get(panel)
        if ticket is not None and ticket.state in ("failed", "cancelled"):
            forget(panel)


def follow_all(jobs: Mapping[str, Job], what: str) -> dict[str, Outcome]:
    """Ask for several jobs; one line says how far they are, with one button to stop them all."""
    outcomes = submit_all(jobs)
    if not busy(outcomes):
        return outcomes

    def poll() -> None:
        now = submit_all(jobs)
        if not busy(now):
            st.rerun()
        progress_line(now, what)

    st.fragment(poll, run_every=POLL_SECONDS)()
    return outcomes


def progress_line(outcomes: Mapping[str, Outcome], what: str) -> None:
    """The running job's progress and a stop button."""
    waiting = [o for o in outcomes.values() if o.busy]
    running = next((o for o in waiting if o.ticket.state == "running"), waiting[0])
    done = len(outcomes) - len(waiting)
    left, right = st.columns([6, 1], vertical_alignment="center")
    with left:
        text = t("compare.of_jobs", what=what, done=done + 1, total=len(outcomes))
        draw_progress(running.ticket, text)
    right.button(
        t("common.stop"),
        key=f"_stop_{next(iter(outcomes))}",
        on_click=_stop,
        args=(tuple(outcomes),),
        width="stretch",
    )
