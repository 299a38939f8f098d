"""Tickets: what a session holds of a job it asked for. Read from any thread."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, field
from typing import Any

from prune_core.jobs.base import Job

FINAL = frozenset({"done", "failed", "cancelled"})


@dataclass(eq=False)
class Computation:
    """One job being computed, for however many sessions asked for it. The scheduler owns it.

    Attributes:
        job: what.
        number: unique, rising: the order within a priority.
        key: by which an equal one is found, see ``engine.stamps.lookup_key``.
        state: ``waiting``, ``running``, ``done``, ``failed``, ``cancelled``.
        event: the latest event.
        result: at the end.
        error: one sentence.
        attempts: how often it was started.
        position: place in the queue while waiting, 0 next.
        tickets: who still wants it.
        started: monotonic time of the last start.
        ended: set when the state is final.
    """

    job: Job
    number: int
    key: str = ""
    state: str = "waiting"
    event: dict[str, Any] | None = None
    result: dict[str, Any] | None = None
    error: str | None = None
    attempts: int = 0
    position: int = 0
    tickets: set[Ticket] = field(default_factory=set)
    started: float = 0.0
    ended: threading.Event = field(default_factory=threading.Event)

    def finish(
        self, state: str, *, result: dict[str, Any] | None = None, error: str | None = None
    ) -> None:
        """Reach a final state."""
        self.state, self.result, self.error = state, result, error
        self.ended.set()


class Ticket:
    """One session's claim on a computation; a replaced or cancelled one says ``cancelled``."""

    def __init__(self, computation: Computation, session: str, panel: str) -> None:
        self._computation = computation
        self._cancelled = threading.Event()
        self.session = session
        self.panel = panel

    @property
    def job(self) -> Job:
        """What was asked."""
        return self._computation.job

    @property
    def key(self) -> str:
        """What an equal job's ``engine.stamps.lookup_key`` is while no file has changed."""
        return self._computation.key

    @property
    def state(self) -> str:
        """``waiting``, ``running``, ``done``, ``failed`` or ``cancelled``."""
        return "cancelled" if self._cancelled.is_set() else self._computation.state

    @property
    def position(self) -> int:
        """Place in the queue while waiting; 0 is next."""
        return self._computation.position

    @property
    def event(self) -> dict[str, Any] | None:
        """The latest event, if there was one."""
        return self._computation.event

    @property
    def result(self) -> dict[str, Any] | None:
        """The result once the state is ``done``."""
        return self._computation.result

    @property
    def error(self) -> str | None:
        """One sentence once the state is ``failed``."""
        return self._computation.error

    @property
    def computation(self) -> Computation:
        """For the scheduler."""
        return self._computation

    def move_to(self, computation: Computation) -> None:
        """For the scheduler: the job starts over as another computation."""
        self._computation = computation

    def withdraw(self) -> None:
        """For the scheduler: this ticket no longer wants the result."""
        self._cancelled.set()

    def wait(self, timeout: float | None = None) -> bool:
        """Block until the state is final; False if the time ran out first."""
        end = None if timeout is None else time.monotonic() + timeout
        while self.state not in FINAL:
            seconds = 0.05 if end is None else min(0.05, end - time.monotonic())
            if seconds <= 0:
                return False
            self._computation.ended.wait(seconds)
        return True
