"""Which model: the compact chooser of the side bar, the full one of the Overview, and loading."""

from __future__ import annotations

from typing import Any

import plotly.graph_objects as go
import streamlit as st

from prune_core.errors import PruneCoreError, SourceError
from prune_core.figures.theme import CONFIG
from prune_core.jobs.base import LoadModel
from prune_core.models.info import UNKNOWN_LICENSE, ModelInfo
from prune_core.models.sources import mode, parse_source, preset_names, source_choices
from prune_core.ui.frame.components import plain
from prune_core.ui.frame.loading import follow, forget
from prune_core.ui.session.keys import KEYS, set_value, value, widget
from prune_core.ui.session.language import error_sentence, t, t_or
from prune_core.words.numbers import count, size

PANEL = "model"
BYTES_PER_PARAMETER = 4  # the worker computes in float32
# the worker holds the dense weights and one working copy of nearly the same size
COPIES = 2
EXAMPLE = "hub:openai-community/gpt2"
EMPTY = {
    "height": 10,
    "margin": {"l": 0, "r": 0, "t": 0, "b": 0},
    "template": "none",
    "xaxis": {"visible": False},
    "yaxis": {"visible": False},
    "paper_bgcolor": "rgba(0,0,0,0)",
    "plot_bgcolor": "rgba(0,0,0,0)",
}
_OF_THE_MODEL = (
    *("heads", "cross_heads", "neurons", "drop_blocks", "drop_attention", "drop_mlp"),
    *("overrides", "role", "layer", "head", "neuron", "compensate"),
)


def title_of(source: str) -> str:
    """A preset's title, or the source itself; escaped for Markdown by the caller."""
    for choice in source_choices():
        if choice["name"] == source:
            return str(choice["title"])
    return source


def choose(text: str) -> None:
    """Make what a user typed or clicked the session's model, if it names one (callback)."""
    st.session_state.pop("_model_error", None)
    try:
        source = parse_source(text).text
    except PruneCoreError as error:
        st.session_state["_model_error"] = error.sentence
        return
    if source == value("model"):
        forget(PANEL)  # asked for again: try again
    set_value("model", source)
    model_changed()


def model_changed() -> None:
    """Forget what only made sense for the model before (callback)."""
    for key in _OF_THE_MODEL:
        set_value(key, KEYS[key].default)


def compact_chooser() -> None:
    """The side bar's chooser: presets and the current model."""
    names = list(preset_names())
    if value("model") not in names:
        names.append(str(value("model")))
    st.selectbox(
        t("common.model"),
        names,
        format_func=title_of,
        help=t("common.model_help"),
        on_change=model_changed,
        **widget("model", names),
    )


def current_model() -> ModelInfo | None:
    """The session's model; while it loads or after it failed, say so in place.

    Returns:
        The model; the one before it if the new one cannot be loaded; None while there is none.
    """
    previous: ModelInfo | None = st.session_state.get("_model_info")
    try:
        source = parse_source(str(value("model"))).text
    except SourceError as error:
        st.error(plain(error_sentence(error)), icon=":material/error:")
        return _keep(previous)
    outcome = follow(
        LoadModel(source), PANEL, what=t("common.loading_model", model=plain(title_of(source)))
    )
    if outcome.fresh is not None:
        info = ModelInfo.from_dict(outcome.fresh)
        if previous is None or info.fingerprint != previous.fingerprint:
            _fit(info)
        st.session_state["_model_info"] = info
        return info
    if outcome.busy:
        st.caption(t("common.loading_note"))
        st.skeleton(360)
        # the browser fetches its plotting code now and not when the first figure comes
        st.plotly_chart(go.Figure(layout=EMPTY), key="_warm", config=CONFIG, theme=None)
        return None
    return _keep(previous)


def _keep(previous: ModelInfo | None) -> ModelInfo | None:
    """After a failure: stay with the model before, or offer the default one."""
    if previous is None:
        st.button(
            t("common.use_default", model=title_of(str(KEYS["model"].default))),
            on_click=choose,
            args=(KEYS["model"].default,),
            key="_use_default",
        )
        return None
    st.button(
        t("common.keep_previous", model=plain(previous.title)),
        on_click=choose,
        args=(previous.source,),
        key="_keep_previous",
    )
    return previous


