"""What a store asks of the database beneath it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from typing import Any, Protocol

Row = dict[str, Any]

BUSY_SECONDS = 5.0


class Ask(Protocol):
    """Run a statement inside a transaction; ``?`` stands for a parameter."""

    def __call__(self, statement: str, parameters: Sequence[Any] = ()) -> list[Row]:
        """Its rows, if it gives any."""
        ...


class Database(Protocol):
    """What a store needs of a database.

    Attributes:
        name: for people, without a password.
        read_only: nothing can be written.
        serial: column type of a number that counts up.
        skip_locked: ends a subquery that picks a row nobody else picks.
    """

    name: str
    read_only: bool
    serial: str
    skip_locked: str

    def transaction(self, *, write: bool) -> contextlib.AbstractContextManager[Ask]:
        """All or nothing; writers one after the other.

        Raises:
            StoreError: locked, full, damaged, read-only or gone.
        """
        ...

    def clock(self, ask: Ask) -> tuple[str, float, float]:
        """Name of a clock that does not jump, its seconds, and the wall clock's."""
        ...

    def close(self) -> None:
        """Give the connection back."""
        ...
