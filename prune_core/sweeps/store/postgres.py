"""Postgres as a store: several machines on one sweep. Needs ``requirements-scale.txt``."""

from __future__ import annotations

import contextlib
import re
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from prune_core.errors import StoreError
from prune_core.sweeps.store.protocol import BUSY_SECONDS, Ask, Row


class PostgresDatabase:
    """A Postgres database by URL; its server's clock decides about leases.

    Raises:
        StoreError: the driver is missing, or the server does not answer.
    """

    serial = "BIGINT GENERATED ALWAYS AS IDENTITY PRIMARY KEY"
    skip_locked = "FOR UPDATE SKIP LOCKED"
    read_only = False

    def __init__(self, url: str) -> None:
        try:
            import psycopg
        except ImportError:
            raise StoreError(
                "a Postgres store needs its driver; run pip install -r requirements-scale.txt."
            ) from None
        self._psycopg: Any = psycopg
        self._url = url
        # a URL may carry a password, and messages are shown
        self.name = re.sub(r"//[^@/]*@", "//", url).partition("?")[0]
        self._lock = threading.RLock()
        self._connection: Any = self._connect()

    def _connect(self) -> Any:
        from psycopg.rows import dict_row

        try:
            connection = self._psycopg.connect(
                self._url, autocommit=True, row_factory=dict_row, connect_timeout=5
            )
            connection.execute(f"SET lock_timeout = {int(BUSY_SECONDS * 1000)}")
        except self._psycopg.Error:
            raise StoreError(
                "the store {name} does not answer; check that the server runs and that name and "
                "password are right.",
                name=self.name,
            ) from None
        return connection

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Ask]:
        """See :class:`prune_core.sweeps.store.protocol.Database`."""
        errors = self._psycopg.errors
        with self._lock:
            if self._connection.closed or self._connection.broken:
                self._connection = self._connect()
            try:
                with self._connection.transaction():
                    yield self._ask
            except errors.LockNotAvailable as error:
                raise StoreError(
                    "the store {name} is locked by another program; try again in a moment.",
                    name=self.name,
                ) from error
            except (errors.ReadOnlySqlTransaction, errors.InsufficientPrivilege) as error:
                raise StoreError(
                    "the store {name} is read-only for this user; name another with --store.",
                    name=self.name,
                ) from error
            except errors.DiskFull as error:
                raise StoreError(
                    "the disk of the store {name} is full; make room, then resume: nothing that "
                    "was stored is lost.",
                    name=self.name,
                ) from error
            except self._psycopg.OperationalError as error:
                raise StoreError(
                    "the store {name} went away; nothing that was stored is lost.", name=self.name
                ) from error
            except self._psycopg.Error as error:
                raise StoreError(
                    "the store {name} failed: {reason}.",
                    name=self.name,
                    reason=type(error).__name__,
                ) from error

    def _ask(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        cursor = self._connection.execute(statement.replace("?", "%s"), tuple(parameters))
        return list(cursor) if cursor.description is not None else []

    def clock(self, ask: Ask) -> tuple[str, float, float]:
        """See :class:`prune_core.sweeps.store.protocol.Database`: the server's."""
        row = ask("SELECT extract(epoch FROM clock_timestamp())::double precision AS now")[0]
        return "server", float(row["now"]), time.time()

    def close(self) -> None:
        """See :class:`prune_core.sweeps.store.protocol.Database`."""
        with self._lock:
            self._connection.close()
