"""Sweeps asked for on a page: worked off by one thread of the server, through its engine.

The engine's one worker also serves whoever drags a slider: as soon as something else waits there,
the cell that runs is given back and starts again once the engine is idle. Pausing, going on and
cancelling are states of the sweep in the store, so any page of any server can do it; leases keep
two servers on one store from measuring a cell twice.

For a page::

    work = background(engine)                     # one for each process; st.cache_resource
    id = work.start(store, Grid(...))
    store.set_state(id, "paused")                 # or "active", "cancelled"
    work.seconds_left(store.sweep(id))            # an estimate, None before the first cell
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import suppress

from prune_core.engine.client import Engine, Ticket
from prune_core.engine.tickets import FINAL
from prune_core.errors import PruneCoreError, StoreError
from prune_core.jobs.sweeps import MeasureCell
from prune_core.sentences import Sentence
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.records import Run, Sweep
from prune_core.sweeps.rounds import next_refinement, window_rounds, windows_of
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.store.leases import LEASE, Worker

IDLE_SECONDS = 2.0
QUIET_SECONDS = 0.6
"""The engine must have been idle that long before a cell starts: a slider is dragged in steps."""

SESSION = "prune-sweeps"


class Background:
    """One thread that works on every ``app`` sweep of a store.

    Args:
        engine: what measures.
        url: of the store; None for the usual one. It has a connection of its own.
    """

    def __init__(self, engine: Engine, url: str | None = None) -> None:
        self._engine, self._url = engine, url
        self._worker = Worker.here()
        self._closed, self._wake = threading.Event(), threading.Event()
        self._pace: deque[float] = deque(maxlen=12)
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self.error: str | None = None

    def start(self, store: RunStore, grid: Grid) -> str:
        """Ask for a grid, or go on with an equal one; returns the sweep's id.

        Raises:
            StoreError: the store does not take it.
        """
        sweep = store.add_sweep(grid, origin="app")
        if store.sweep(sweep).state != "active":
            store.set_state(sweep, "active")
        self.wake()
        return sweep

    def wake(self) -> None:
        """There is something to do: look now, and start the thread where it does not run."""
        with self._lock:
            if self._thread is None or not self._thread.is_alive():
                self._closed.clear()
                self._thread = threading.Thread(target=self._loop, daemon=True, name="prune-sweeps")
                self._thread.start()
        self._wake.set()

    def close(self) -> None:
        """Give back what is claimed and end."""
        self._closed.set()
        self._wake.set()
        thread = self._thread
        if thread is not None:
            thread.join(10)

    def seconds_left(self, sweep: Sweep) -> float | None:
        """How long the first round of a sweep still takes: an estimate from the last cells."""
        cells = sweep.counts.get("pending", 0) + sweep.counts.get("running", 0)
        return None if not self._pace else cells * sum(self._pace) / len(self._pace)

    # ---- the thread ------------------------------------------------------------------------

    def _loop(self) -> None:
        store: RunStore | None = None
        while not self._closed.is_set():
            try:
                store = store or RunStore(self._url)
                self.error = None
                worked = self._run_first_round(store) or self._run_later_round(store)
            except StoreError as error:
                self.error, worked = error.sentence, False
            except PruneCoreError as error:
                self.error, worked = error.sentence, False
            if not worked:
                self._wake.wait(IDLE_SECONDS)
                self._wake.clear()
        if store is not None:
            with suppress(StoreError):
                store.release(self._worker)
            store.close()

    def _run_first_round(self, store: RunStore) -> bool:
        """Measure one cell of a first round; False if there is none."""
        if store.read_only or not any(
            sweep.origin == "app" and sweep.state == "active" and not sweep.ended
            for sweep in store.sweeps()
        ):
            return False
        if not self._wait_until_idle():
            return True
        run = store.claim(self._worker, LEASE)
        if run is None:
            return False
        windows = min(run.cell.windows, window_rounds(_grid(store, run.sweep))[0])
        began = time.monotonic()
        ticket = self._measure(store, run, windows)
        if ticket is None:
            store.release(self._worker)
        elif ticket.state == "done" and ticket.result is not None:
            store.finish(run.id, ticket.result)
            self._pace.append(time.monotonic() - began)
        elif ticket.state == "failed":
            store.fail(run.id, ticket.error or Sentence("The cell could not be measured."))
        else:
            store.release(self._worker)
        return True

    def _run_later_round(self, store: RunStore) -> bool:
        """Measure one run of a later round on more windows; False if none needs it."""
        if store.read_only:
            return False
        for sweep in store.sweeps():
            if sweep.origin != "app" or sweep.state != "active" or not sweep.ended:
                continue
            refinement = next_refinement(_grid(store, sweep.id), store.runs(sweep=sweep.id))
            if refinement is None or not self._wait_until_idle():
                continue
            run, windows = refinement
            ticket = self._measure(store, run, windows)
            if ticket is not None and ticket.state == "done" and ticket.result is not None:
                store.refine(run.id, ticket.result, windows=windows_of(run.numbers))
                return True
            if ticket is not None and ticket.state == "failed":
                store.set_state(sweep.id, "paused")  # it was measured before: the machine is ill
                self.error = ticket.error
        return False

    def _measure(self, store: RunStore, run: Run, windows: int) -> Ticket | None:
        """The ticket at its end; None where it was given up for someone else or for a pause."""
        cell = run.cell
        job = MeasureCell(
            cell.source, cell.recipe, cell.text, cell.seq_len, windows, cost=cell.cost
        )
        ticket = self._engine.submit(job, session=SESSION, panel="cell")
        beat = looked = time.monotonic()
        while ticket.state not in FINAL:
            ticket.wait(0.1)
            now = time.monotonic()
            if now - beat > LEASE / 4:
                store.heartbeat(self._worker)
                beat = now
            stopped = self._closed.is_set()
            if now - looked > 1.0 and not stopped:
                looked = now
                stopped = store.sweep(run.sweep).state != "active"
            if stopped or (self._engine.load[1] > 0 and ticket.state == "running"):
                self._engine.cancel(ticket)
                return None
        return ticket

    def _wait_until_idle(self) -> bool:
        """Wait a moment for the engine to be idle; False if it is not."""
        end = time.monotonic() + QUIET_SECONDS
        while time.monotonic() < end:
            if self._closed.is_set() or self._engine.load != (0, 0):
                self._closed.wait(0.2)
                return False
            self._closed.wait(0.1)
        return True


def _grid(store: RunStore, sweep: str) -> Grid:
    return Grid.from_dict(dict(store.sweep(sweep).grid))
