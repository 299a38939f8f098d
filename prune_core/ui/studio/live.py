"""The Studio's live side: numbers and answers as they come in.

A slider move reruns the page: the job is submitted, what is known is drawn, and a fragment polls
five times a second while anything runs. When a measurement settles the page reruns once, for the
figures that are too slow to redraw on every poll.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import streamlit as st

from prune_core.evaluation.evaluation import Evaluation
from prune_core.evaluation.metrics import METRICS, Metric, kind_of, metrics_of
from prune_core.models.info import ModelInfo
from prune_core.models.weight_counts import WeightCounts, counts_of
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import smallest_file
from prune_core.ui.frame.components import guarded, percent
from prune_core.ui.frame.loading import Outcome, cancel, draw_progress, failure_text, forget, submit
from prune_core.ui.frame.page import Page
from prune_core.ui.frame.weight_bar import both_said, removed_said, weight_bar, zeros_said
from prune_core.ui.session.language import metric_text, t
from prune_core.ui.session.questions import EVALUATE, GENERATE, evaluate_job, generate_job
from prune_core.ui.studio.recipe import prompt_panel
from prune_core.ui.widgets.gauges import gauges
from prune_core.ui.widgets.texts import answers
from prune_core.words.numbers import (
    count,
    counted_share,
    error_in,
    measured,
    size,
)

POLL_SECONDS = 0.2

Numbers = Mapping[str, Any]


def live(page: Page, model: ModelInfo, recipe: Recipe) -> Outcome:
    """Gauges, progress and answers; returns what is known of the measurement."""
    measured = submit(evaluate_job(model, recipe), EVALUATE)
    st.session_state["_studio_settled"] = measured.ticket.job.key if measured.fresh else ""
    writing = _writing(model, recipe, measured)
    busy = measured.busy or (writing is not None and writing.busy)
    asked = generate_job(model, recipe).key

    @guarded("studio")
    def draw() -> None:
        now = submit(evaluate_job(model, recipe), EVALUATE)
        if now.fresh and st.session_state["_studio_settled"] != now.ticket.job.key:
            st.rerun()  # once: map, histogram and strip follow
        _gauges(page, model, recipe, now)
        _progress(now)
        if model.has_language_head:
            written = _writing(model, recipe, now)
            _answers(page, model, recipe, written)
            if generate_job(model, recipe).key != asked:
                st.rerun()  # another prompt: link and commands follow, and polling begins
            if busy and not now.busy and not (written is not None and written.busy):
                st.rerun()  # once: polling ends

    st.fragment(draw, run_every=POLL_SECONDS if busy else None)()
    return measured


def _writing(model: ModelInfo, recipe: Recipe, measured: Outcome) -> Outcome | None:
    """The answers' job: asked for once the numbers have settled, or when the user asks."""
    if not model.has_language_head:
        return None
    job = generate_job(model, recipe)
    wanted = st.session_state.get("_auto_write", True) or (
        st.session_state.get("_write_now") == job.key
    )
    if not wanted or measured.fresh is None:
        tickets = st.session_state.get("_tickets", {})
        old = tickets.get(GENERATE)
        if old is not None and old.job.key == job.key:
            return submit(job, GENERATE)
        return None
    return submit(job, GENERATE)


# ---- gauges ----------------------------------------------------------------------------------


def _shown(recipe: Recipe, outcome: Outcome) -> tuple[Numbers | None, str, str, list[Any]]:
    """Numbers to draw, their state, the recipe they belong to, and the estimates so far.

    Until a new recipe's first estimate is there the last numbers stay, marked as old.
    """
    kept = _kept("_studio_shown", outcome.ticket.job.source)
    key = outcome.ticket.job.key
    numbers: Numbers | None = outcome.fresh
    state = "settled"
    if numbers is None:
        event = outcome.ticket.event
        measuring = outcome.busy or outcome.ticket.state == "cancelled"
        if event and measuring and (event.get("tokens") or event.get("similarity") is not None):
            numbers, state = event, "estimating" if outcome.busy else "stopped"
    if numbers is not None:
        if kept.get("key") != key:
            kept["points"] = _points(numbers)
        kept.update(numbers=numbers, key=key, recipe=recipe.fingerprint)
        _note_point(kept["points"], numbers)
        return numbers, state, recipe.fingerprint, kept["points"]
    if kept["numbers"] is not None:
        return kept["numbers"], "stale", kept["recipe"], kept["points"]
    return None, "empty", recipe.fingerprint, []


