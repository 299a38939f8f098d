"""Trade-off: which runs are shown, the picture, and a point that opens in the Studio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any

import streamlit as st

from prune_core.errors import PruneCoreError
from prune_core.evaluation.metrics import METRICS
from prune_core.figures.tradeoff import SCALES, scatter
from prune_core.models.weight_counts import counts_of, headline_share
from prune_core.sweeps.axes import COSTS, QUALITIES, Value, alike_groups
from prune_core.sweeps.frontier import Frontier, Point, frontier
from prune_core.sweeps.limits import parse_promise
from prune_core.sweeps.options import Option, lost
from prune_core.sweeps.records import Run
from prune_core.ui.frame.components import chart, choice, clicked, csv_button, plain
from prune_core.ui.frame.page import Page
from prune_core.ui.frame.runs import ALL, method_label, store
from prune_core.ui.frame.weight_bar import removed_said, zeros_said
from prune_core.ui.session.keys import SEQ_LENS, TEXTS, set_value, value
from prune_core.ui.session.language import metric_text, t, words
from prune_core.ui.session.link import link_values
from prune_core.ui.session.recipe_state import set_recipe
from prune_core.words.numbers import (
    counted_share,
    error_in,
    measured,
    percent_measured,
    places,
)

Method = tuple[str, ...]


# ---- which runs --------------------------------------------------------------------------------


def shown_runs(sweep: str) -> tuple[list[Run], int]:
    """Finished runs that may share one picture, and how many others the choice holds.

    Raises:
        StoreError: the store cannot be read.
    """
    found = store().runs(sweep=None if sweep == ALL else sweep)
    done = [run for run in found if run.state == "done"]
    if not done:
        return [], 0
    groups = alike_groups(done)
    return groups[0], len(done) - len(groups[0])


def axes(runs: Sequence[Run]) -> tuple[str, str]:
    """The two axes; only those that these runs know are offered."""
    costs = [axis for axis in COSTS if any(_knows(run, axis) for run in runs)]
    qualities = [axis for axis in QUALITIES if any(_knows(run, axis) for run in runs)]
    for key, known in (("cost", costs), ("quality", qualities)):
        if known and value(key) not in known:
            set_value(key, known[0])
    left, right = st.columns(2)
    with left:
        choice("cost", t("tradeoff.cost"), costs or list(COSTS), _axis_name)
    with right:
        choice("quality", t("tradeoff.quality"), qualities or list(QUALITIES), _axis_name)
    return str(value("cost")), str(value("quality"))


def _axis_name(axis: str) -> str:
    return metric_text(METRICS[axis], "axis") if axis in METRICS else t(f"tradeoff.axis_{axis}")


def _unit(axis: str) -> str:
    return metric_text(METRICS[axis], "unit") if axis in METRICS else t(f"tradeoff.unit_{axis}")


def _knows(run: Run, axis: str) -> bool:
    field = {"bytes": "bytes_dense", "memory": "peak_memory"}.get(axis, axis)
    return run.numbers.get(field) is not None


def methods_shown(found: Frontier) -> dict[Method, str]:
    """Labels of the methods that are drawn; all of them until the user takes some away."""
    labels = {point.method: method_label(point.method) for point in found.points}
    names = list(dict.fromkeys(labels.values()))
    if len(names) < 2:
        return labels
    before = st.session_state.get("_methods_known")
    if before != names:  # others came: what the user took away stays away
        away = set(before or ()) - set(st.session_state.get("_methods") or before or ())
        st.session_state["_methods"] = [name for name in names if name not in away]
        st.session_state["_methods_known"] = names
    chosen = st.pills(
        t("tradeoff.methods"),
        names,
        selection_mode="multi",
        key="_methods",
        persist_state="session",
    )
    return {method: label for method, label in labels.items() if label in (chosen or names)}


# ---- the picture -------------------------------------------------------------------------------


def picture(
    page: Page,
    found: Frontier,
    methods: Mapping[Method, str],
    chosen: str = "",
    key: str = "_front",
) -> None:
    """Size against quality; a click opens the recipe in the Studio."""
    limit, limit_size = _limits(found)
    texts = words(
        "tradeoff",
        *(
            "front",
            "knee",
            "dense",
            "unclear",
            "dominated",
            "removed",
            "added",
            "estimate",
            "click",
        ),
    )
    x, y = _unit(found.cost), _unit(found.quality)
    texts |= {
        "title": t(
            "tradeoff.title_figure", y=_axis_name(found.quality), x=_axis_name(found.cost).lower()
        ),
        "x": x,
        "y": y,
        "budget": t("tradeoff.budget_line", limit=str(value("budget"))),
    }
    chart(
        scatter(
            found,
            page.look,
            words=texts,
            methods=methods,
            limit=limit,
            limit_size=limit_size,
            selection=chosen,
        ),
        key=key,
        alt=t("tradeoff.alt", count=len(found.points), front=len(found.front)),
        on_select=lambda: point_clicked(key),
    )


def _limits(found: Frontier) -> tuple[float | None, float | None]:
    """Where the budget typed below lies on the two axes."""
    with suppress(PruneCoreError):
        promise = parse_promise(str(value("budget")))
        if promise.kind == "size":
            return None, promise.limit if found.cost == "bytes" else None
        if METRICS[found.quality].scale == "logarithmic" and found.dense is not None:
            return found.dense.quality.value * (1 + promise.limit), None
    return None, None


def point_clicked(key: str) -> None:
    """A point was clicked: its recipe becomes the session's, and the page moves on (callback)."""
    point = clicked(key)
    if point and point[0]:
        open_in_studio(str(point[0]))


