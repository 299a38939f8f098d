"""Shared pieces of pages: charts, tables to take away, the reproduce drawer, error boundaries."""

from __future__ import annotations

import io
import logging
import re
import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, ParamSpec, TypeVar

import pandas as pd
import plotly.graph_objects as go
import streamlit as st
from streamlit.delta_generator import DeltaGenerator

from prune_core.errors import PruneCoreError
from prune_core.figures.theme import CONFIG, Look
from prune_core.ui.session.keys import value, widget
from prune_core.ui.session.language import error_sentence, t
from prune_core.ui.session.link import share_link
from prune_core.words.numbers import count as count
from prune_core.words.numbers import counted_share, fixed, measured
from prune_core.words.numbers import size as size

LOGGER = logging.getLogger("prune_core.ui")
PRESENT_SCALE = 1.4
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()<>#+\-.!|~:$&^=])")
P = ParamSpec("P")
R = TypeVar("R")


def look() -> Look:
    """Theme and scale of the page, for figures."""
    dark = st.context.theme.get("type") == "dark"
    return Look(dark=dark, scale=PRESENT_SCALE if value("present") else 1.0)


def plain(text: str, limit: int = 400) -> str:
    """Text from a model, a file or a user as Markdown that shows it literally."""
    cut = text if len(text) <= limit else text[:limit] + "…"
    shown = "".join(c if c.isprintable() else " " for c in cut)
    return _MARKDOWN.sub(r"\\\1", shown)


def chart(
    figure: go.Figure,
    *,
    key: str,
    alt: str,
    on_select: Callable[[], None] | None = None,
) -> None:
    """A figure in the page: PNG from its mode bar, alt text, points clickable if asked for."""
    if on_select is None:
        st.plotly_chart(figure, key=key, alt=alt, theme=None, config=CONFIG)
        return
    st.plotly_chart(
        figure,
        key=key,
        alt=alt,
        theme=None,
        config=CONFIG,
        on_select=on_select,
        selection_mode="points",
    )


def choice(
    key: str,
    label: str,
    options: Sequence[str],
    labels: Callable[[str], str],
    *,
    help_text: str = "",
    width: Literal["stretch", "content"] = "content",
    on_change: Callable[[], None] | None = None,
) -> str:
    """A segmented control for a key of ``KEYS`` whose labels are translated; one always chosen."""
    st.segmented_control(
        label,
        list(options),
        format_func=labels,
        required=True,
        help=help_text or None,
        width=width,
        on_change=on_change,
        **widget(key, initial="default"),
    )
    return str(value(key))


def dimmed(stale: bool, key: str) -> DeltaGenerator:
    """A container for numbers or figures: dimmed while they belong to earlier settings.

    Use it with ``with``; ``key`` is unique on the page.
    """
    box = st.container(key=f"stale_{key}" if stale else f"fresh_{key}")
    if stale:
        box.caption(t("common.updating"))
    return box


def clicked(key: str) -> list[Any] | None:
    """``customdata`` of the point clicked in a chart; None for a click that chose nothing."""
    state = st.session_state.get(key)
    points = state["selection"]["points"] if state else []
    if not points:
        return None
    data = points[0].get("customdata")
    return list(data) if isinstance(data, list | tuple) else [data]


def csv_bytes(rows: Sequence[dict[str, Any]] | pd.DataFrame) -> bytes:
    """A table as CSV (UTF-8 with BOM, so that spreadsheets read Chinese).

    Cells that a spreadsheet would run as a formula get a leading apostrophe.
    """
    frame = rows if isinstance(rows, pd.DataFrame) else pd.DataFrame(list(rows))
    safe = frame.copy()
    for column in safe.columns:
        if not pd.api.types.is_numeric_dtype(safe[column]):
            safe[column] = safe[column].map(_safe_cell)
    text = io.StringIO()
    safe.to_csv(text, index=False)
    return text.getvalue().encode("utf-8-sig")


def _safe_cell(cell: object) -> object:
    if isinstance(cell, str) and cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return f"'{cell}"
    return cell


def csv_button(rows: Sequence[dict[str, Any]] | pd.DataFrame, name: str, key: str) -> None:
    """A button that hands a table over as ``name``.csv; the file is made on the click."""
    st.download_button(
        t("common.csv"),
        data=lambda: csv_bytes(rows),
        file_name=f"{name}.csv",
        mime="text/csv",
        key=key,
        help=t("common.csv_help"),
        icon=":material/download:",
        on_click="ignore",
    )


def reproduce(*commands: str) -> None:
    """A drawer with the command lines and the link that give what is on screen."""
    with st.expander(t("common.reproduce"), icon=":material/terminal:"):
        if commands:
            st.caption(t("common.reproduce_command"))
        for command in commands:
            st.code(command, language=None, wrap_lines=True)
        st.caption(t("common.reproduce_link"))
        st.code(share_link(), language=None, wrap_lines=True)


def number(content: float | None, digits: int = 3) -> str:
    """A number without a known error: ``digits`` significant ones, zeros at its end too, or a dash.

    What is measured with an error: ``prune_core.words.numbers.measured``.
    """
    if content is None:
        return t("common.none")
    if content == 0:
        return "0"
    if abs(content) < 1000:
        return f"{content:#.{digits}g}".rstrip(".")
    return measured(float(round(content)), too_large=t("common.million"))


def percent(share: float, digits: int | None = None) -> str:
    """A share of 1 as percent: a counted one by the rule for all of them, or so many decimals."""
    return counted_share(share) if digits is None else f"{fixed(100 * share, digits)} %"


@contextmanager
def boundary(place: str) -> Iterator[None]:
    """Turn an exception into one error box with an id, and log it under that id.

    Expected errors (``PruneCoreError``) show their sentence; others show only the id. Streamlit's
    own control flow passes through.
    """
    try:
        yield
    except PruneCoreError as error:
        st.error(plain(error_sentence(error)), icon=":material/error:")
    except Exception:
        fault = secrets.token_hex(4)
        LOGGER.exception("fault %s on %s", fault, place)
        st.error(t("common.crash", id=fault), icon=":material/error:")


def guarded(place: str) -> Callable[[Callable[P, R]], Callable[P, R | None]]:
    """:func:`boundary` as a decorator, for the body of a fragment."""

    def decorate(function: Callable[P, R]) -> Callable[P, R | None]:
        @wraps(function)
        def wrapped(*args: P.args, **kwargs: P.kwargs) -> R | None:
            with boundary(place):
                return function(*args, **kwargs)
            return None

        return wrapped

    return decorate