def _kept(name: str, source: str) -> dict[str, Any]:
    """What stays on the page until its successor comes; nothing of another model."""
    kept: dict[str, Any] = st.session_state.get(name, {})
    if kept.get("source") != source:
        kept = {"source": source, "numbers": None, "state": None, "recipe": "", "share": 0.0}
        st.session_state[name] = kept
    return kept


def _state_note(state: str, known: Numbers, outcome: Outcome) -> str:
    """The state in words; nothing is promised that is not on its way."""
    if state in ("stale", "empty") and not outcome.busy:
        state = f"{state}_{'failed' if outcome.ticket.state == 'failed' else 'stopped'}"
    if known.get("metric") == "similarity" and state in ("estimating", "settled", "stopped"):
        # nothing is predicted
        return t(f"studio.state_{state}_windows", done=known["window"], total=known["windows"])
    tokens, total = int(known.get("tokens") or 0), known.get("total_tokens") or 0
    return t(f"studio.state_{state}", tokens=tokens, total=total)


def _points(numbers: Numbers) -> list[Any]:
    """The estimates a finished measurement went through, window by window, where it is not seen.

    As while measuring: the dense loss of all windows plus the paired difference so far.
    """
    mine, dense = numbers.get("window_nll") or [], numbers.get("window_nll_dense") or []
    if not mine:
        return []
    total, per_window = numbers["total_tokens"], numbers["total_tokens"] / len(mine)
    level, change, points = sum(dense) / len(dense), 0.0, []
    for index, (pruned, base) in enumerate(zip(mine[:-1], dense[:-1], strict=True), start=1):
        change += pruned - base
        estimate = math.exp(min(700.0, level + change / index))
        tokens = round(index * per_window)
        points.append(
            {"tokens": tokens, "total": total, "value": estimate, "low": None, "high": None}
        )
    return points


def _note_point(points: list[Any], numbers: Numbers) -> None:
    perplexity = numbers.get("perplexity")
    if perplexity is None or (points and points[-1]["tokens"] >= numbers["tokens"]):
        return
    points.append(
        {
            "tokens": numbers["tokens"],
            "total": numbers["total_tokens"],
            "value": perplexity,
            "low": numbers.get("perplexity_low"),
            "high": numbers.get("perplexity_high"),
            "of": numbers.get("perplexity_dense"),
        }
    )


def _levelled(points: list[Any], dense: float | None) -> list[Any]:
    """The estimates against the dense level known now: while that was measured too, it moved."""
    found = []
    for point in points:
        scale = dense / point["of"] if dense and point.get("of") else 1.0
        moved = {k: point[k] and point[k] * scale for k in ("value", "low", "high")}
        found.append({**point, **moved})
    return found


def _gauges(page: Page, model: ModelInfo, recipe: Recipe, outcome: Outcome) -> None:
    numbers, state, fingerprint, points = _shown(recipe, outcome)
    known: Numbers = numbers or {}
    tokens = int(known.get("tokens") or 0)
    evaluation = Evaluation.from_dict(known)
    kind = kind_of(model.kind, model.has_language_head, model.classes)
    metrics = metrics_of("headline", "beside", kinds={kind})
    rows = [_gauge(row, evaluation, classes=kind == "classifier") for row in metrics]
    rows += _counted(known, model)
    gauges(
        rows,
        state={"stopped": "estimating"}.get(state, state),
        recipe=fingerprint,
        tokens=tokens,
        note=_state_note(state, known, outcome),
        alt=t("studio.spark_alt"),
        spark=_levelled(points, known.get("perplexity_dense")),
        dense=known.get("perplexity_dense"),
        dense_label=t("studio.dense"),
        colors={"dense": page.look.dense, "pruned": page.look.pruned},
        present=page.presenting,
    )
    counts = counts_of(known)
    weight_bar(
        counts or model.counts(),
        page.look,
        key="_weight_bar",
        said="" if counts is None else _shares(known, counts),
        stale=state == "stale",
        present=page.presenting,
    )


