"""A text of one's own: typed, pasted or uploaded."""

from __future__ import annotations

from typing import Any

import streamlit as st

from prune_core.ui.frame.components import plain
from prune_core.ui.session.language import t

MAX_OWN_TEXT = 200_000


def own_text(name: str, help_text: str) -> None:
    """A switch for a text of the user's own, and a box and a file to give it.

    Args:
        name: ``text`` or ``calibration``; the text stands in the session under ``_own_NAME``.
        help_text: of the box.
    """
    key = f"_own_{name}"
    st.toggle(t("studio.own_text"), key=f"_use_own_{name}", persist_state="session")
    if not st.session_state.get(f"_use_own_{name}"):
        return
    st.text_area(
        t("studio.own_text_label"),
        key=key,
        max_chars=MAX_OWN_TEXT,
        height=160,
        help=help_text,
        persist_state="session",
    )
    st.file_uploader(
        t("studio.own_text_file"),
        type=["txt", "md"],
        key=f"{key}_file",
        on_change=_load,
        args=(key,),
    )
    if st.session_state.get(f"{key}_error"):
        st.error(plain(st.session_state[f"{key}_error"]), icon=":material/error:")


def _load(key: str) -> None:
    text, error = _uploaded_text(f"{key}_file")
    st.session_state[f"{key}_error"] = error
    if text:
        st.session_state[key] = text


def _uploaded_text(key: str) -> tuple[str, str]:
    """An uploaded file's text, or why it is of no use."""
    upload: Any = st.session_state.get(key)
    if upload is None:
        return "", ""
    try:
        text = upload.getvalue().decode("utf-8-sig")
    except UnicodeDecodeError:
        return "", t("studio.own_text_not_text")
    if len(text) > MAX_OWN_TEXT:
        return "", t("studio.own_text_too_long", limit=MAX_OWN_TEXT)
    return text, ""
