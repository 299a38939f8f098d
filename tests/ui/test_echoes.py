"""A choice is acted on; what a browser repeats is not."""

from __future__ import annotations

from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.ui.frame import echoes


class Session(dict[str, Any]):
    """Stands in for the session's state: a dictionary that the browser writes into."""


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Session:
    session = Session()
    monkeypatch.setattr("streamlit.session_state", session)
    return session


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(echoes.time, "monotonic", lambda: now[0])
    return now


def sent(state: Session, value: Any) -> bool:
    state["_x"] = value
    return echoes.chosen("_x")


def test_another_value_is_a_choice_once(state: Session) -> None:
    assert echoes.put("_x", 2) == state["_x"] == 2
    assert sent(state, 5)
    assert not sent(state, 5)  # a rerun repeats it


def test_what_is_shown_is_no_choice(state: Session) -> None:
    echoes.put("_x", 2)
    assert not sent(state, 2)


def test_the_value_of_a_moment_ago_is_no_choice(state: Session, clock: list[float]) -> None:
    echoes.put("_x", 1)
    echoes.put("_x", 2)  # a click on a figure changed the number
    assert not sent(state, 1)
    assert echoes.put("_x", 2) == state["_x"] == 2
    assert sent(state, 3)


def test_after_a_while_it_is_one(state: Session, clock: list[float]) -> None:
    echoes.put("_x", 1)
    echoes.put("_x", 2)
    clock[0] += echoes.SECONDS + 0.1
    assert sent(state, 1)


def test_a_user_may_go_back_at_once(state: Session, clock: list[float]) -> None:
    echoes.put("_x", 1)
    assert sent(state, 5)
    echoes.put("_x", 5)  # the page shows what was chosen
    assert sent(state, 1)
    echoes.put("_x", 1)
    assert sent(state, 5)


def click(state: Session, point: list[Any], key: str = "_map_0", *, renew: bool = True) -> Any:
    state[key] = {"selection": {"points": [{"customdata": point}]}}
    return echoes.mark_clicked("_map", key, renew=renew)


def test_a_click_counts_once_and_renews_the_figure(state: Session) -> None:
    assert echoes.figure_key("_map") == "_map_0"
    assert click(state, [1, 2]) == [1, 2]
    assert echoes.figure_key("_map") == "_map_1"
    assert click(state, [1, 2]) is None  # the figure that was is sent again
    assert click(state, [1, 2], "_map_1") == [1, 2]  # the same mark, clicked again
    assert echoes.figure_key("_map") == "_map_2"


def test_another_mark_on_the_old_figure_is_a_click(state: Session) -> None:
    click(state, [1, 2])
    assert click(state, [3, 4]) == [3, 4]  # quicker than the new figure came


def test_looking_renews_nothing(state: Session) -> None:
    assert click(state, [1, 2], renew=False) == [1, 2]
    assert echoes.figure_key("_map") == "_map_0"
    state["_map_0"] = {"selection": {"points": []}}  # clicked off
    assert echoes.mark_clicked("_map", "_map_0") is None
    assert click(state, [1, 2], renew=False) == [1, 2]  # and on again


def page() -> None:
    import streamlit as st

    from prune_core.ui.frame import echoes

    def moved() -> None:
        if echoes.chosen("_count"):
            st.session_state["count"] = st.session_state["_count"]

    count = st.session_state.setdefault("count", 1)
    st.slider("Count", 0, 9, echoes.put("_count", count), key="_count", on_change=moved)
    if st.button("More"):
        st.session_state["count"] += 1
        st.rerun()


def test_a_slider_that_counts_clicks() -> None:
    at = AppTest.from_function(page).run()
    at.slider(key="_count").set_value(4).run()
    assert at.session_state["count"] == 4
    at.button[0].click().run()
    assert at.slider(key="_count").value == at.session_state["count"] == 5
    at.slider(key="_count").set_value(4).run()  # what a browser says that has not heard of 5
    assert at.slider(key="_count").value == at.session_state["count"] == 5
    at.slider(key="_count").set_value(7).run()
    assert at.slider(key="_count").value == at.session_state["count"] == 7