def _gauge(row: Metric, evaluation: Evaluation, *, classes: bool) -> dict[str, Any]:
    """One gauge: the headline's own interval where it has one, else the error below the number."""
    mine = evaluation.value(row)
    detail, error = "", mine.error
    if row.low:
        # the interval is that of the change: dense against itself has none
        error = error_in(mine.low, mine.high)
    many = t("common.million")
    low, high, dense = (
        row.written(x, error, too_large=many) for x in (mine.low, mine.high, mine.dense)
    )
    if not row.low:
        plus_minus = row.error_written(mine.value, error)
        detail = t("studio.plus_minus", error=plus_minus) if plus_minus else ""
    elif error is not None:
        detail = t("studio.interval", low=low, high=high)
    bias = f"{evaluation.numbers.get(row.bias) or 0:.2g}"
    return {
        "id": row.name,
        "name": metric_text(row, "title", classes=classes),
        "value": mine.value,
        "text": row.written(mine.value, error, too_large=many),
        "aside": t("studio.from_dense", dense=dense) if dense else "",
        "detail": detail,
        "help": metric_text(row, "help", classes=classes, error=bias),
    }


def _shares(known: Numbers, counts: WeightCounts) -> str:
    """Of what the share is one, what of it is new, and what stays, sentence after sentence."""
    said = [f"{metric_text(METRICS['sparsity'], 'title')}: {both_said(counts)}", zeros_said(counts)]
    rest = known.get("sparsity_of_rest")
    if rest and rest != known.get("sparsity"):
        said.append(t("studio.of_rest", share=counted_share(rest)))
    said.append(t("studio.left", left=count(counts.nonzero), total=count(counts.parameters)))
    return " · ".join(filter(None, said))


def _smallest(known: Numbers) -> str:
    """The smallest file that this recipe can have, where that is smaller than the dense one."""
    file = smallest_file(known)
    if file is None or file.form == "dense":
        return ""
    return t("studio.shrunk" if file.form == "shrunk" else "studio.sparse", size=size(file.value))


def _counted(known: Numbers, model: ModelInfo) -> list[dict[str, Any]]:
    """What is counted: weights removed, and the size of the model."""
    sparsity, counts = known.get("sparsity"), counts_of(known)
    removed = METRICS["sparsity"]
    rows = []
    rows.append(
        {
            "id": removed.name,
            "name": metric_text(removed, "title"),
            "value": sparsity,
            "text": "" if sparsity is None else counted_share(sparsity),
            "aside": "",
            "detail": "" if counts is None else removed_said(counts),
            "help": metric_text(removed, "help"),
        }
    )
    megabytes = model.bytes_in_memory / 1e6
    rows.append(
        {
            "id": "size",
            "name": t("studio.size"),
            "value": None if sparsity is None else megabytes,
            "text": "" if sparsity is None else measured(megabytes),
            "aside": "",
            "detail": _smallest(known),
            "help": t("studio.size_help"),
        }
    )
    return rows


def _progress(outcome: Outcome) -> None:
    """One line under the gauges: how far, or what went wrong, with the button that belongs to it.

    Its height does not change while numbers come in, so that nothing below jumps.
    """
    ticket = outcome.ticket
    # a sentence of an error may need more than one line; nothing jumps then any more
    height: Literal["content"] | int = "content" if ticket.state == "failed" else 56
    with st.container(height=height, border=False):
        if outcome.busy:
            left, right = st.columns([5, 1], vertical_alignment="center")
            event = ticket.event or {}
            with left:
                if event.get("stage") == "evaluate" and event.get("windows"):
                    done, total = int(event["window"]), int(event["windows"])
                    text = t("studio.window", done=done, total=total)
                    st.progress(done / total, text=text)
                else:
                    draw_progress(ticket, t("studio.measuring"))
            right.button(t("common.stop"), key="_studio_stop", on_click=cancel, args=(EVALUATE,))
        elif ticket.state == "failed":
            left, right = st.columns([5, 1], vertical_alignment="center")
            left.error(failure_text(ticket), icon=":material/error:")
            right.button(t("common.retry"), key="_studio_retry", on_click=forget, args=(EVALUATE,))
        elif ticket.state == "cancelled":
            left, right = st.columns([5, 1], vertical_alignment="center")
            left.caption(t("common.cancelled", what=t("studio.measuring")))
            right.button(
                t("common.resume"), key="_studio_resume", on_click=forget, args=(EVALUATE,)
            )
        elif outcome.fresh:
            protocol = outcome.fresh["protocol"]
            st.caption(
                t(
                    "studio.protocol" if protocol["tokens"] else "studio.protocol_windows",
                    text=t_text(str(protocol["text"])),
                    windows=protocol["windows"],
                    seq_len=protocol["seq_len"],
                    tokens=protocol["tokens"],
                    dtype=protocol["dtype"],
                    seconds=f"{outcome.fresh['seconds']['evaluate']:.1f}",
                )
            )


