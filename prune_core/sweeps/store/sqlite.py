"""A store in one SQLite file."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from prune_core import faults
from prune_core.errors import StoreError
from prune_core.sentences import Sentence
from prune_core.sweeps.store import leases as workers
from prune_core.sweeps.store.protocol import BUSY_SECONDS, Ask, Row

APPLICATION = 0x50727565  # in the header of SQLite files: they are ours

NETWORK_FILE_SYSTEMS = {"nfs", "nfs4", "cifs", "smb3", "smbfs", "9p", "fuse.sshfs", "glusterfs"}

CHECKED_BYTES = 64_000_000
"""Larger files are not read through when they are opened."""


def file_system(path: Path) -> str:
    """Kind of the file system that holds a path; empty where that is not known."""
    try:
        lines = Path("/proc/mounts").read_text().splitlines()
    except OSError:
        return ""
    best, kind = "", ""
    for line in lines:
        _, mount, name, *_ = line.split(" ")
        inside = str(path) == mount or str(path).startswith(mount.rstrip("/") + "/")
        if inside and len(mount) >= len(best):
            best, kind = mount, name
    return kind


class SqliteDatabase:
    """A file: write-ahead log, one writer at a time, readers never wait.

    A file that cannot be written is opened read-only; one that is damaged or not ours is refused
    and left as it is.

    Raises:
        StoreError: with what to do.
    """

    serial = "INTEGER PRIMARY KEY AUTOINCREMENT"
    skip_locked = ""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self.name = str(path)
        self._lock = threading.RLock()
        self.read_only = False
        try:
            if not self.path.exists():
                self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            elif self.path.is_dir():
                raise StoreError("the store {name} is a folder; name a file in it.", name=self.name)
            else:
                folder = self.path.parent
                writable = os.access(self.path, os.W_OK) and os.access(folder, os.W_OK)
                self.read_only = not writable
        except OSError as error:
            raise StoreError(
                "the store {name} cannot be made ({reason}); name another place with --store or "
                "PRUNE_STORE.",
                name=self.name,
                reason=error.strerror,
            ) from None
        with self._translated_errors():
            self._connection = self._open()

    def _open(self) -> sqlite3.Connection:
        # without a write-ahead log of its own a file in a read-only folder must not change
        settled = not self.path.with_name(self.path.name + "-wal").exists()
        suffix = ("?mode=ro" + ("&immutable=1" if settled else "")) if self.read_only else ""
        connection = sqlite3.connect(
            self.path.as_uri() + suffix,
            uri=True,
            timeout=BUSY_SECONDS,
            isolation_level=None,
            check_same_thread=False,
        )
        connection.row_factory = sqlite3.Row
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: sqlite3.Connection) -> None:
        owner = connection.execute("PRAGMA application_id").fetchone()[0]
        tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if owner != APPLICATION and (owner or tables):
            raise StoreError(
                "the file {name} is a database of another program; name another store.",
                name=self.name,
            )
        size = self.path.stat().st_size if self.path.exists() else 0
        if 0 < size <= CHECKED_BYTES:
            verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
            if verdict != "ok":
                raise sqlite3.DatabaseError("malformed")
        if self.read_only:
            return
        shared = file_system(self.path.resolve()) in NETWORK_FILE_SYSTEMS
        # the log's shared memory does not reach over a network
        connection.execute(f"PRAGMA journal_mode={'DELETE' if shared else 'WAL'}")
        connection.execute("PRAGMA synchronous=NORMAL")
        connection.execute("PRAGMA foreign_keys=ON")
        if owner != APPLICATION:
            connection.execute(f"PRAGMA application_id={APPLICATION}")

    @contextlib.contextmanager
    def _translated_errors(self) -> Iterator[None]:
        """SQLite's errors as one sentence."""
        try:
            yield
        except sqlite3.Error as error:
            raise StoreError(self._sentence(error)) from error
        except OSError as error:
            raise StoreError(
                "the store {name}: {reason}.", name=self.name, reason=error.strerror or error
            ) from error

    def _sentence(self, error: sqlite3.Error) -> Sentence:
        code = (getattr(error, "sqlite_errorcode", None) or 0) & 0xFF
        text = str(error)
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            return Sentence(
                "the store {name} is locked by another program; close that program or try again "
                "in a moment.",
                name=self.name,
            )
        if code in (sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR):
            return Sentence(
                "the disk did not take what was to be written to the store {name} ({reason}); "
                "make room, then resume: nothing that was stored is lost.",
                name=self.name,
                reason=text,
            )
        if code == sqlite3.SQLITE_READONLY:
            return Sentence(
                "the store {name} is read-only; name another with --store or PRUNE_STORE.",
                name=self.name,
            )
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "malformed" in text:
            return Sentence(
                "the store {name} is damaged; it was left as it is. Move it away, or name another "
                "with --store or PRUNE_STORE.",
                name=self.name,
            )
        if code == sqlite3.SQLITE_CANTOPEN:
            return Sentence(
                "the store {name} cannot be opened; name another with --store.", name=self.name
            )
        return Sentence("the store {name} failed: {reason}.", name=self.name, reason=text)

    @contextlib.contextmanager
    def transaction(self, *, write: bool) -> Iterator[Ask]:
        """See :class:`Database`."""
        if write and self.read_only:
            raise StoreError(
                "the store {name} is read-only; name another with --store or PRUNE_STORE.",
                name=self.name,
            )
        with self._lock, self._translated_errors():
            self._connection.execute("BEGIN IMMEDIATE" if write else "BEGIN")
            try:
                yield self._ask
                if write:
                    faults.point("store.commit")
                self._connection.execute("COMMIT")
            except BaseException:
                # some errors have ended the transaction already
                if self._connection.in_transaction:
                    self._connection.execute("ROLLBACK")
                raise

    def _ask(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        return [dict(row) for row in self._connection.execute(statement, tuple(parameters))]

    def clock(self, ask: Ask) -> tuple[str, float, float]:
        """See :class:`Database`: this boot's clock."""
        return workers.boot(), workers.clock(), time.time()

    def close(self) -> None:
        """See :class:`Database`."""
        with self._lock:
            self._connection.close()
