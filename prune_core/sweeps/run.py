"""Works a sweep off: claims cells, has them measured, writes down what came of each.

One process coordinates; any number of them may work on one store. Each cell is claimed by one of
them at a time and ends exactly once. Whatever is killed, whoever starts the same sweep again goes
on with what is left, and the table ends up as if nothing had happened.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import (
    FIRST_COMPLETED,
    BrokenExecutor,
    CancelledError,
    Executor,
    Future,
    wait,
)
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from prune_core.allocation import ALLOCATIONS
from prune_core.criteria import CRITERIA
from prune_core.errors import StoreError
from prune_core.sentences import Sentence
from prune_core.sweeps.executors import Where
from prune_core.sweeps.grid import Grid
from prune_core.sweeps.records import Cell, Run
from prune_core.sweeps.rounds import to_refine, window_rounds, windows_of
from prune_core.sweeps.store.journal import RunStore
from prune_core.sweeps.store.leases import LEASE, Worker
from prune_core.sweeps.store.portable import cell_to_dict

POLL = 0.5
PATIENCE = 1.0
_ENDED = Sentence("The process that measured this cell was ended by the system.")
_LONGEST = 500
"""Characters of what went wrong with a cell."""


Measure = Callable[[Mapping[str, Any], int, int], dict[str, Any]]
"""A cell, how many windows and threads: its numbers, or an error."""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a sweep is.

    Attributes:
        done, failed, cells: counts of cells; ``cells`` is all of them.
        windows: of the round that runs now.
        refined, to_refine: cells of a later round that are measured again, 0 in the first.
        seconds_left: an estimate from the cells measured so far in this call, None before any.
        state: ``active``, ``paused``, ``cancelled`` or ``ended``.
    """

    done: int
    failed: int
    cells: int
    windows: int
    refined: int = 0
    to_refine: int = 0
    seconds_left: float | None = None
    state: str = "active"


def preparations(cell: Cell) -> frozenset[str]:
    """What has to be worked out once for cells like this: statistics of a text, ranks.

    Cells that share one are not started side by side before it is there.
    """
    recipe = cell.recipe
    needs = CRITERIA[recipe.criterion].needs_for(recipe.criterion_args)
    steps = {
        f"ranks {cell.source} {recipe.criterion} {recipe.criterion_args} {recipe.pattern} "
        f"{recipe.calibration}"
    }
    allocation_needs = ALLOCATIONS[recipe.allocation].needs
    if "ordered" in allocation_needs:
        steps.add(f"ordered {cell.source} {recipe.criterion} {recipe.calibration}")
    for need in needs:
        steps.add(f"statistics {cell.source} {recipe.calibration} {need}")
    if "increases" in allocation_needs:
        steps.add(f"sensitivity {cell.source} {recipe.criterion} {recipe.calibration}")
    if recipe.reads_neurons:
        steps.add(f"neurons {cell.source} {recipe.calibration}")
    return frozenset(steps)


def run_sweep(
    store: RunStore,
    sweep: str,
    where: Where,
    measure: Measure,
    *,
    listener: Callable[[Progress], None] | None = None,
    stop: threading.Event | None = None,
    shard: tuple[int, int] = (1, 1),
) -> str:
    """Work on a sweep until nothing is left, or it is paused, cancelled or stopped.

    Args:
        store: where it was asked for.
        sweep: its id.
        where: what runs ``measure``.
        measure: measures one cell; see ``prune_core.engine.sweep_worker.measure_cell``.
        listener: given the progress after every change.
        stop: set it to end after giving back what was claimed.
        shard: (i, n): only the i-th of n parts of its cells, for several machines.

    Returns:
        ``ended``, ``paused``, ``cancelled`` or ``stopped``.

    Raises:
        StoreError: the store is gone, locked, full or read-only; what was found before is kept.
        GridError: the executor cannot be started.
    """
    return _Runner(store, sweep, where, measure, listener, stop or threading.Event(), shard).run()


