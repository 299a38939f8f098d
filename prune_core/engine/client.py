"""The engine as its users see it: submit a job, get a ticket. No torch in this process.

Newest wins: a session has one job per panel; a newer one replaces it, cancels it where it runs,
and nobody else's. Equal jobs are computed once. The queue is bounded. A worker that dies is
started again and its job tried once more; one that hangs past a job's deadline is killed.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
from collections import OrderedDict, deque
from typing import Any

from prune_core.engine.process import WorkerProcess
from prune_core.engine.tickets import FINAL, Computation, Ticket
from prune_core.errors import PruneCoreError, WorkerError
from prune_core.jobs.base import Job
from prune_core.jobs.file_versions import lookup_key
from prune_core.progress import Progress
from prune_core.sentences import Sentence

log = logging.getLogger(__name__)

MAX_WAITING = 32
MAX_RESULTS = 128
GRACE_SECONDS = 5.0
CRASHES, CRASH_WINDOW = 3, 60.0

__all__ = ["Engine", "Ticket"]


class Engine:
    """One per server (or per notebook, command or test).

    Args:
        mode: ``process`` (one spawned worker, the default) or ``inline`` (``submit`` runs the job
            to its end in the caller, with the same code). ``PRUNE_ENGINE`` decides where None.
    """

    def __init__(self, mode: str | None = None) -> None:
        self.mode = mode or os.environ.get("PRUNE_ENGINE", "process")
        if self.mode not in ("process", "inline"):
            raise WorkerError(
                "unknown engine mode {mode!r}; use process or inline.", mode=self.mode
            )
        self._lock = threading.RLock()
        self._wake = threading.Event()
        self._closed = False
        self._numbers = 0
        self._waiting: list[Computation] = []
        self._running: Computation | None = None
        self._active: dict[str, Computation] = {}
        self._results: OrderedDict[str, Computation] = OrderedDict()
        self._panels: dict[tuple[str, str], Ticket] = {}
        self._crashes: deque[float] = deque(maxlen=CRASHES)
        self._core: Any = None
        self._worker: WorkerProcess | None = None
        if self.mode == "process":
            self._thread = threading.Thread(target=self._loop, daemon=True, name="prune-engine")
            self._thread.start()
            atexit.register(self.close)

    # ---- asked from any thread -------------------------------------------------------------

    def submit(self, job: Job, *, session: str, panel: str) -> Ticket:
        """Ask for a job; replaces what this session asked for in this panel before.

        Args:
            job: what.
            session: who; sessions do not see each other.
            panel: which of the session's places shows it.
        """
        with self._lock:
            computation = self._find(job)
            old = self._panels.get((session, panel))
            if old is not None and old.computation is computation and old.state != "cancelled":
                return old
            ticket = Ticket(computation, session, panel)
            computation.tickets.add(ticket)
            self._panels[session, panel] = ticket
            if old is not None:
                self._withdraw(old)
            self._prefer(computation, session)
            self._order()
        self._wake.set()
        if self.mode == "inline":
            self._run_inline(computation)
        return ticket

    def cancel(self, ticket: Ticket) -> None:
        """Withdraw a ticket; its computation stops unless someone else wants it."""
        with self._lock:
            self._withdraw(ticket)
        self._wake.set()

    def leave(self, session: str) -> None:
        """A session is gone: withdraw everything it asked for."""
        with self._lock:
            for key in [k for k in self._panels if k[0] == session]:
                self._withdraw(self._panels.pop(key))
        self._wake.set()

    @property
    def worker_pid(self) -> int | None:
        """Process id of the worker, once it runs."""
        worker = self._worker
        return worker.pid if worker is not None else None

    @property
    def load(self) -> tuple[int, int]:
        """(running, waiting) computations."""
        with self._lock:
            return int(self._running is not None), len(self._waiting)

    def close(self) -> None:
        """End the worker; waiting and running jobs are cancelled."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for computation in [*self._waiting, *([self._running] if self._running else [])]:
                computation.finish("cancelled")
            self._waiting.clear()
        self._wake.set()
        if self._worker is not None:
            self._worker.kill()

    # ---- under the lock --------------------------------------------------------------------

    def _find(self, job: Job) -> Computation:
        """The computation of an equal job, finished or under way, or a new one."""
        key = lookup_key(job)
        done = self._results.get(key)
        if done is not None:
            self._results.move_to_end(key)
            return done
        active = self._active.get(key)
        if active is not None and active.state not in FINAL:
            return active
        self._numbers += 1
        computation = Computation(job, self._numbers, key)
        if self._closed or len(self._waiting) >= MAX_WAITING:
            computation.finish(
                "failed", error=Sentence("The server is busy; try again in a moment.")
            )
            return computation
        self._active[key] = computation
        self._waiting.append(computation)
        return computation

    def _withdraw(self, ticket: Ticket) -> None:
        ticket.withdraw()
        computation = ticket.computation
        computation.tickets.discard(ticket)
        if computation.tickets or computation.state in FINAL:
            return
        if computation is self._running:
            self._stop(computation)
        elif computation in self._waiting:
            self._waiting.remove(computation)
            self._finish(computation, "cancelled")

    def _stop(self, computation: Computation) -> None:
        """Nobody wants the running computation: a later equal job must start afresh."""
        self._active.pop(computation.key, None)
        if self._worker is not None:
            self._worker.send("cancel", computation.number)

    def _prefer(self, computation: Computation, session: str) -> None:
        """A session's own slower job must not keep its faster one waiting: it starts over later."""
        running = self._running
        if running is None or running is computation or running.state in FINAL:
            return
        mine = all(t.session == session for t in running.tickets)
        if running.tickets and mine and computation.job.priority < running.job.priority:
            self._stop(running)
            again = Computation(running.job, running.number, running.key, event=running.event)
            for ticket in running.tickets:
                ticket.move_to(again)
            again.tickets, running.tickets = running.tickets, set()
            self._active[again.key] = again
            self._waiting.append(again)

    def _order(self) -> None:
        self._waiting.sort(key=lambda c: (c.job.priority, c.number))
        for place, computation in enumerate(self._waiting):
            computation.position = place

    def _finish(
        self,
        computation: Computation,
        state: str,
        *,
        result: dict[str, Any] | None = None,
        error: str | None = None,
    ) -> None:
        computation.finish(state, result=result, error=error)
        key = computation.key
        if self._active.get(key) is computation:
            del self._active[key]
        if state == "done":
            self._results[key] = computation
            while len(self._results) > MAX_RESULTS:
                self._results.popitem(last=False)

    # ---- inline ----------------------------------------------------------------------------

    def _run_inline(self, computation: Computation) -> None:
        from prune_core.engine.core import Core
        from prune_core.engine.worker import unexpected

        with self._lock:  # one job at a time, as the worker has it
            if computation.state in FINAL:
                return
            if self._core is None:
                self._core = Core()
            if computation in self._waiting:
                self._waiting.remove(computation)
            computation.state = "running"

            def emit(event: dict[str, Any]) -> None:
                computation.event = event

            try:
                result = self._core.run(computation.job, Progress(emit))
                self._finish(computation, "done", result=result)
            except PruneCoreError as error:
                self._finish(computation, "failed", error=error.sentence)
            except Exception as error:
                log.exception("job %s failed", type(computation.job).__name__)
                self._finish(computation, "failed", error=unexpected(error))

    # ---- the engine's thread ---------------------------------------------------------------

    def _loop(self) -> None:
        while not self._closed:
            try:
                if self._worker is None:
                    self._worker = WorkerProcess()
                    if self._closed:
                        self._worker.kill()
                        return
                self._step(self._worker)
            except WorkerError as error:
                self._worker_died(error.sentence)

    def _step(self, worker: WorkerProcess) -> None:
        with self._lock:
            if self._running is None and self._waiting:
                self._running = self._waiting.pop(0)
                self._order()
                self._running.state = "running"
                self._running.attempts += 1
                self._running.started = time.monotonic()
                worker.send("run", self._running.number, self._running.job)
            running = self._running
        if running is None:
            self._wake.wait(0.5)
            self._wake.clear()
            worker.receive(0)
            return
        message = worker.receive(0.05)
        if message is not None:
            self._receive(running, *message)
        # also while events keep coming: a job that is busy for ever is as late as one that hangs
        late = time.monotonic() - running.started > running.job.deadline + GRACE_SECONDS
        if late and self._running is running:
            running.attempts = 2  # a second try would take as long
            worker.kill()
            raise WorkerError(
                "The job took longer than {seconds:.0f} s.", seconds=running.job.deadline
            )

    def _receive(self, running: Computation, kind: str, number: int, payload: Any) -> None:
        if number != running.number:
            return  # the rest of a job that was given up
        if kind == "event":
            running.event = payload
            return
        with self._lock:
            self._running = None
            if kind == "done":
                self._finish(running, "done", result=payload)
            elif kind == "failed":
                self._finish(running, "failed", error=payload)
            elif running.tickets:
                # asked for again in the moment between cancel and stop
                again = Computation(running.job, running.number, running.key)
                for ticket in running.tickets:
                    ticket.move_to(again)
                again.tickets = running.tickets
                self._active[again.key] = again
                self._waiting.append(again)
                self._order()
            else:
                self._finish(running, "cancelled")

    def _worker_died(self, reason: str) -> None:
        worker, self._worker = self._worker, None
        if worker is not None:
            worker.kill()
        with self._lock:
            if self._closed:
                return
            self._crashes.append(time.monotonic())
            running, self._running = self._running, None
            if running is not None and not running.tickets:
                self._finish(running, "cancelled")
            elif running is not None and running.attempts >= 2:
                self._finish(
                    running,
                    "failed",
                    error=Sentence("{reason} It was given up; try a smaller one.", reason=reason),
                )
            elif running is not None:
                running.state = "waiting"
                self._waiting.append(running)
                self._order()
            full = len(self._crashes) == CRASHES
            breaking = full and self._crashes[-1] - self._crashes[0] < CRASH_WINDOW
            if breaking:
                for computation in self._waiting:
                    self._finish(
                        computation,
                        "failed",
                        error=Sentence(
                            "The compute worker keeps ending; look at the log, then try again."
                        ),
                    )
                self._waiting.clear()
        log.warning("compute worker: %s", reason)
        if breaking:
            time.sleep(GRACE_SECONDS)