def open_in_studio(run: str) -> None:
    """Make a run's model, text and recipe the session's; the next run of the page moves on."""
    found = store().runs(ids=[run])
    if not found:
        return
    cell = found[0].cell
    set_recipe(cell.recipe)
    set_value("model", cell.source)
    if cell.text.kind == "preset" and cell.text.value in TEXTS:
        set_value("text", cell.text.value)
        st.session_state["_use_own_text"] = False
    if cell.seq_len in SEQ_LENS:
        set_value("seq_len", cell.seq_len)
    set_value("windows", max(1, min(64, cell.windows)))
    set_value("present", False)
    st.session_state["_to_studio"] = True


def moves_on() -> None:
    """At the start of the page: go to the Studio if a point was clicked."""
    if st.session_state.pop("_to_studio", False):
        st.switch_page("pages/studio.py", query_params=link_values())


# ---- in words ----------------------------------------------------------------------------------


def findings(found: Frontier, others: int) -> None:
    """The knee, what is beaten everywhere, what more text would decide, what is not shown."""
    lines = []
    if found.knee is not None:
        knee = found.knee
        lines.append(
            t(
                "tradeoff.say_knee",
                method=plain(method_label(knee.method)),
                share=gone(knee),
                quality=shown(knee.quality),
                axis=_axis_name(found.quality).lower(),
            )
        )
    for method, by in found.dominated.items():
        lines.append(
            t(
                "tradeoff.say_beaten",
                method=plain(method_label(method)),
                by=plain(_some([method_label(one) for one in by])),
            )
        )
    if found.unclear:
        lines.append(t("tradeoff.say_unclear", count=len(found.unclear)))
    if found.left_out:
        lines.append(t("tradeoff.say_left_out", count=len(found.left_out)))
    if others:
        lines.append(t("tradeoff.say_others", count=others))
    if lines:
        st.markdown("\n".join(f"- {line}" for line in lines))


def gone(point: Point) -> str:
    """What a point removes and, where that is less, what it adds to the zeros."""
    share = counted_share(point.sparsity)
    if headline_share(point.sparsity, point.added) == point.sparsity:
        return share
    return t("tradeoff.share_added", share=share, added=counted_share(point.added))


def shown(value: Value) -> str:
    """A value with the digits that its interval decides."""
    error = error_in(value.low, value.high)
    return measured(value.value, error, too_large=t("common.million"))


def _some(names: Sequence[str], most: int = 2) -> str:
    """The first names, and how many more there are."""
    shown = ", ".join(names[:most])
    more = len(names) - most
    return shown if more <= 0 else t("tradeoff.and_more", names=shown, count=more)


def conditions(runs: Sequence[Run]) -> None:
    """On what all of it was measured."""
    protocol = runs[0].numbers.get("protocol") or {}
    cell = runs[0].cell
    st.caption(
        t(
            "tradeoff.conditions",
            model=plain(cell.source),
            text=plain(cell.text.value if cell.text.kind != "inline" else t("runs.own_text")),
            windows=cell.windows,
            length=cell.seq_len,
            dtype=protocol.get("dtype") or t("common.unknown"),
        )
    )


