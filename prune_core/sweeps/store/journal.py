"""The journal: what was asked, by whom it is being measured, what was found. No torch here.

Every change is one transaction. A cell is claimed by one statement, so two workers never hold it
at once; whoever claims gives signs of life, and a claim without them runs out. A cell ends exactly
once: the second of two ends changes nothing, and says so.
"""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from prune_core.errors import StoreError
from prune_core.sentences import packed
from prune_core.sweeps.records import Cell, Run, Sweep
from prune_core.sweeps.store.claims import RunClaims
from prune_core.sweeps.store.portable import (
    cell_to_dict,
    kept_numbers,
    run_from_bytes,
    run_from_dict,
    run_to_dict,
)
from prune_core.sweeps.store.protocol import Ask
from prune_core.sweeps.store.reading import run_of

MAX_NOTE = 4000


class GridLike(Protocol):
    """What the store needs of a grid; see ``prune_core.sweeps.grid.Grid``."""

    @property
    def name(self) -> str:
        """What the user calls it."""
        ...

    @property
    def fingerprint(self) -> str:
        """Equal for equal grids."""
        ...

    def cells(self) -> Sequence[Cell]:
        """What is to be measured, in the order it should be."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        ...


class RunStore(RunClaims):
    """A store of sweeps and runs: what is asked, kept in order, handed over.

    See :class:`prune_core.sweeps.store.reading.RunReader` for its arguments and errors.
    """

    # ---- asking ----------------------------------------------------------------------------

    def find_sweep(self, grid: GridLike) -> Sweep | None:
        """The newest sweep of an equal grid that is not deleted."""
        with self._database.transaction(write=False) as ask:
            sweeps = self._sweeps(
                ask, "s.deleted IS NULL AND s.fingerprint = ?", (grid.fingerprint,)
            )
        return sweeps[0] if sweeps else None

    def add_sweep(self, grid: GridLike, *, origin: str = "cli", fresh: bool = False) -> str:
        """Ask for every cell of a grid; returns the sweep's id.

        An equal grid that is already there is not asked for again: its id is returned, so that
        several processes started with the same grid work on the same sweep.

        Args:
            grid: what to measure.
            origin: ``app`` sweeps are worked on by a server's background thread.
            fresh: ask again all the same.
        """
        cells = list({cell.key: cell for cell in grid.cells()}.values())
        now = time.time()
        with self._database.transaction(write=True) as ask:
            if self._database.skip_locked:
                ask("LOCK TABLE prune_sweeps IN EXCLUSIVE MODE")
            if not fresh:
                rows = ask(
                    "SELECT id FROM prune_sweeps WHERE fingerprint = ? AND deleted IS NULL "
                    "ORDER BY created DESC, id LIMIT 1",
                    (grid.fingerprint,),
                )
                if rows:
                    return str(rows[0]["id"])
            sweep = _new_id()
            ask(
                "INSERT INTO prune_sweeps (id, name, grid, fingerprint, origin, state, note, "
                "created) VALUES (?, ?, ?, ?, ?, 'active', '', ?)",
                (sweep, grid.name, json.dumps(grid.to_dict()), grid.fingerprint, origin, now),
            )
            for place, cell in enumerate(cells):
                self._insert(ask, Run(_new_id(), sweep, cell, created=now), place)
        return sweep

    def save_run(self, cell: Cell, numbers: Mapping[str, Any], *, note: str = "") -> str:
        """Keep one measurement that belongs to no sweep; returns the run's id."""
        now = time.time()
        run = Run(_new_id(), "", cell, "done", dict(numbers), None, note[:MAX_NOTE], now, now, 1)
        with self._database.transaction(write=True) as ask:
            self._insert(ask, run, 0)
        return run.id

    @staticmethod
    def _insert(ask: Ask, run: Run, place: int) -> None:
        cell = run.cell
        recipe, text = cell.recipe, cell.text
        words = [run.id, cell.source, recipe.criterion, recipe.pattern, recipe.allocation]
        words += [recipe.reconstruction, f"{recipe.sparsity:g}", f"{recipe.sparsity:.0%}"]
        words += [text.value if text.kind != "inline" else "inline"]
        ask(
            "INSERT INTO prune_runs (id, sweep, place, key, cell, words, state, numbers, error, "
            "note, created, finished, attempts) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                run.id,
                run.sweep or None,
                place,
                cell.key,
                json.dumps(cell_to_dict(cell)),
                " ".join(words).lower().replace("\0", ""),
                run.state,
                json.dumps(kept_numbers(run.numbers)),
                None if run.error is None else packed(run.error),
                run.note,
                run.created,
                run.finished,
                run.attempts,
            ),
        )

    # ---- keeping order ---------------------------------------------------------------------

    def note(self, id: str, text: str) -> None:
        """Write the user's own words beside a run or a sweep.

        Raises:
            StoreError: there is neither of that id, or the note is too long.
        """
        if len(text) > MAX_NOTE:
            raise StoreError(
                "a note has at most {most} characters, this one {count}.",
                most=MAX_NOTE,
                count=len(text),
            )
        text = text.replace("\0", "")
        with self._database.transaction(write=True) as ask:
            rows = [
                row
                for table in ("prune_runs", "prune_sweeps")
                for row in ask(
                    f"UPDATE {table} SET note = ? WHERE id = ? AND deleted IS NULL RETURNING id",
                    (text, id),
                )
            ]
        if not rows:
            raise StoreError("there is no run {id} in the store {store}.", id=id, store=self.name)

    def delete(self, ids: Sequence[str]) -> list[str]:
        """Hide runs, and with a sweep's id all of its runs; :meth:`restore` brings them back.

        Returns:
            The ids of what was hidden now: what ``restore`` needs to undo exactly this.

        Raises:
            StoreError: an id that is not there; then nothing is hidden.
        """
        return self._set_deleted(ids, time.time())

    def restore(self, ids: Sequence[str]) -> list[str]:
        """Undo :meth:`delete`; returns the ids that came back.

        Raises:
            StoreError: an id that was never there; then nothing comes back.
        """
        return self._set_deleted(ids, None)

    def _set_deleted(self, ids: Sequence[str], when: float | None) -> list[str]:
        changed: list[str] = []
        now = "IS NULL" if when is not None else "IS NOT NULL"
        with self._database.transaction(write=True) as ask:
            for id in dict.fromkeys(ids):
                runs = ask("SELECT id FROM prune_runs WHERE id = ?", (id,))
                sweeps = ask("SELECT id FROM prune_sweeps WHERE id = ?", (id,))
                if not runs and not sweeps:
                    raise StoreError(
                        "there is no run {id} in the store {store}.", id=id, store=self.name
                    )
                for table, column in (
                    ("prune_sweeps", "id"),
                    ("prune_runs", "id" if runs else "sweep"),
                ):
                    rows = ask(
                        f"UPDATE {table} SET deleted = ? WHERE {column} = ? AND deleted {now} "
                        "RETURNING id",
                        (when, id),
                    )
                    changed += [str(row["id"]) for row in rows]
        return changed

    # ---- files -----------------------------------------------------------------------------

    def export_run(self, id: str) -> bytes:
        """A finished run as a JSON file that :meth:`import_run` of another store takes in.

        Raises:
            StoreError: no such run, or it is not finished.
        """
        runs = self.runs(ids=[id])
        if not runs:
            raise StoreError("there is no run {id} in the store {store}.", id=id, store=self.name)
        if runs[0].state not in ("done", "failed"):
            raise StoreError(
                "the run {id} is not finished; only finished runs are exported.", id=id
            )
        data = run_to_dict(runs[0])
        return json.dumps(data, allow_nan=False, sort_keys=True, indent=1).encode() + b"\n"

    def import_run(self, content: bytes | Mapping[str, Any]) -> str:
        """Take in what :meth:`export_run` wrote; returns the run's id in this store.

        The same run twice is one run. A run that was deleted here comes back. Its sweep is kept
        only where this store has it, without that cell.

        Raises:
            StoreError: not a run, damaged, unfinished, or from a newer version.
        """
        run = run_from_bytes(content) if isinstance(content, bytes) else run_from_dict(content)
        with self._database.transaction(write=True) as ask:
            rows = ask("SELECT * FROM prune_runs WHERE id = ?", (run.id,))
            if rows:
                existing = run_of(rows[0])
                if (existing.cell, dict(existing.numbers)) == (run.cell, kept_numbers(run.numbers)):
                    ask("UPDATE prune_runs SET deleted = NULL WHERE id = ?", (run.id,))
                    return run.id
            new = _new_id() if rows or not run.id.isalnum() or len(run.id) > 40 else run.id
            sweeps = ask(
                "SELECT s.id FROM prune_sweeps s WHERE s.id = ? AND NOT EXISTS ("
                "SELECT 1 FROM prune_runs r WHERE r.sweep = s.id AND r.key = ?)",
                (run.sweep, run.cell.key),
            )
            home = run.sweep if sweeps else ""
            copy = Run(
                new,
                home,
                run.cell,
                run.state,
                run.numbers,
                run.error,
                run.note[:MAX_NOTE],
                run.created,
                run.finished,
                run.attempts,
            )
            self._insert(ask, copy, 0)
        return new


def _new_id() -> str:
    return uuid.uuid4().hex[:12]
