"""The verb ``sweep``: a grid measured cell by cell into a store."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time

from prune_core.cli.running import say_warnings
from prune_core.cli.runs import run_row, show_rows
from prune_core.cli.verbs import Result, Verbs, new_verb
from prune_core.engine.sweep_worker import measure_cell
from prune_core.errors import GridError
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid, estimated_seconds
from prune_core.sweeps.run import Progress, run_sweep
from prune_core.sweeps.store.journal import RunStore


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "sweep", run, show)
    sub.add_argument("grid", metavar="GRID.yaml", help="what to measure; see docs/sweeps.md")
    sub.add_argument("--store", metavar="URL", help="runs; default: PRUNE_STORE or the user's own")
    sub.add_argument(
        "--executor",
        default="inline",
        metavar="WHERE",
        help="inline, processes[:N], dask[:N] or dask://HOST:PORT",
    )
    sub.add_argument("--threads", type=int, metavar="N", help="of torch in each worker")
    sub.add_argument("--shard", default="1/1", metavar="I/N", help="the I-th of N parts only")
    sub.add_argument("--fresh", action="store_true", help="measure again what was measured")
    sub.add_argument("--retry", action="store_true", help="try failed cells again")


def run(parsed: argparse.Namespace) -> Result:
    """Ask for a grid, or go on with an equal one, and work it off.

    Raises:
        GridError: the grid or the executor cannot be used.
        StoreError: the store cannot be used.
    """
    grid = Grid.from_file(parsed.grid)
    where = parse_where(parsed.executor, parsed.threads)
    shard = _shard(parsed.shard)
    store = RunStore(parsed.store)
    try:
        for reason in grid.left_out:
            print(f"left out: {reason}", file=sys.stderr)
        id = store.add_sweep(grid, fresh=parsed.fresh)
        if store.sweep(id).state != "active":
            store.set_state(id, "active")
        if parsed.retry:
            store.retry(id)
        minutes = estimated_seconds(grid) / 60
        print(
            f"sweep {id}: {store.sweep(id).cells} cells into {store.name}; about {minutes:.0f} "
            "minutes by estimate, for a small model on two cores",
            file=sys.stderr,
        )
        stop = threading.Event()
        with _interrupts(stop):
            state = run_sweep(
                store, id, where, measure_cell, listener=_Line(), stop=stop, shard=shard
            )
        if sys.stderr.isatty():
            print(file=sys.stderr)
        runs = store.runs(sweep=id)
        name = store.name
    finally:
        store.close()
    every = [warning for run in runs for warning in (run.numbers or {}).get("warnings", ())]
    warnings = list(dict.fromkeys(every))
    say_warnings(warnings)
    return {
        "sweep": id,
        "state": state,
        "store": name,
        "runs": [run_row(run) for run in runs],
        "warnings": warnings,
    }


class _interrupts:  # noqa: N801 - used as a function
    """Ctrl-C ends a sweep cleanly; a second one ends the program."""

    def __init__(self, stop: threading.Event) -> None:
        self._stop = stop

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGINT, self._told)

    def _told(self, *_: object) -> None:
        if self._stop.is_set():
            raise KeyboardInterrupt
        self._stop.set()
        print("\nstopping; the same command goes on later", file=sys.stderr)

    def __exit__(self, *_: object) -> None:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, self._before)


class _Line:
    """Progress: one line that changes on a terminal, else a line now and then."""

    def __init__(self) -> None:
        self._last = 0.0

    def __call__(self, progress: Progress) -> None:
        terminal = sys.stderr.isatty()
        now = time.monotonic()
        if not terminal and now - self._last < 10 and progress.state == "active":
            return
        self._last = now
        text = f"{progress.done} of {progress.cells} cells, {progress.windows} windows"
        if progress.failed:
            text += f", {progress.failed} failed"
        if progress.to_refine:
            text += f", refined {progress.refined} of {progress.to_refine}"
        if progress.seconds_left is not None:
            text += f", about {progress.seconds_left:.0f} s left"
        print(
            f"\r\033[K{text}" if terminal else text,
            end="" if terminal else "\n",
            file=sys.stderr,
            flush=True,
        )


def _shard(text: str) -> tuple[int, int]:
    part, _, parts = text.partition("/")
    digits = part.isdecimal() and parts.isdecimal() and len(part + parts) < 20
    if digits and 1 <= int(part) <= int(parts) <= 1000:
        return int(part), int(parts)
    raise GridError("a shard is I/N such as 1/4, got {text!r}.", text=text)


def show(result: Result) -> None:
    """For people."""
    show_rows(result["runs"])
    print(f"sweep {result['sweep']} {result['state']}, in {result['store']}")
