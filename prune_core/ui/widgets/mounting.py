"""Turns the files of a widget (``NAME.js``, ``NAME.css``) into a component of a page."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import streamlit as st

FOLDER = Path(__file__).parent
FRAME = '<div class="frame"></div>'


@cache
def source(file: str) -> str:
    """The text of one of the widgets' files, read once."""
    return (FOLDER / file).read_text(encoding="utf-8")


def component(name: str, html: str = FRAME) -> Any:
    """What draws a widget when it is called with ``key`` and ``data``; its node stays mounted.

    Args:
        name: of the component (``prunescope.NAME``) and of its files.
        html: what the script finds in its node at first.
    """
    return st.components.v2.component(
        f"prunescope.{name}", html=html, css=source(f"{name}.css"), js=source(f"{name}.js")
    )