class _Runner:
    def __init__(
        self,
        store: RunStore,
        sweep: str,
        where: Where,
        measure: Measure,
        listener: Callable[[Progress], None] | None,
        stop: threading.Event,
        shard: tuple[int, int],
    ) -> None:
        self.store, self.sweep, self.where, self.measure = store, sweep, where, measure
        self.listener, self.stop, self.shard = listener, stop, shard
        self.worker = Worker.here()
        self.grid = Grid.from_dict(dict(store.sweep(sweep).grid))
        self.rounds = window_rounds(self.grid)
        self.prepared: set[str] = set()
        self.spent: list[float] = []
        self.began = time.monotonic()
        self.executor: Executor | None = None
        self._homes: dict[Future[Any], Executor] = {}
        self.beat_error: StoreError | None = None

    def run(self) -> str:
        if self.store.read_only:
            raise StoreError(
                "the store {name} is read-only, so nothing can be measured into it.",
                name=self.store.name,
            )
        over = threading.Event()
        beat = threading.Thread(
            target=self._send_heartbeats, args=(over,), daemon=True, name="prune-lease"
        )
        beat.start()
        try:
            state = self._first_round()
            if state == "ended" and self.shard == (1, 1):
                for before, windows in zip(self.rounds, self.rounds[1:], strict=False):
                    state = self._refine(before, windows)
                    if state != "ended":
                        break
            self._report_progress(self.rounds[-1], state=state)
            return state
        finally:
            over.set()
            if self.executor is not None:
                self._close()
            with suppress(StoreError):
                self.store.release(self.worker)

    # ---- the first round -------------------------------------------------------------------

    def _first_round(self) -> str:
        windows = self.rounds[0]
        mine = self.store.runs(sweep=self.sweep)
        count = len(mine)
        low, high = (count * (self.shard[0] - 1 + k) // self.shard[1] for k in (0, 1))
        mine = mine[low:high]
        waiting = [run for run in mine if run.state in ("pending", "running")]
        flying: dict[Future[Any], Run] = {}
        self._report_progress(windows)
        while waiting or flying:
            state = self._state()
            if state != "active":
                self._drain(flying, windows)
                return state
            self._fill(waiting, flying, windows)
            if flying:
                self._collect(flying, waiting, windows)
                continue
            # what is left is claimed by others: when they end or fall silent, it is decided
            self._wait(PATIENCE)
            ids = [run.id for run in waiting]
            runs = self.store.runs(sweep=self.sweep, ids=ids)
            waiting = [run for run in runs if run.state in ("pending", "running")]
            self._report_progress(windows)
        return "ended"

    def _fill(self, waiting: list[Run], flying: dict[Future[Any], Run], windows: int) -> None:
        while len(flying) < self.where.workers:
            busy = {
                key
                for run in flying.values()
                for key in preparations(run.cell)
                if key not in self.prepared
            }
            claimed = None
            for run in list(waiting):
                if preparations(run.cell) & busy:
                    continue
                claimed = self.store.claim(self.worker, LEASE, sweep=self.sweep, ids=[run.id])
                if claimed is not None:
                    waiting.remove(run)
                    break
            if claimed is None:
                return
            self._submit(claimed, windows, flying)
            if self.where.kind == "inline":
                return

    def _collect(self, flying: dict[Future[Any], Run], waiting: list[Run], windows: int) -> None:
        done, _ = wait(flying, timeout=POLL, return_when=FIRST_COMPLETED)
        for future in done:
            run = flying.pop(future)
            answer = self._answer(future)
            if "numbers" in answer:
                self.store.finish(run.id, answer["numbers"])
                self._prepared_by(run)
            else:
                self.store.fail(run.id, answer["error"], again=answer["again"])
                if answer["again"]:
                    waiting.insert(0, run)
            self._report_progress(windows)
        if self.beat_error is not None:
            raise self.beat_error

    def _drain(self, flying: dict[Future[Any], Run], windows: int) -> None:
        """Paused or stopped: what runs is given back, whatever it finds."""
        for future in flying:
            future.cancel()
        if flying:
            self._close()
        self.store.release(self.worker)
        self._report_progress(windows, state=self._state())

    # ---- later rounds ----------------------------------------------------------------------

    def _refine(self, before: int, windows: int) -> str:
        runs = self.store.runs(sweep=self.sweep)
        assert self.grid.interval is not None
        ids = set()
        for place in {(run.cell.source, run.cell.text) for run in runs}:
            alike = [run for run in runs if (run.cell.source, run.cell.text) == place]
            ids |= set(to_refine(alike, before, self.grid.interval))
        todo = [run for run in runs if run.id in ids and windows_of(run.numbers) < windows]
        total, flying = len(todo), dict[Future[Any], Run]()
        self._report_progress(windows, refining=(0, total))
        while todo or flying:
            state = self._state()
            if state != "active":
                for future in flying:
                    future.cancel()
                if flying:
                    self._close()
                return state
            while todo and len(flying) < self.where.workers:
                self._submit(todo.pop(0), windows, flying)
                if self.where.kind == "inline":
                    break
            done, _ = wait(flying, timeout=POLL, return_when=FIRST_COMPLETED)
            for future in done:
                run = flying.pop(future)
                answer = self._answer(future)
                if "numbers" in answer:
                    self.store.refine(run.id, answer["numbers"], windows=windows_of(run.numbers))
                elif answer["again"]:
                    todo.append(run)
                self._report_progress(windows, refining=(total - len(todo) - len(flying), total))
            if self.beat_error is not None:
                raise self.beat_error
        return "ended"

    # ---- one cell --------------------------------------------------------------------------

    def _submit(self, run: Run, windows: int, flying: dict[Future[Any], Run]) -> None:
        executor = self.executor = self.executor or self.where.open()
        arguments = (cell_to_dict(run.cell), min(windows, run.cell.windows), self.where.threads)
        future: Future[Any]
        try:
            future = executor.submit(self.measure, *arguments)
        except Exception as error:  # noqa: BLE001 - a pool that broke since; the answer tells
            future = Future()
            future.set_exception(error)
        self._homes[future] = executor
        flying[future] = run

    def _answer(self, future: Future[Any]) -> Mapping[str, Any]:
        """Numbers, or what went wrong and whether the cell may be tried again."""
        home = self._homes.pop(future, None)
        try:
            result: dict[str, Any] = future.result()
        except (Exception, CancelledError) as error:  # noqa: BLE001 - whatever ended the worker
            lost = isinstance(error, BrokenExecutor | CancelledError) or (
                type(error).__name__ in ("KilledWorker", "FutureCancelledError")
            )
            if lost and self.executor is home:
                self._close()  # a new one is opened for the next cell
            message = _ENDED if lost else _unmeasured(error)
            return {"error": message, "again": True}
        if "numbers" in result:
            self.spent.append(time.monotonic())
            return result
        return {"error": result["error"], "again": False}

    def _close(self) -> None:
        executor, self.executor = self.executor, None
        if executor is None:
            return
        processes: Sequence[Any] = list((getattr(executor, "_processes", None) or {}).values())
        executor.shutdown(wait=False, cancel_futures=True)
        for process in processes:  # a cell may run for minutes: it is not waited for
            process.kill()

    def _prepared_by(self, run: Run) -> None:
        self.prepared |= preparations(run.cell)

    # ---- signs of life ---------------------------------------------------------------------

    def _state(self) -> str:
        return "stopped" if self.stop.is_set() else self.store.sweep(self.sweep).state

    def _wait(self, seconds: float) -> None:
        self.stop.wait(seconds)

    def _send_heartbeats(self, over: threading.Event) -> None:
        while not over.wait(LEASE / 4):
            try:
                self.store.heartbeat(self.worker)
            except StoreError as error:
                self.beat_error = error
                return

    def _report_progress(
        self, windows: int, *, refining: tuple[int, int] = (0, 0), state: str = "active"
    ) -> None:
        if self.listener is None:
            return
        counts = self.store.sweep(self.sweep).counts
        cells = sum(counts.values())
        done, failed = counts.get("done", 0), counts.get("failed", 0)
        remaining = refining[1] - refining[0] if refining[1] else cells - done - failed
        each = (time.monotonic() - self.began) / len(self.spent) if self.spent else None
        seconds = None if each is None or state != "active" else each * remaining
        self.listener(Progress(done, failed, cells, windows, *refining, seconds, state))


def _unmeasured(error: BaseException) -> Sentence:
    most = _LONGEST - len("The cell could not be measured: ")
    short = error if len(str(error)) <= most else str(error)[:most]
    return Sentence("The cell could not be measured: {error}", error=short)