def t_text(name: str) -> str:
    """A text's name for a caption."""
    return t("studio.own_text_short") if name == "inline" else name.capitalize()


# ---- answers ---------------------------------------------------------------------------------


def _answers(page: Page, model: ModelInfo, recipe: Recipe, outcome: Outcome | None) -> None:
    st.subheader(t("studio.answers"), anchor=False)
    prompt_panel(model)
    kept = _kept("_studio_written", model.source)
    state: Numbers | None = None
    if outcome is not None:
        state = outcome.fresh or (
            outcome.ticket.event if outcome.ticket.state != "failed" else None
        )
        if state is not None and state.get("pruned"):
            kept.update(state=state, recipe=recipe.fingerprint, share=_removed(recipe))
        else:
            state = None
    shown = kept["state"] or {}
    stale = state is None and bool(shown)
    old = t("studio.answer_old") if stale else ""
    writing = outcome is not None and outcome.busy
    with st.container(horizontal=True, vertical_alignment="center"):
        _write_button(model, recipe, writing=writing)
        if outcome is not None and outcome.ticket.state == "failed":
            st.error(failure_text(outcome.ticket), icon=":material/error:")
        elif shown.get("tokens_per_second") and not stale:
            speed = f"{shown['tokens_per_second']:.0f}"
            st.caption(t("studio.speed", speed=speed, parted=_parted(shown, writing=writing)))
    sides = []
    for name, color in (("dense", page.look.dense), ("pruned", page.look.pruned)):
        part = shown.get(name) or {"pieces": [], "finished": False}
        share = percent(kept["share"]) if name == "pruned" and shown else ""
        sides.append(
            {
                "id": name,
                "name": t(f"studio.{name}"),
                "note": " · ".join(filter(None, (share, old))),
                "pieces": part["pieces"],
                "finished": part["finished"],
                "color": color,
                "empty": t("studio.answer_none" if part["finished"] else "studio.answer_empty"),
            }
        )
    answers(
        sides,
        divergence=shown.get("divergence"),
        recipe=kept["recipe"],
        stale=stale,
        writing=writing,
        part_help=t("studio.parted_help"),
        present=page.presenting,
    )


def _removed(recipe: Recipe) -> float:
    """Share of the weights that go, parts included, as counted; until then what was asked for."""
    kept = st.session_state.get("_studio_shown", {})
    mine = kept.get("recipe") == recipe.fingerprint and kept.get("numbers")
    return float(mine["sparsity"]) if mine else recipe.sparsity


def _parted(shown: Numbers, *, writing: bool) -> str:
    at = shown.get("divergence")
    if at is not None:
        return t("studio.parted", token=at + 1)
    return t("studio.same_so_far") if writing else t("studio.same")


def _write_now(key: str) -> None:
    st.session_state["_write_now"] = key
    forget(GENERATE)


def _write_button(model: ModelInfo, recipe: Recipe, *, writing: bool) -> None:
    if writing:
        st.button(
            t("studio.stop_writing"),
            key="_write_stop",
            icon=":material/stop_circle:",
            on_click=cancel,
            args=(GENERATE,),
        )
        return
    st.button(
        t("studio.write"),
        key="_write",
        icon=":material/edit_note:",
        on_click=_write_now,
        args=(generate_job(model, recipe).key,),
        help=t("studio.write_help"),
    )
