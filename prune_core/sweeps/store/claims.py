"""Who measures which cell of a sweep. No torch here.

A cell is claimed by one statement, so two workers never hold it at once; whoever claims gives signs
of life, and a claim without them runs out. A cell ends exactly once: the second of two ends changes
nothing, and says so.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping, Sequence
from typing import Any

from prune_core.errors import StoreError
from prune_core.sentences import Sentence, packed
from prune_core.sweeps.records import Run
from prune_core.sweeps.store.leases import LEASE, MAX_LEASE, Worker
from prune_core.sweeps.store.portable import (
    kept_numbers,
)
from prune_core.sweeps.store.protocol import Ask
from prune_core.sweeps.store.reading import RunReader, run_of

MAX_ATTEMPTS = 3
"""A cell that went wrong that often is given up."""

SWEEP_STATES = ("active", "paused", "cancelled")

_LOST = Sentence("The process that measured this cell ended.")
"""No fault of the cell: whoever resumes a sweep that was killed often must not be refused."""


class RunClaims(RunReader):
    """A store whose cells are measured by one worker each."""

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
        return run_of(rows[0]) if rows else None

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
