"""A new sweep from the page, and the sweeps that are on their way."""

from __future__ import annotations

from typing import Any

import streamlit as st

from prune_core.criteria import CRITERIA
from prune_core.engine.background import Background
from prune_core.errors import GridError
from prune_core.models.info import ModelInfo
from prune_core.patterns import example_patterns
from prune_core.recipes.choices import OWN_PATTERN
from prune_core.recipes.recipe import ALLOCATIONS
from prune_core.sweeps.grid import Grid, estimated_seconds
from prune_core.sweeps.grid_values import read_yaml
from prune_core.sweeps.records import Sweep
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import engine
from prune_core.ui.frame.runs import method_label, store, sweep_label
from prune_core.ui.session.keys import SEQ_LENS, set_value, value
from prune_core.ui.session.language import error_sentence, name_of, t

INTERVALS = (0.0, 0.05, 0.02, 0.01)


def background() -> Background:
    """The server's one thread for sweeps of pages."""
    return _background()


MORE_KEYS = "overrides: ['', 'role:mlp.down=0.3']\ndrop_mlp: ['', '27']"
"""An example of what else a grid may hold: a grid's own language, the same for every reader."""


@st.cache_resource(show_spinner=False)
def _background() -> Background:
    return Background(engine())


def running() -> list[Sweep]:
    """Sweeps of pages that have cells left, the newest first.

    Raises:
        StoreError: the store cannot be read.
    """
    return [
        sweep
        for sweep in store().sweeps()
        if sweep.origin == "app" and sweep.state != "cancelled" and not sweep.ended
    ]


def progress(sweeps: list[Sweep]) -> None:
    """How far each is, and buttons that pause, go on and cancel."""
    for sweep in sweeps:
        done = sweep.counts.get("done", 0) + sweep.counts.get("failed", 0)
        text = f"{plain(sweep_label(sweep))}"
        if sweep.counts.get("failed"):
            text += f" · {t('tradeoff.failed', count=sweep.counts['failed'])}"
        if sweep.state == "paused":
            text += f" · {t('tradeoff.paused')}"
        else:
            left = background().seconds_left(sweep)
            text += f" · {t('tradeoff.starting') if left is None else _left(left)}"
        bar, first, second = st.columns([6, 1, 1], vertical_alignment="center")
        bar.progress(done / max(1, sweep.cells), text=text)
        if sweep.state == "paused":
            first.button(
                t("tradeoff.resume"),
                key=f"_resume_{sweep.id}",
                on_click=_set,
                args=(sweep.id, "active"),
                width="stretch",
            )
        else:
            first.button(
                t("tradeoff.pause"),
                key=f"_pause_{sweep.id}",
                on_click=_set,
                args=(sweep.id, "paused"),
                width="stretch",
            )
        second.button(
            t("tradeoff.cancel"),
            key=f"_cancel_{sweep.id}",
            on_click=_set,
            args=(sweep.id, "cancelled"),
            width="stretch",
        )
    if sweeps:
        background().wake()
        if background().error:
            st.error(plain(error_sentence(background().error)), icon=":material/error:")


def _left(seconds: float) -> str:
    if seconds < 100:
        return t("common.time_left", seconds=max(1, round(seconds)))
    return t("tradeoff.minutes_left", minutes=round(seconds / 60))


def _set(sweep: str, state: str) -> None:
    store().set_state(sweep, state)
    background().wake()


def new_sweep(model: ModelInfo, *, opened: bool) -> None:
    """A form: what to measure, how many cells that is, about how long it takes."""
    with st.expander(t("tradeoff.new"), icon=":material/add_chart:", expanded=opened):
        st.fragment(_form)(model)


