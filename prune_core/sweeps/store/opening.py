"""One way to two databases: SQLite from the standard library, Postgres where a URL asks for it."""

from __future__ import annotations

import os
from pathlib import Path

from prune_core.errors import StoreError
from prune_core.paths import data_root
from prune_core.sweeps.store.protocol import Database
from prune_core.sweeps.store.sqlite import SqliteDatabase


def default_url() -> str:
    """``PRUNE_STORE``, or a file ``runs.sqlite`` among the user's data."""
    return os.environ.get("PRUNE_STORE") or str(data_root() / "runs.sqlite")


def open_database(url: str) -> Database:
    """Open by URL: ``postgresql://…``, ``sqlite:///PATH`` or a path.

    Raises:
        StoreError: see :class:`SqliteDatabase` and ``prune_core.sweeps.store.postgres``.
    """
    if url.startswith(("postgresql://", "postgres://")):
        from prune_core.sweeps.store.postgres import PostgresDatabase

        return PostgresDatabase(url)
    path = url
    for prefix in ("sqlite:///", "sqlite:"):
        path = path.removeprefix(prefix)
    if "://" in path or not path.strip() or "\0" in path:
        raise StoreError(
            "a store is a file, sqlite:///FILE or postgresql://USER@HOST/NAME; got {scheme!r}.",
            scheme=path.split("://")[0],
        )
    return SqliteDatabase(Path(path).expanduser())
