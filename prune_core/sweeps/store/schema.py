"""Tables of the store and how older ones become newer. Never a step back: see ``migrate``."""

from __future__ import annotations

from prune_core.errors import StoreError
from prune_core.sweeps.store.protocol import Ask, Database

SCHEMA = 1

_FIRST = (
    """CREATE TABLE prune_sweeps (
        id TEXT PRIMARY KEY,
        name TEXT NOT NULL,
        grid TEXT NOT NULL,
        fingerprint TEXT NOT NULL,
        origin TEXT NOT NULL,
        state TEXT NOT NULL,
        note TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        deleted DOUBLE PRECISION
    )""",
    """CREATE TABLE prune_runs (
        number {serial},
        id TEXT NOT NULL UNIQUE,
        sweep TEXT REFERENCES prune_sweeps(id),
        place INTEGER NOT NULL,
        key TEXT NOT NULL,
        cell TEXT NOT NULL,
        words TEXT NOT NULL,
        state TEXT NOT NULL,
        numbers TEXT NOT NULL,
        error TEXT,
        note TEXT NOT NULL,
        created DOUBLE PRECISION NOT NULL,
        finished DOUBLE PRECISION,
        attempts INTEGER NOT NULL,
        worker TEXT,
        lease_clock TEXT,
        lease_ends DOUBLE PRECISION,
        lease_wall DOUBLE PRECISION,
        deleted DOUBLE PRECISION,
        UNIQUE (sweep, key)
    )""",
    "CREATE INDEX prune_runs_state ON prune_runs (state, number)",
    """CREATE TABLE prune_errors (
        number {serial},
        run TEXT NOT NULL REFERENCES prune_runs(id),
        attempt INTEGER NOT NULL,
        at DOUBLE PRECISION NOT NULL,
        worker TEXT,
        error TEXT NOT NULL
    )""",
)

MIGRATIONS: tuple[tuple[str, ...], ...] = (_FIRST,)
"""Statements that bring a store from schema i to i + 1, each in one transaction."""


def migrate(database: Database) -> None:
    """Bring a store to this version's schema; an empty one becomes a store.

    Raises:
        StoreError: it was written by a newer version, or is empty and read-only.
    """
    with database.transaction(write=False) as ask:
        version = _version(database, ask)
    if version > SCHEMA:
        raise StoreError(
            "the store {name} was written by a newer version of Prunescope (schema {found}, this "
            "one knows {known}); update Prunescope or name another store.",
            name=database.name,
            found=version,
            known=SCHEMA,
        )
    if version == SCHEMA:
        return
    with database.transaction(write=True) as ask:
        if database.skip_locked:  # two processes that meet an empty database
            ask("SELECT pg_advisory_xact_lock(1347769669)")
        version = _version(database, ask)  # another process may have been faster
        for step in range(version, SCHEMA):
            for statement in MIGRATIONS[step]:
                ask(statement.replace("{serial}", database.serial))
        if version < SCHEMA:
            _set_version(database, ask)


def _version(database: Database, ask: Ask) -> int:
    if not database.skip_locked:
        return int(next(iter(ask("PRAGMA user_version")[0].values())))
    if ask("SELECT to_regclass('prune_schema') AS found")[0]["found"] is None:
        return 0
    return int(ask("SELECT version FROM prune_schema")[0]["version"])


def _set_version(database: Database, ask: Ask) -> None:
    if not database.skip_locked:
        ask(f"PRAGMA user_version = {SCHEMA}")
        return
    ask("CREATE TABLE IF NOT EXISTS prune_schema (version INTEGER NOT NULL)")
    ask("DELETE FROM prune_schema")
    ask("INSERT INTO prune_schema VALUES (?)", (SCHEMA,))
