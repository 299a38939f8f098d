"""The text, length and number of windows that numbers are measured on."""

from __future__ import annotations

import streamlit as st

from prune_core.ui.frame.components import choice
from prune_core.ui.frame.own_text import own_text
from prune_core.ui.session.keys import set_value, value
from prune_core.ui.session.language import t

EFFORTS = {"quick": (256, 4), "standard": (256, 8), "thorough": (512, 16)}


def _effort_chosen() -> None:
    seq_len, windows = EFFORTS[st.session_state["_effort"]]
    set_value("seq_len", seq_len)
    set_value("windows", windows)


def measured_on() -> None:
    """The text that is measured on, and how much of it."""
    with st.expander(t("studio.measured_on"), icon=":material/menu_book:"):
        now = (value("seq_len"), value("windows"))
        st.session_state["_effort"] = next((k for k, v in EFFORTS.items() if v == now), None)
        st.segmented_control(
            t("studio.effort"),
            list(EFFORTS),
            format_func=lambda name: t(f"studio.effort_{name}"),
            key="_effort",
            on_change=_effort_chosen,
            help=t("studio.effort_help"),
            required=st.session_state["_effort"] is not None,
        )
        st.caption(t("studio.effort_now", windows=now[1], seq_len=now[0]))
        choice("text", t("studio.text"), ["grimm", "andersen"], lambda name: name.capitalize())
        own_text("text", t("studio.own_text_help"))
