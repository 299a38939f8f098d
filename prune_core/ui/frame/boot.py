"""The server's one engine, in a module that imports nothing slow.

A cold link runs a page without app.py: the worker then starts here, before pandas and Plotly are
imported, so that the two do not wait for one another.
"""

from __future__ import annotations

import os

import streamlit as st
from streamlit import runtime

from prune_core.engine.client import Engine


@st.cache_resource(show_spinner=False)
def engine() -> Engine:
    """The server's one engine; ``PRUNE_ENGINE=inline`` runs jobs in the caller (tests)."""
    return Engine(mode=os.environ.get("PRUNE_ENGINE", "process"))


def start_early() -> None:
    """Start the worker if this process is a server; a test or a script is left alone."""
    if runtime.exists():
        engine()
