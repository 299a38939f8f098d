"""The verb ``runs``: list, search, note, delete and move the runs of a store."""

from __future__ import annotations

import argparse
from pathlib import Path

from prune_core.cli.verbs import Result, Verbs, new_verb
from prune_core.errors import StoreError
from prune_core.evaluation.metrics import METRICS, metrics_of, qualities
from prune_core.models.weight_counts import added_share
from prune_core.sweeps.records import Run, Sweep
from prune_core.sweeps.store.journal import RunStore
from prune_core.words.numbers import counted_share, error_in, measured


def run_row(run: Run) -> Result:
    """A run as a flat row."""
    numbers, recipe = run.numbers, run.cell.recipe
    shown = [METRICS[name] for name in qualities()]
    kept = (
        *(field for row in shown for field in (row.name, row.low, row.high) if field),
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


def show_rows(rows: list[Result]) -> None:
    """Runs as a table."""
    head = f"{'run':12} {'state':8} {'removed':>8} {'added':>8} {'perplexity':>11} {'95 %':>20}"
    print(f"{head}  method")
    for row in rows:
        recipe = row["recipe"]
        names = ("criterion", "pattern", "allocation")
        method = " ".join(str(recipe.get(name, "")) for name in names)
        line = f"{row['id']:12} {row['state']:8}"
        headlines = [x for x in metrics_of("headline") if row[x.name] is not None]
        if not headlines:
            line += f" {'':>8} {'':>8} {'':>11} {'':>20}"
        else:
            headline = headlines[0]
            quality, low, high = (row.get(x) for x in (headline.name, headline.low, headline.high))
            error = error_in(low, high)
            ends = "" if low is None or high is None else (measured(x, error) for x in (low, high))
            interval = "" if error is None else " to ".join(ends)
            line += f" {counted_share(row['sparsity']):>8} {counted_share(row['added']):>8}"
            line += f" {headline.written(quality, error, too_large='> 1e6'):>11} {interval:>20}"
        note = f"  # {row['note']}" if row["note"] else ""
        print(f"{line}  {method}  {row['error'] or ''}{note}".rstrip())


def add(verbs: Verbs) -> None:
    """Add the verb."""
    sub = new_verb(verbs, "runs", run, show)
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


def run(parsed: argparse.Namespace) -> Result:
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
        "runs": [run_row(run) for run in found],
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
        raise StoreError("the file {path} exists; name another one.", path=path)
    temporary = path.with_name(f".{path.name}.part")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(
            "the file {path} cannot be written: {strerror}.", path=path, strerror=error.strerror
        ) from None


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise StoreError(
            "the file {path} cannot be read: {strerror}.", path=path, strerror=error.strerror
        ) from None


def show(result: Result) -> None:
    """For people."""
    for sweep in result["sweeps"]:
        counts = ", ".join(f"{n} {state}" for state, n in sorted(sweep["counts"].items()))
        print(f"sweep {sweep['id']} {sweep['state']} {sweep['name'] or '(no name)'}: {counts}")
    show_rows(result["runs"])
    print(f"{len(result['runs'])} runs in {result['store']}")
