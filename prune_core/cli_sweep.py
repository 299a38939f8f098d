"""``sweep``: a grid measured cell by cell into a store. ``runs``: what a store holds."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

from prune_core.errors import GridError, StoreError
from prune_core.models.weight_counts import added_share
from prune_core.sweeps.executors import parse_where
from prune_core.sweeps.grid import Grid, estimated_seconds
from prune_core.sweeps.journal import RunStore
from prune_core.sweeps.records import Run, Sweep
from prune_core.sweeps.run import Progress, run_sweep
from prune_core.words.numbers import counted_share, error_in, measured

Result = dict[str, Any]


def sweep_options(sub: argparse.ArgumentParser) -> None:
    """Options of ``sweep``."""
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


def sweep(parsed: argparse.Namespace) -> Result:
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
            state = run_sweep(store, id, where, told=_Line(), stop=stop, shard=shard)
        if sys.stderr.isatty():
            print(file=sys.stderr)
        runs = store.runs(sweep=id)
        name = store.name
    finally:
        store.close()
    return {"sweep": id, "state": state, "store": name, "runs": [_row(run) for run in runs]}


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
    raise GridError(f"a shard is I/N such as 1/4, got {text!r}.")


def _row(run: Run) -> Result:
    numbers, recipe = run.numbers, run.cell.recipe
    kept = (
        *("perplexity", "perplexity_low", "perplexity_high", "kl", "top1", "similarity"),
        *("windows", "tokens", "nonzero", "bytes_sparse", "bytes_shrunk", "decode"),
    )
    return {
        "id": run.id,
        "state": run.state,
        "model": run.cell.source,
        "text": run.cell.text.value if run.cell.text.kind != "inline" else "inline",
        "recipe": recipe.to_dict(),
        "sparsity": numbers.get("sparsity"),
        "added": added_share(numbers) if numbers.get("sparsity") is not None else None,
        "zeros_after": numbers.get("zeros_after"),
        **{key: numbers.get(key) for key in kept},
        "error": run.error,
        "note": run.note,
        "attempts": run.attempts,
    }


def show_sweep(result: Result) -> None:
    """For people."""
    show_rows(result["runs"])
    print(f"sweep {result['sweep']} {result['state']}, in {result['store']}")


def show_rows(rows: list[Result]) -> None:
    """Runs as a table."""
    head = f"{'run':12} {'state':8} {'removed':>8} {'added':>8} {'perplexity':>11} {'95 %':>20}"
    print(f"{head}  method")
    for row in rows:
        recipe = row["recipe"]
        names = ("criterion", "pattern", "allocation")
        method = " ".join(str(recipe.get(name, "")) for name in names)
        line = f"{row['id']:12} {row['state']:8}"
        quality = row["perplexity"] if row["perplexity"] is not None else row["similarity"]
        if quality is None:
            line += f" {'':>8} {'':>8} {'':>11} {'':>20}"
        else:
            low, high = row["perplexity_low"], row["perplexity_high"]
            error = error_in(low, high)
            interval = "" if error is None else f"{measured(low, error)} to {measured(high, error)}"
            line += f" {counted_share(row['sparsity']):>8} {counted_share(row['added']):>8}"
            line += f" {measured(quality, error, too_large='> 1e6'):>11} {interval:>20}"
        note = f"  # {row['note']}" if row["note"] else ""
        print(f"{line}  {method}  {row['error'] or ''}{note}".rstrip())


# ---- runs ------------------------------------------------------------------------------------


def runs_options(sub: argparse.ArgumentParser) -> None:
    """Options of ``runs``."""
    sub.add_argument("words", nargs="*", metavar="WORD", help="that a run must hold")
    sub.add_argument("--store", metavar="URL", help="default: PRUNE_STORE or the user's own")
    sub.add_argument("--sweep", metavar="ID", help="of this sweep only")
    sub.add_argument("--note", nargs=2, metavar=("ID", "TEXT"), help="write a note beside a run")
    sub.add_argument("--delete", nargs="+", metavar="ID", help="hide runs or sweeps")
    sub.add_argument("--restore", nargs="+", metavar="ID", help="bring back what was deleted")
    sub.add_argument("--export", nargs=2, metavar=("ID", "FILE"), help="write a run to a file")
    sub.add_argument("--import", dest="take", nargs="+", metavar="FILE", help="take runs in")
    for state in ("pause", "resume", "cancel"):
        sub.add_argument(f"--{state}", metavar="ID", help=f"{state} a sweep, wherever it runs")


def runs(parsed: argparse.Namespace) -> Result:
    """List the runs of a store, after changing what was asked.

    Raises:
        StoreError: no such run, or the store or a file cannot be used.
    """
    store = RunStore(parsed.store)
    try:
        if parsed.note:
            store.note(*parsed.note)
        if parsed.export:
            _write(Path(parsed.export[1]), store.export_run(parsed.export[0]))
        for path in parsed.take or ():
            store.import_run(_read(Path(path)))
        if parsed.delete:
            store.delete(parsed.delete)
        if parsed.restore:
            store.restore(parsed.restore)
        for option, state in (("pause", "paused"), ("resume", "active"), ("cancel", "cancelled")):
            if getattr(parsed, option):
                store.set_state(getattr(parsed, option), state)
        found = store.runs(sweep=parsed.sweep, search=" ".join(parsed.words))
        sweeps = store.sweeps()
        name = store.name
    finally:
        store.close()
    return {
        "store": name,
        "sweeps": [_sweep_row(one) for one in sweeps],
        "runs": [_row(run) for run in found],
    }


def _sweep_row(sweep: Sweep) -> Result:
    return {
        "id": sweep.id,
        "name": sweep.name,
        "state": sweep.state,
        "counts": dict(sweep.counts),
        "note": sweep.note,
    }


def _write(path: Path, content: bytes) -> None:
    if path.exists():
        raise StoreError(f"the file {path} exists; name another one.")
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"the file {path} cannot be written: {error.strerror}.") from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(f"the file {path} cannot be read: {error.strerror}.") from None


def show_runs(result: Result) -> None:
    """For people."""
    for sweep in result["sweeps"]:
        counts = ", ".join(f"{n} {state}" for state, n in sorted(sweep["counts"].items()))
        print(f"sweep {sweep['id']} {sweep['state']} {sweep['name'] or '(no name)'}: {counts}")
    show_rows(result["runs"])
    print(f"{len(result['runs'])} runs in {result['store']}")