def _fit(info: ModelInfo) -> None:
    """Drop heads of a stale link that the model does not have."""
    heads = {block.index: block.heads for block in info.blocks}
    kept = [
        pair
        for pair in str(value("heads")).split(",")
        if pair and int(pair.split(":")[1]) < heads.get(int(pair.split(":")[0]), 0)
    ]
    set_value("heads", ",".join(kept))


def side_summary() -> None:
    """Under the side bar's chooser: what is loaded, or that it is loading."""
    ticket = st.session_state.get("_tickets", {}).get(PANEL)
    if ticket is None or ticket.result is None:
        return
    info = ModelInfo.from_dict(ticket.result)
    st.caption(
        t(
            "common.side_summary",
            parameters=count(info.parameters),
            blocks=len(info.blocks),
            size=size(info.bytes_in_memory),
            license=plain(info.license or t("common.unknown")),
        )
    )
    for warning in info.warnings:
        if not warning.startswith(UNKNOWN_LICENSE):  # the line above says it already
            st.caption(f":material/warning: {plain(error_sentence(warning))}")


def full_chooser() -> None:
    """Presets as cards, then anything a user may type; the license stands beside each."""
    st.subheader(t("overview.choose"), anchor=False)
    choices = source_choices()
    fetched = [choice for choice in choices if choice["size"]]
    made = [choice for choice in choices if not choice["size"]]
    for column, choice in zip(st.columns(max(1, len(fetched))), fetched, strict=False):
        with column.container(border=True, height="stretch"):
            _card(choice)
    with st.container(horizontal=True, gap="small"):
        for choice in made:
            _preset_button(choice, small=True)
    st.caption(t("overview.tiny_note"))
    if mode() == "public":
        return
    with (
        st.form("_other_model", border=False),
        st.container(horizontal=True, vertical_alignment="bottom"),
    ):
        typed = st.text_input(
            t("overview.other"),
            key="_typed_model",
            placeholder=EXAMPLE,
            help=t("overview.other_help"),
            max_chars=4096,
        )
        sent = st.form_submit_button(t("overview.load"), icon=":material/upload:")
    if sent:
        _submit_typed(typed)
    if "_model_error" in st.session_state:
        st.error(plain(error_sentence(st.session_state["_model_error"])), icon=":material/error:")


def _submit_typed(typed: str) -> None:
    """Check what was typed, then rerun: the side bar's widget has run, so it may not be set now."""
    st.session_state.pop("_model_error", None)
    try:
        st.session_state["_wanted_model"] = parse_source(typed).text
    except PruneCoreError as error:
        st.session_state["_model_error"] = error.sentence
        return
    st.rerun()


def adopt_wanted() -> None:
    """At the start of a run: make the model typed in the run before the session's."""
    wanted = st.session_state.pop("_wanted_model", None)
    if wanted is not None:
        choose(wanted)


def _card(choice: dict[str, Any]) -> None:
    current = value("model") == choice["name"]
    ticket = st.session_state.get("_tickets", {}).get(PANEL)
    loaded = current and ticket is not None and ticket.state == "done"
    st.markdown(f"**{plain(choice['title'])}**" + (f" · :blue[{t('overview.current')}]" * loaded))
    st.caption(t_or(f"common.preset_{choice['name']}", ""))
    st.caption(
        t(
            "overview.preset_facts",
            parameters=count(choice["parameters"]),
            download=size(choice["size"]),
            memory=size(choice["parameters"] * BYTES_PER_PARAMETER * COPIES),
        )
    )
    st.caption(
        f"{plain(choice['license_note'] or choice['license'])} {plain(choice['provenance'])}"
    )
    _preset_button(choice)


def _preset_button(choice: dict[str, Any], small: bool = False) -> None:
    current = value("model") == choice["name"]
    st.button(
        plain(choice["name"]) if small else t("overview.use"),
        key=f"_use_{choice['name']}",
        on_click=choose,
        args=(choice["name"],),
        disabled=current,
        help=plain(choice["title"]),
    )
