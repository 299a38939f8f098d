"""Progress and cancel of long work, in one object that is handed down to whatever takes long.

Whoever asks for the work makes one of an *emit* and a *poll*; the work says where it is by
:meth:`Progress.step` and asks whether it is still wanted by :meth:`Progress.check`::

    def read(windows, progress=NONE):
        for done, window in enumerate(windows, start=1):
            progress.check("Cancelled while the text was read.")
            ...
            progress.step(done, len(windows))

    read(windows, Progress(emit, poll).stage("statistics"))

The work does not name its own stage where its caller knows better what it is for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from prune_core.errors import Cancelled

Event = dict[str, Any]
"""What is known while work runs, as plain data: ``stage``, ``done``, ``total``, ``unit`` or, of
some jobs, numbers of their own (see ``prune_core.jobs``). Each replaces the one before."""

Emit = Callable[[Event], None]

Poll = Callable[[], bool]
"""True once nobody wants the result any more."""


class Progress:
    """Where long work says how far it is, and asks whether to go on.

    Args:
        emit: given each event; None where nobody watches.
        cancelled: polled by the work; None where nobody can stop it.
        fields: part of every event.
        total: what :meth:`step` counts to, unless it says otherwise.
    """

    __slots__ = ("_emit", "_fields", "_poll", "_total")

    def __init__(
        self,
        emit: Emit | None = None,
        cancelled: Poll | None = None,
        *,
        fields: Event | None = None,
        total: float | None = None,
    ) -> None:
        self._emit, self._poll = emit, cancelled
        self._fields, self._total = fields or {}, total

    def stage(self, name: str, total: float | None = None, **fields: Any) -> Progress:
        """The progress of one part of the work: events name it, and a cancel of the whole stops it.

        Args:
            name: the events' ``stage``; empty for none of its own.
            total: what its steps count to; None where each step says.
            fields: more that its events carry, as ``unit="bytes"``.
        """
        if self._emit is None:
            return self
        named = {"stage": name} if name else {}
        return Progress(
            self._emit, self._poll, fields={**self._fields, **named, **fields}, total=total
        )

    def through(self, change: Callable[[Event], Event]) -> Progress:
        """The same, but every event is what ``change`` makes of it."""
        emit = self._emit
        if emit is None:
            return self
        return Progress(
            lambda event: emit(change(event)), self._poll, fields=self._fields, total=self._total
        )

    def silent(self) -> Progress:
        """The same without events: what can be stopped, but not watched."""
        return Progress(None, self._poll)

    def step(self, done: float, total: float | None = None) -> None:
        """Say that so much is done: an event with ``done`` and ``total``.

        Args:
            done: steps, bytes, windows: what the work counts in.
            total: of them; None for the stage's, 0 where it is not known.
        """
        if self._emit is not None:
            counted = self._total if total is None else total
            self._emit({**self._fields, "done": done, "total": counted})

    def tell(self, event: Event) -> None:
        """Send an event of the work's own."""
        if self._emit is not None:
            self._emit({**self._fields, **event})

    @property
    def cancelled(self) -> bool:
        """True once nobody wants the result; for work that ends well where it stands."""
        return self._poll is not None and self._poll()

    def check(self, sentence: str) -> None:
        """Stop here if nobody wants the result.

        Args:
            sentence: what was cancelled.

        Raises:
            Cancelled: with the sentence.
        """
        if self.cancelled:
            raise Cancelled(sentence)


NONE = Progress()
"""Nobody watches and nobody stops it: what long work is given unless its caller says otherwise."""