def _form(model: ModelInfo) -> None:
    if st.session_state.pop("_sweep_started", False):
        st.rerun()
    left, right = st.columns(2, gap="large")
    with left:
        criteria = st.multiselect(
            t("tradeoff.criteria"),
            list(CRITERIA),
            default=["magnitude", "wanda"],
            format_func=lambda name: method_label((name,)),
            key="_grid_criteria",
            persist_state="session",
        )
        patterns = st.multiselect(
            t("tradeoff.patterns"),
            [OWN_PATTERN, *example_patterns()],
            default=[OWN_PATTERN],
            format_func=_pattern_label,
            key="_grid_patterns",
            persist_state="session",
        )
        allocations = st.multiselect(
            t("tradeoff.allocations"),
            list(ALLOCATIONS),
            default=["uniform"],
            format_func=lambda name: name_of(ALLOCATIONS, name),
            key="_grid_allocations",
            persist_state="session",
        )
        low, high = st.slider(
            t("tradeoff.sparsities"),
            0.0,
            0.95,
            (0.1, 0.8),
            0.05,
            format="percent",
            key="_grid_range",
            persist_state="session",
        )
        step = st.select_slider(
            t("tradeoff.step"),
            [0.05, 0.1, 0.2],
            0.1,
            format_func=lambda share: f"{100 * share:.0f} %",
            key="_grid_step",
            persist_state="session",
        )
    with right:
        neurons = st.multiselect(
            t("tradeoff.neurons"),
            [0.1, 0.2, 0.3],
            format_func=lambda share: f"{100 * share:.0f} %",
            key="_grid_neurons",
            persist_state="session",
            help=t("tradeoff.neurons_help"),
        )
        blocks = st.text_input(
            t("tradeoff.blocks"),
            key="_grid_blocks",
            persist_state="session",
            placeholder="27,28; 26,27,28",
            help=t("tradeoff.blocks_help"),
        )
        windows = st.number_input(
            t("tradeoff.windows"), 1, 64, 8, key="_grid_windows", persist_state="session"
        )
        length = st.select_slider(
            t("tradeoff.length"),
            [n for n in SEQ_LENS if n <= model.context],
            key="_grid_length",
            value=min(256, max(n for n in SEQ_LENS if n <= max(model.context, SEQ_LENS[0]))),
            persist_state="session",
        )
        interval = st.select_slider(
            t("tradeoff.interval_asked"),
            INTERVALS,
            format_func=lambda share: f"± {100 * share:.0f} %" if share else t("tradeoff.all"),
            key="_grid_interval",
            persist_state="session",
            help=t("tradeoff.interval_help"),
        )
        cost = st.toggle(
            t("tradeoff.cost_measured"),
            key="_grid_cost",
            persist_state="session",
            help=t("tradeoff.cost_help"),
        )
    name = st.text_input(
        t("tradeoff.name"), key="_grid_name", persist_state="session", max_chars=80
    )
    more = st.text_area(
        t("tradeoff.more_keys"),
        key="_grid_more",
        persist_state="session",
        placeholder=MORE_KEYS,
        help=t("tradeoff.more_keys_help"),
        max_chars=4000,
    )
    content: dict[str, Any] = {
        "name": name.strip(),
        "models": [model.source],
        "texts": [str(value("text"))],
        "criteria": criteria,
        "patterns": patterns,
        "allocations": allocations,
        "sparsities": {"from": low, "to": high, "step": step},
        "neurons": [0.0, *neurons],
        "blocks": ["", *(part.strip() for part in blocks.split(";") if part.strip())],
        "windows": int(windows),
        "seq_len": int(length),
        "cost": cost,
        "interval": interval or None,
    }
    try:
        grid = Grid.from_dict({**content, **_more_keys(more)})
    except GridError as error:
        st.error(plain(error_sentence(error)), icon=":material/error:")
        return
    cells, minutes = len(grid.cells()), estimated_seconds(grid) / 60
    said = t("tradeoff.cells", cells=cells, minutes=max(1, round(minutes)), text=value("text"))
    st.caption(said)
    for reason in grid.left_out:
        st.caption(t("tradeoff.combination_left_out", reason=plain(error_sentence(reason))))
    st.button(
        t("tradeoff.start"),
        key="_grid_start",
        type="primary",
        icon=":material/play_arrow:",
        on_click=_start,
        args=(grid,),
    )


def _pattern_label(name: str) -> str:
    return t("tradeoff.own_pattern") if name == OWN_PATTERN else method_label((name,))


def _more_keys(text: str) -> dict[str, Any]:
    """What else the grid is to hold, as lines of a grid file.

    Raises:
        GridError: it is no YAML, or no mapping.
    """
    content = read_yaml(text) if text.strip() else {}
    if not isinstance(content, dict):
        raise GridError("a grid is a mapping such as 'criteria: [magnitude, wanda]'.")
    return {str(key): values for key, values in content.items()}


def _start(grid: Grid) -> None:
    sweep = background().start(store(), grid)
    set_value("sweep", sweep)
    st.session_state["_sweep_started"] = True
