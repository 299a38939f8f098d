"""The app under Streamlit's own test runner: how tests of pages start it and read it.

A test module takes the fixture ``inline_engine`` and gives :func:`app` the page, and what its
tests have in common.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

from streamlit.testing.v1 import AppTest

from prune_core.paths import PROJECT_ROOT

RUN_SECONDS = 300  # for a machine that does much else; nothing waits for it to pass


def app(
    page: str = "",
    *,
    alone: bool = False,
    session: Mapping[str, object] | None = None,
    **query: str,
) -> AppTest:
    """A session of the tiny model, run once.

    Args:
        page: the page of a link; none is a cold start.
        alone: run the page's file by itself, not through app.py.
        session: session state before the first run.
        query: the link's parameters.
    """
    script = f"pages/{page}.py" if alone else "app.py"
    at = AppTest.from_file(str(PROJECT_ROOT / script), default_timeout=RUN_SECONDS)
    if page and not alone:
        at.switch_page(f"pages/{page}.py")
    for key, text in {"model": "tiny-llama", **query}.items():
        at.query_params[key] = text
    for key, value in (session or {}).items():
        at.session_state[key] = value
    return at.run()


def fine(at: AppTest) -> AppTest:
    """The same session, which shows no fault and no error."""
    assert not at.exception
    assert [box.value for box in at.error] == []
    return at


def by_label(elements: Iterable[Any], label: str) -> Any:
    return next(element for element in elements if element.label == label)


def charts(at: AppTest) -> int:
    return len(at.get("plotly_chart"))


def drawn(at: AppTest, name: str) -> list[Any]:
    """What each of the app's own components of a kind was given to draw."""
    parts = [element.proto for element in at.get("bidi_component")]
    return [json.loads(p.json) for p in parts if p.component_name == f"prunescope.{name}"]
