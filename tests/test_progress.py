"""One object says how far work is and whether it is still wanted."""

from __future__ import annotations

from typing import Any

import pytest

from prune_core.errors import Cancelled
from prune_core.progress import NONE, Progress


def test_events_carry_their_stage_and_what_is_around_it() -> None:
    events: list[dict[str, Any]] = []
    progress = Progress(events.append)
    progress.step(1, 2)
    progress.stage("fetch", unit="bytes").step(0, 0)
    around = progress.stage("", windows=8)
    around.stage("ranks", 3).step(2)
    around.stage("ranks", 3).stage("verify").step(1, 7)
    around.tell({"stage": "evaluate", "nll": 1.5})
    assert events == [
        {"done": 1, "total": 2},
        {"stage": "fetch", "done": 0, "total": 0, "unit": "bytes"},
        {"stage": "ranks", "done": 2, "total": 3, "windows": 8},
        {"stage": "verify", "done": 1, "total": 7, "windows": 8},
        {"stage": "evaluate", "nll": 1.5, "windows": 8},
    ]


def test_events_can_be_changed_on_their_way() -> None:
    events: list[dict[str, Any]] = []
    progress = Progress(events.append).through(lambda event: {"percent": 100 * event["done"]})
    progress.stage("write", 4).step(0.5)
    assert events == [{"percent": 50.0}]


@pytest.mark.parametrize("part", ["whole", "stage", "silent", "through"])
def test_a_cancel_reaches_every_part(part: str) -> None:
    wanted = True
    events: list[dict[str, Any]] = []
    whole = Progress(events.append, lambda: not wanted)
    progress = {
        "whole": whole,
        "stage": whole.stage("ranks").stage("verify"),
        "silent": whole.silent().stage("ranks"),
        "through": whole.through(dict).stage("ranks"),
    }[part]
    progress.check("Cancelled while nothing was wrong.")
    assert not progress.cancelled
    progress.step(1, 2)
    assert len(events) == (part != "silent")
    wanted = False
    with pytest.raises(Cancelled, match=r"^Cancelled while counting\.$"):
        progress.check("Cancelled while counting.")
    assert progress.cancelled


def test_a_cancel_alone_needs_no_watcher() -> None:
    progress = Progress(cancelled=lambda: True).stage("ranks")
    progress.step(1, 2)
    with pytest.raises(Cancelled):
        progress.check("Cancelled.")


def test_none_does_nothing() -> None:
    parts = (NONE, NONE.stage("ranks", 3, unit="bytes"), NONE.silent(), NONE.through(dict))
    for progress in parts:
        progress.step(1)
        progress.tell({"stage": "done"})
        progress.check("Cancelled.")
        assert not progress.cancelled
