"""The engine: newest wins, equal jobs once, isolation, cancel, and workers that die or hang."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator

import psutil
import pytest

from prune_core.engine import client
from prune_core.engine.client import Engine
from prune_core.engine.core import Core
from prune_core.engine.tickets import Ticket
from prune_core.errors import Cancelled, PruneCoreError
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.weights import LayerTable
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe
from prune_core.sentences import Sentence
from prune_core.words.translated_errors import translated

TEXT = TextSpec("inline", "The quick brown fox jumps over the lazy dog. " * 60)
OTHER = TextSpec("inline", "Once upon a time there was a king who had three sons. " * 200)


PATIENCE = 300.0
"""Seconds to wait for what must come: a worker takes long to start on a busy machine."""


def evaluate(sparsity: float, *, source: str = "tiny-llama", windows: int = 3) -> Evaluate:
    return Evaluate(source, Recipe(sparsity=sparsity), TEXT, 64, windows)


def long_job(sparsity: float) -> Evaluate:
    """Some seconds of work: many windows of the largest context."""
    return Evaluate("tiny-llama", Recipe(sparsity=sparsity), OTHER, 32, 200)


def numbers(ticket: Ticket) -> tuple[float, ...]:
    assert ticket.wait(PATIENCE)
    assert ticket.state == "done", ticket.error
    assert ticket.result is not None
    return tuple(ticket.result[k] for k in ("perplexity", "nll", "kl", "top1", "sparsity"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A cache of this module's own, seen by its workers too."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def engine(folder: None) -> Iterator[Engine]:
    """One for all tests that leave its worker alive: a worker takes seconds to start.

    Sessions and sparsities are those of one test alone, so that none finds another's answer.
    """
    made = Engine("process")
    yield made
    made.close()


@pytest.fixture
def own_engine(folder: None) -> Iterator[Engine]:
    """One whose worker a test may kill, or that must have answered nothing yet."""
    made = Engine("process")
    yield made
    made.close()


@pytest.fixture(scope="module")
def alone(folder: None) -> dict[float, tuple[float, ...]]:
    """What each sparsity measures with nobody else there, inline."""
    inline = Engine("inline")
    return {
        s: numbers(inline.submit(evaluate(s), session=f"alone {s}", panel="p"))
        for s in (0.0, 0.3, 0.5, 0.7)
    }


def test_inline_is_done_when_submit_returns(folder: None) -> None:
    ticket = Engine("inline").submit(evaluate(0.5), session="s", panel="p")
    assert ticket.state == "done"
    assert ticket.result is not None
    assert ticket.result["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_sessions_at_different_sparsities_get_what_they_get_alone(
    own_engine: Engine, alone: dict[float, tuple[float, ...]]
) -> None:
    tickets = {s: own_engine.submit(evaluate(s), session=f"session {s}", panel="p") for s in alone}
    assert {s: numbers(t) for s, t in tickets.items()} == alone


def test_equal_jobs_are_computed_once(engine: Engine) -> None:
    first = engine.submit(evaluate(0.4), session="a", panel="p")
    second = engine.submit(evaluate(0.4), session="b", panel="p")
    assert first.computation is second.computation
    numbers(first)
    third = engine.submit(evaluate(0.4), session="c", panel="q")
    assert third.state == "done"
    assert third.result is first.result


def test_withdrawing_one_of_two_leaves_the_other_its_result(engine: Engine) -> None:
    first = engine.submit(long_job(0.411), session="a", panel="p")
    second = engine.submit(long_job(0.411), session="b", panel="p")
    engine.cancel(first)
    assert first.state == "cancelled"
    numbers(second)


def test_newest_wins_in_a_storm(engine: Engine) -> None:
    numbers(engine.submit(evaluate(0.1), session="s", panel="p"))  # the model is loaded
    most = 0
    for step in range(100):
        last = engine.submit(long_job(step / 200), session="s", panel="p")
        running, waiting = engine.load
        most = max(most, running + waiting)
    final = engine.submit(evaluate(0.5), session="s", panel="p")
    numbers(final)
    assert last.state == "cancelled"
    assert most <= 2, "a session has at most one running and one waiting"


def test_other_panels_and_sessions_are_not_replaced(engine: Engine) -> None:
    mine = engine.submit(evaluate(0.21), session="a", panel="one")
    also_mine = engine.submit(LayerTable("tiny-llama"), session="a", panel="two")
    theirs = engine.submit(evaluate(0.31), session="b", panel="one")
    for ticket in (mine, also_mine, theirs):
        assert ticket.wait(PATIENCE)
        assert ticket.state == "done"


def test_a_cancelled_job_stops_and_can_be_asked_for_again(engine: Engine) -> None:
    numbers(engine.submit(evaluate(0.1), session="s", panel="p"))
    ticket = engine.submit(long_job(0.333), session="s", panel="p")
    wait_for_event(ticket)
    engine.cancel(ticket)
    again = engine.submit(evaluate(0.6), session="t", panel="p")
    numbers(again)
    assert ticket.state == "cancelled"
    assert ticket.result is None
    numbers(engine.submit(long_job(0.333), session="s", panel="p"))


def test_cancel_within_two_blocks(folder: None) -> None:
    core = Core()
    loaded = core.loaded("tiny-llama")
    core.run(evaluate(0.15))
    asked = 0

    def cancelled() -> bool:
        nonlocal asked
        if loaded.copy.runner.blocks_run >= start + 3 and not asked:
            asked = loaded.copy.runner.blocks_run
        return bool(asked)

    start = loaded.copy.runner.blocks_run
    with pytest.raises(Cancelled):
        core.run(evaluate(0.65), Progress(cancelled=cancelled))
    assert asked
    assert loaded.copy.runner.blocks_run - asked <= 2
    # and nothing half done is left: the next number is right
    ticket = Engine("inline").submit(evaluate(0.65), session="x", panel="p")
    result = core.run(evaluate(0.65))
    assert ticket.result is not None
    assert result["nll"] == ticket.result["nll"]


def kill_worker(engine: Engine) -> None:
    pid = engine.worker_pid
    assert pid is not None
    os.kill(pid, signal.SIGKILL)


def wait_for_event(ticket: Ticket) -> None:
    end = time.monotonic() + PATIENCE
    while ticket.event is None and time.monotonic() < end:
        time.sleep(0.005)
    assert ticket.event is not None


def test_a_killed_worker_is_restarted_and_its_job_retried_once(own_engine: Engine) -> None:
    ticket = own_engine.submit(long_job(0.37), session="s", panel="p")
    wait_for_event(ticket)
    before = own_engine.worker_pid
    kill_worker(own_engine)
    got = numbers(ticket)
    assert own_engine.worker_pid != before
    inline = Engine("inline")
    assert got == numbers(inline.submit(long_job(0.37), session="s", panel="p"))


def test_a_job_whose_worker_dies_twice_fails_and_the_next_job_works(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers(own_engine.submit(evaluate(0.1), session="s", panel="p"))
    monkeypatch.setenv("PRUNE_FAULTS", "worker.event=kill")  # inherited by the next workers
    kill_worker(own_engine)
    ticket = own_engine.submit(evaluate(0.71), session="s", panel="p")
    end = time.monotonic() + PATIENCE
    while ticket.computation.attempts < 2 and time.monotonic() < end:
        time.sleep(0.01)
    monkeypatch.delenv("PRUNE_FAULTS")
    assert ticket.wait(PATIENCE)
    assert ticket.state == "failed"
    assert ticket.error is not None
    assert ticket.error.endswith(".")
    later = own_engine.submit(evaluate(0.2), session="s", panel="p")
    assert later.wait(PATIENCE)
    if later.state == "failed":  # the breaker may still be open for a moment
        time.sleep(client.GRACE_SECONDS + 1)
        later = own_engine.submit(evaluate(0.2), session="s", panel="p")
    numbers(later)


def test_a_job_past_its_deadline_is_killed(
    own_engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers(own_engine.submit(evaluate(0.1), session="s", panel="p"))
    before = own_engine.worker_pid
    monkeypatch.setattr(Evaluate, "deadline", 0.0)
    monkeypatch.setattr(client, "GRACE_SECONDS", 0.3)
    ticket = own_engine.submit(long_job(0.57), session="s", panel="p")
    assert ticket.wait(PATIENCE)
    assert ticket.state == "failed"
    assert "longer" in (ticket.error or "")
    monkeypatch.undo()
    numbers(own_engine.submit(evaluate(0.12), session="s", panel="p"))
    assert own_engine.worker_pid != before


def test_a_full_queue_says_so(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "MAX_WAITING", 2)
    tickets = [
        engine.submit(long_job(0.01 * i + 0.007), session=f"session {i}", panel="p")
        for i in range(6)
    ]
    busy = [t for t in tickets if t.state == "failed"]
    assert busy
    assert "busy" in (busy[0].error or "")
    for i in range(6):
        engine.leave(f"session {i}")
    assert all(t.state in ("cancelled", "failed") for t in tickets)


def test_a_faster_job_of_the_same_session_does_not_wait_for_its_slower_one(engine: Engine) -> None:
    numbers(engine.submit(evaluate(0.1), session="s", panel="p"))
    prompt = Generate("tiny-llama", Recipe(sparsity=0.5), "x", 200, with_dense=True)
    writing = engine.submit(prompt, session="s", panel="write")
    wait_for_event(writing)
    quick = engine.submit(evaluate(0.52), session="s", panel="p")
    assert quick.wait(PATIENCE)
    assert quick.state == "done"
    assert writing.wait(PATIENCE)
    assert writing.state == "done", writing.error


def test_errors_are_one_sentence_and_harm_nobody(engine: Engine) -> None:
    bad = engine.submit(LoadModel("no-such-model"), session="a", panel="p")
    good = engine.submit(evaluate(0.32), session="b", panel="p")
    assert bad.wait(PATIENCE)
    assert bad.state == "failed"
    assert bad.error
    assert "\n" not in bad.error
    assert "Traceback" not in bad.error
    assert isinstance(bad.error, Sentence)
    assert bad.error.values["text"] == "no-such-model"
    assert translated(bad.error, "zh").startswith("没有名为 no-such-model 的模型；预设模型有：")
    numbers(good)


def test_closing_leaves_no_process(folder: None) -> None:
    engine = Engine("process")
    numbers(engine.submit(evaluate(0.3), session="s", panel="p"))
    pid = engine.worker_pid
    assert pid is not None
    engine.close()
    assert not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


def test_an_unknown_job_is_refused(folder: None) -> None:
    from prune_core.jobs.base import Job

    with pytest.raises(PruneCoreError, match="no such job"):
        Core().run(Job("tiny-llama"))
