"""What a user chose, told apart from what a browser repeats.

A widget whose value is set from here (a click on a figure drops a head, and a slider counts the
dropped heads) can be sent back as it stood a moment ago: every rerun carries all values that the
browser has, also those it has not yet heard to be old. Streamlit takes that for a choice and calls
``on_change``. A click is sent again in the same way. So what was shown is remembered, and a
callback asks here first.
"""

from __future__ import annotations

import time
from typing import Any

import streamlit as st

from prune_core.ui.frame.components import clicked

SECONDS = 3.0
"""For so long a value that was replaced from here is an echo when it comes back."""


def put(key: str, value: Any) -> Any:
    """Put a value on the widget of this key; call it before the widget.

    Returns:
        The value, to be the widget's default too: a browser that draws a widget late takes its
        default and sends that back.
    """
    state = st.session_state
    said = state.get(f"_said{key}", value)
    if said != value:
        state[f"_replaced{key}"] = (said, time.monotonic())
    state[f"_said{key}"] = state[key] = value
    return value


def chosen(key: str) -> bool:
    """Whether the widget's new value is a choice of the user's; ask once in its callback."""
    state = st.session_state
    value = state[key]
    replaced, when = state.get(f"_replaced{key}", (None, 0.0))
    if value == state.get(f"_said{key}") or (
        value == replaced and time.monotonic() - when < SECONDS
    ):
        return False
    state[f"_said{key}"] = value
    state.pop(f"_replaced{key}", None)
    return True


def figure_key(name: str) -> str:
    """Key of a figure whose marks are switched on and off by clicks.

    Another one after each such click: a browser takes the same mark again for no new choice.
    """
    return f"{name}_{st.session_state.get(f'_round{name}', 0)}"


def mark_clicked(name: str, key: str, *, renew: bool = True) -> list[Any] | None:
    """``customdata`` of the mark that was clicked; None for nothing, or for a click sent again.

    Args:
        name: of the figure.
        key: that it had then, from :func:`figure_key`.
        renew: the click switches something: the figure gets another key.
    """
    state, point = st.session_state, clicked(key)
    last_key, last_point = state.get(f"_click{name}", (None, None))
    if point is None:
        if key == last_key:  # the mark was clicked off: it may be clicked again
            del state[f"_click{name}"]
        return None
    if (key, point) == (last_key, last_point):
        return None
    state[f"_click{name}"] = (key, point)
    if renew:
        state[f"_round{name}"] = state.get(f"_round{name}", 0) + 1
    return point
