"""What a store holds, as records. No torch here."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from prune_core.errors import StoreError
from prune_core.sentences import unpacked
from prune_core.sweeps.records import Run, Sweep
from prune_core.sweeps.store.opening import default_url, open_database
from prune_core.sweeps.store.portable import (
    cell_from_dict,
)
from prune_core.sweeps.store.protocol import Ask, Row
from prune_core.sweeps.store.schema import migrate


class RunReader:
    """What a store of sweeps and runs holds; usable from any thread.

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
        return [run_of(row) for row in sorted(rows, key=lambda row: row["number"])]

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


def _like_pattern(word: str) -> str:
    """A LIKE pattern that finds a word as it stands."""
    for sign in "!%_":
        word = word.replace(sign, "!" + sign)
    return f"%{word}%"


def run_of(row: Row) -> Run:
    """A row as a run."""
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