def table(found: Frontier) -> None:
    """Every point as a row, to read and to hand over."""
    rows = []
    for point in (*([found.dense] if found.dense else []), *found.points):
        ratio = METRICS[found.quality].scale == "logarithmic"
        price = lost(point, found.dense, found.quality) if ratio else None
        rows.append(
            {
                t("tradeoff.column_method"): method_label(point.method),
                t("tradeoff.column_removed"): point.sparsity,
                t("tradeoff.column_added"): point.added,
                _unit(found.cost): point.cost.value / SCALES[found.cost],
                _unit(found.quality): point.quality.value,
                t("tradeoff.column_low"): point.quality.low,
                t("tradeoff.column_high"): point.quality.high,
                t("tradeoff.column_worse"): None if price is None else price[0],
                t("tradeoff.column_state"): t(f"tradeoff.state_{point.state}")
                if point.method
                else t("tradeoff.dense"),
            }
        )
    with st.expander(t("tradeoff.table"), icon=":material/table:"):
        st.dataframe(
            [_readable(row, found) for row in rows],
            hide_index=True,
            column_config={
                t("tradeoff.column_removed"): st.column_config.NumberColumn(format="percent"),
                t("tradeoff.column_added"): st.column_config.NumberColumn(format="percent"),
                t("tradeoff.column_worse"): st.column_config.NumberColumn(format="percent"),
            },
        )
        csv_button(rows, "tradeoff", key="_tradeoff_csv")


def _readable(row: Mapping[str, Any], found: Frontier) -> dict[str, Any]:
    """A row of the table with as many digits as its interval decides; the CSV has them all."""
    ends = [t("tradeoff.column_low"), t("tradeoff.column_high")]
    error = error_in(*(row[name] for name in ends))
    quality, cost = _unit(found.quality), _unit(found.cost)
    decimals = places(row[quality], error)
    rounded = {name: round(row[name], decimals) for name in (quality, *ends)}
    shares = [t(f"tradeoff.column_{name}") for name in ("removed", "added")]
    rounded |= {name: round(row[name], 3) for name in shares}  # one decimal of a percent
    return {**row, **rounded, cost: round(row[cost], places(row[cost], None))}


# ---- presentation ------------------------------------------------------------------------------


def present(page: Page, found: Frontier, options: Sequence[Option]) -> None:
    """One picture and one option at a time; arrow keys step through small, medium and large."""
    methods = {point.method: method_label(point.method) for point in found.points}
    if not options:
        picture(page, found, methods)
        st.info(t("tradeoff.no_options"), icon=":material/info:")
        return
    names = [option.name for option in options]
    now = str(value("option")) if value("option") in names else names[0]
    option = options[names.index(now)]
    left, right = st.columns([2.1, 1], gap="large", vertical_alignment="center")
    with left:
        picture(page, found, methods, chosen=option.run.id)
    with right:
        st.subheader(t(f"tradeoff.option_{option.name}"), anchor=False)
        st.metric(metric_text(METRICS["sparsity"], "title"), gone(option.point))
        counts = counts_of(option.run.numbers)
        if counts is not None:
            st.caption(" · ".join(filter(None, (removed_said(counts), zeros_said(counts)))))
        error = error_in(option.low, option.high)
        price, low, high = (
            percent_measured(share, error, sign=True)
            for share in (option.lost, option.low, option.high)
        )
        st.metric(t("tradeoff.price"), price, help=t("tradeoff.price_help"))
        if error is not None:
            st.caption(t("tradeoff.interval", low=low, high=high))
        st.caption(plain(method_label(option.point.method)))
        with st.container(horizontal=True, gap="small"):
            for key, step in (("Left", -1), ("Right", 1)):
                st.button(
                    t(f"tradeoff.step_{key.lower()}"),
                    key=f"_option_{key}",
                    shortcut=key,
                    type="tertiary",
                    on_click=set_value,
                    args=("option", names[(names.index(now) + step) % len(names)]),
                )


def front_of(runs: Sequence[Run], cost: str, quality: str) -> Frontier:
    """The front of what is shown.

    Raises:
        UnlikeRunsError: the runs were measured in different ways.
    """
    return frontier(runs, cost, quality)
