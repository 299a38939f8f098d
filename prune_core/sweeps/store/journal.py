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
from prune_core.sentences import Sentence, packed, unpacked
from prune_core.sweeps.records import Cell, Run, Sweep
from prune_core.sweeps.store.leases import LEASE, MAX_LEASE, Worker
from prune_core.sweeps.store.opening import default_url, open_database
from prune_core.sweeps.store.portable import (
    cell_from_dict,
    cell_to_dict,
    kept_numbers,
    run_from_bytes,
    run_from_dict,
    run_to_dict,
)
from prune_core.sweeps.store.protocol import Ask, Row
from prune_core.sweeps.store.schema import migrate

MAX_ATTEMPTS = 3
"""A cell that went wrong that often is given up."""

MAX_NOTE = 4000
SWEEP_STATES = ("active", "paused", "cancelled")

_LOST = Sentence("The process that measured this cell ended.")
"""No fault of the cell: whoever resumes a sweep that was killed often must not be refused."""


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


class RunStore:
    """A store of sweeps and runs; usable from any thread.

    Args:
        url: a path, ``sqlite:///PATH`` or ``postgresql://…``; None for ``PRUNE_STORE`` or a file
            in the user's data folder.

    Raises:
        StoreError: it cannot be opened, is damaged, another program's or from a newer version.
            All methods raise it where the store is locked, full, read-only or gone.
    """

    def __init__(self, url: str | None = None) -> None:
        self._database = open_database(url or default_url())
        try:
            migrate(self._database)
        except BaseException:
            self._database.close()
            raise

    @property
    def name(self) -> str:
        """Where it is, for people; never a password."""
        return self._database.name

    @property
    def read_only(self) -> bool:
        """Nothing can be written: it is shown, not changed."""
        return self._database.read_only

    def close(self) -> None:
        """Give the connection back."""
        self._database.close()

    # ---- reading ---------------------------------------------------------------------------

    def runs(
        self, *, sweep: str | None = None, ids: Sequence[str] | None = None, search: str = ""
    ) -> list[Run]:
        """Runs in the order they were asked for; deleted ones are left out.

        Args:
            sweep: of this sweep only; ``""`` those of none.
            ids: these only, in the store's order.
            search: words that must all stand in the note, the recipe's names, the model, the
                text, the state or the id, whatever their case.
        """
        where, values = ["r.deleted IS NULL"], []
        if sweep is not None:
            where.append("coalesce(r.sweep, '') = ?")
            values.append(sweep)
        for word in search.lower().split():
            where.append(
                "(lower(r.note) LIKE ? ESCAPE '!' OR r.words LIKE ? ESCAPE '!' OR r.state = ?)"
            )
            values += [_like_pattern(word), _like_pattern(word), word]
        unique_ids = None if ids is None else list(dict.fromkeys(ids))
        parts = (
            [None]
            if unique_ids is None
            else [unique_ids[i : i + 400] for i in range(0, len(unique_ids), 400)]
        )
        rows: list[Row] = []
        with self._database.transaction(write=False) as ask:
            for part in parts:
                limit = [] if part is None else [f"r.id IN ({','.join('?' * len(part))})"]
                rows += ask(
                    f"SELECT * FROM prune_runs r WHERE {' AND '.join([*where, *limit])}",
                    [*values, *(part or [])],
                )
        return [_run(row) for row in sorted(rows, key=lambda row: row["number"])]

    def sweeps(self) -> list[Sweep]:
        """All sweeps, the newest first; deleted ones are left out."""
        with self._database.transaction(write=False) as ask:
            return self._sweeps(ask, "s.deleted IS NULL", ())

    def sweep(self, sweep: str) -> Sweep:
        """One sweep.

        Raises:
            StoreError: there is no such sweep.
        """
        with self._database.transaction(write=False) as ask:
            sweeps = self._sweeps(ask, "s.deleted IS NULL AND s.id = ?", (sweep,))
        if not sweeps:
            raise StoreError(
                "there is no sweep {sweep} in the store {store}.", sweep=sweep, store=self.name
            )
        return sweeps[0]

    @staticmethod
    def _sweeps(ask: Ask, where: str, values: Sequence[Any]) -> list[Sweep]:
        counts: dict[str, dict[str, int]] = {}
        for row in ask(
            "SELECT sweep, state, count(*) AS n FROM prune_runs "
            "WHERE sweep IS NOT NULL AND deleted IS NULL GROUP BY sweep, state"
        ):
            counts.setdefault(row["sweep"], {})[row["state"]] = int(row["n"])
        rows = ask(
            f"SELECT * FROM prune_sweeps s WHERE {where} ORDER BY s.created DESC, s.id", values
        )
        return [
            Sweep(
                row["id"],
                row["name"],
                json.loads(row["grid"]),
                row["created"],
                row["state"],
                row["origin"],
                row["note"],
                counts.get(row["id"], {}),
            )
            for row in rows
        ]

    def errors(self, run: str) -> list[dict[str, Any]]:
        """What went wrong with a run, attempt by attempt: ``attempt``, ``at``, ``error``."""
        with self._database.transaction(write=False) as ask:
            rows = ask(
                "SELECT attempt, at, error FROM prune_errors WHERE run = ? ORDER BY number", (run,)
            )
        return [{**row, "error": unpacked(row["error"])} for row in rows]

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

    # ---- working ---------------------------------------------------------------------------

    def claim(
        self,
        worker: Worker,
        lease: float = LEASE,
        *,
        sweep: str | None = None,
        shard: tuple[int, int] = (1, 1),
        ids: Sequence[str] | None = None,
    ) -> Run | None:
        """Take the next cell that nobody works on; None if there is none.

        A cell whose worker gave no sign of life within its lease, or is known to have ended, is
        taken over.

        Args:
            worker: who takes it.
            lease: seconds it may be silent.
            sweep: of this sweep only; None for every ``app`` sweep that is active.
            shard: (i, n): the i-th of n parts of equal length, of a sweep's cells in their order.
            ids: one of these only.
        """
        if not 0 < lease <= MAX_LEASE:
            raise StoreError(
                "a lease lasts up to {most:.0f} seconds, got {lease}.", most=MAX_LEASE, lease=lease
            )
        where, values = "deleted IS NULL", list[Any]()
        if sweep is None:
            where += (
                " AND sweep IN (SELECT id FROM prune_sweeps WHERE origin = 'app' "
                "AND state = 'active' AND deleted IS NULL)"
            )
        else:
            where += " AND sweep = ?"
            values.append(sweep)
        if ids is not None:
            where += f" AND id IN ({','.join('?' * len(ids))})"
            values += ids
        with self._database.transaction(write=True) as ask:
            if sweep is not None and shard != (1, 1):
                low, high = self._shard(ask, sweep, shard)
                where += " AND place >= ? AND place < ?"
                values += [low, high]
            name, now, wall = self._database.clock(ask)
            out = (
                "(lease_clock = ? AND (lease_ends < ? OR lease_ends > ?)) "
                "OR (lease_clock <> ? AND (lease_wall < ? OR lease_wall > ?))"
            )
            late = [name, now, now + MAX_LEASE, name, wall, wall + MAX_LEASE]
            self._free_lost(ask, where, values, out, late)
            rows = ask(
                "UPDATE prune_runs SET state = 'running', attempts = attempts + 1, worker = ?, "
                "lease_clock = ?, lease_ends = ?, lease_wall = ? WHERE number = ("
                f"SELECT number FROM prune_runs WHERE {where} AND state = 'pending' "
                f"ORDER BY number LIMIT 1 {self._database.skip_locked}) RETURNING *",
                [str(worker), name, now + lease, wall + lease, *values],
            )
        return _run(rows[0]) if rows else None

    @staticmethod
    def _shard(ask: Ask, sweep: str, shard: tuple[int, int]) -> tuple[int, int]:
        part, parts = shard
        total = ask("SELECT count(*) AS n FROM prune_runs WHERE sweep = ?", (sweep,))[0]["n"]
        return total * (part - 1) // parts, total * part // parts

    def _free_lost(
        self, ask: Ask, where: str, values: Sequence[Any], out: str, late: Sequence[Any]
    ) -> None:
        """Free cells whose lease ran out, and those of workers known to have ended at once."""
        rows = ask(
            f"SELECT id, worker, attempts, CASE WHEN {out} THEN 1 ELSE 0 END AS late "
            f"FROM prune_runs WHERE {where} AND state = 'running'",
            [*late, *values],
        )
        for row in rows:
            holder = Worker.parse(row["worker"] or "")
            if not row["late"] and (holder is None or not holder.is_gone):
                continue
            freed = ask(
                "UPDATE prune_runs SET state = 'pending', worker = NULL WHERE id = ? "
                "AND worker = ? AND attempts = ? AND state = 'running' RETURNING id",
                (row["id"], row["worker"], row["attempts"]),
            )
            if freed:
                self._note_error(ask, row["id"], row["attempts"], row["worker"], _LOST)

    def heartbeat(self, worker: Worker, lease: float = LEASE) -> int:
        """A sign of life: extends all leases of a worker; returns how many it still holds."""
        with self._database.transaction(write=True) as ask:
            name, now, wall = self._database.clock(ask)
            rows = ask(
                "UPDATE prune_runs SET lease_clock = ?, lease_ends = ?, lease_wall = ? "
                "WHERE worker = ? AND state = 'running' RETURNING id",
                (name, now + lease, wall + lease, str(worker)),
            )
        return len(rows)

    def release(self, worker: Worker) -> int:
        """Give back what a worker holds, without counting the attempt; returns how many."""
        with self._database.transaction(write=True) as ask:
            rows = ask(
                "UPDATE prune_runs SET state = 'pending', attempts = attempts - 1, worker = NULL "
                "WHERE worker = ? AND state = 'running' RETURNING id",
                (str(worker),),
            )
        return len(rows)

    def finish(self, run_id: str, numbers: Mapping[str, Any]) -> bool:
        """Write down what a run found; False if it was done already, which changes nothing."""
        with self._database.transaction(write=True) as ask:
            rows = ask(
                "UPDATE prune_runs SET state = 'done', numbers = ?, error = NULL, finished = ?, "
                "lease_ends = NULL WHERE id = ? AND state <> 'done' RETURNING id",
                (json.dumps(kept_numbers(numbers)), time.time(), run_id),
            )
        return bool(rows)

    def refine(self, run_id: str, numbers: Mapping[str, Any], *, windows: int) -> bool:
        """Replace a done run's numbers by ones over more windows.

        Args:
            run_id: which.
            numbers: over more windows than before.
            windows: how many the numbers had that were refined; otherwise nothing changes.
        """
        with self._database.transaction(write=True) as ask:
            rows = ask("SELECT numbers FROM prune_runs WHERE id = ? AND state = 'done'", (run_id,))
            if not rows or json.loads(rows[0]["numbers"]).get("windows") != windows:
                return False
            ask(
                "UPDATE prune_runs SET numbers = ?, finished = ? WHERE id = ?",
                (json.dumps(kept_numbers(numbers)), time.time(), run_id),
            )
        return True

    def fail(self, run_id: str, error: str, *, again: bool = False) -> None:
        """Write down that an attempt went wrong.

        Args:
            run_id: which.
            error: one sentence.
            again: the cell is free for another attempt, unless it went wrong
                :data:`MAX_ATTEMPTS` times.
        """
        with self._database.transaction(write=True) as ask:
            rows = ask(
                "SELECT attempts, worker FROM prune_runs WHERE id = ? AND state <> 'done'",
                (run_id,),
            )
            wrong = ask(
                "SELECT count(*) AS n FROM prune_errors WHERE run = ? AND error <> ?",
                (run_id, packed(_LOST)),
            )[0]["n"]
            for row in rows:
                if again and wrong + 1 < MAX_ATTEMPTS:
                    self._note_error(ask, run_id, row["attempts"], row["worker"], error)
                    ask(
                        "UPDATE prune_runs SET state = 'pending', worker = NULL WHERE id = ?",
                        (run_id,),
                    )
                else:
                    self._fail(ask, run_id, row["attempts"], row["worker"], error)

    def retry(self, sweep: str) -> int:
        """Free the failed cells of a sweep for new attempts; returns how many."""
        with self._database.transaction(write=True) as ask:
            rows = ask(
                "UPDATE prune_runs SET state = 'pending', error = NULL, finished = NULL, "
                "worker = NULL WHERE sweep = ? AND state = 'failed' "
                "AND deleted IS NULL RETURNING id",
                (sweep,),
            )
            for row in rows:
                ask("DELETE FROM prune_errors WHERE run = ?", (row["id"],))
        return len(rows)

    @staticmethod
    def _note_error(ask: Ask, run: str, attempt: int, worker: str | None, error: str) -> None:
        ask(
            "INSERT INTO prune_errors (run, attempt, at, worker, error) VALUES (?, ?, ?, ?, ?)",
            (run, attempt, time.time(), worker, packed(error)),
        )

    def _fail(self, ask: Ask, run: str, attempt: int, worker: str | None, error: str) -> None:
        self._note_error(ask, run, attempt, worker, error)
        ask(
            "UPDATE prune_runs SET state = 'failed', error = ?, finished = ?, lease_ends = NULL "
            "WHERE id = ?",
            (packed(error), time.time(), run),
        )

    def set_state(self, sweep: str, state: str) -> None:
        """Pause, go on with or cancel a sweep: ``paused``, ``active``, ``cancelled``.

        Raises:
            StoreError: no such state or sweep.
        """
        if state not in SWEEP_STATES:
            raise StoreError(
                "a sweep is {known:list}; got {state!r}.", known=SWEEP_STATES, state=state
            )
        with self._database.transaction(write=True) as ask:
            rows = ask(
                "UPDATE prune_sweeps SET state = ? WHERE id = ? AND deleted IS NULL RETURNING id",
                (state, sweep),
            )
        if not rows:
            raise StoreError(
                "there is no sweep {sweep} in the store {store}.", sweep=sweep, store=self.name
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
                existing = _run(rows[0])
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


def _like_pattern(word: str) -> str:
    """A LIKE pattern that finds a word as it stands."""
    for sign in "!%_":
        word = word.replace(sign, "!" + sign)
    return f"%{word}%"


def _run(row: Row) -> Run:
    return Run(
        row["id"],
        row["sweep"] or "",
        cell_from_dict(json.loads(row["cell"])),
        row["state"],
        json.loads(row["numbers"]),
        None if row["error"] is None else unpacked(row["error"]),
        row["note"],
        row["created"],
        row["finished"],
        row["attempts"],
    )
