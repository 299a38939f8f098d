"""The compute worker: a process of its own that owns the models. ``-m prune_core.engine.worker``.

It speaks with the process that started it over an authenticated local connection and ends when
that closes. One thread reads, so that a cancel is seen at once; the main thread computes.
"""

from __future__ import annotations

import logging
import os
import queue
import sys
import threading
from multiprocessing.connection import Client, Connection
from typing import Any

from prune_core import faults
from prune_core.errors import Cancelled, PruneCoreError
from prune_core.progress import Progress
from prune_core.sentences import Sentence

log = logging.getLogger(__name__)

ADDRESS = "PRUNE_WORKER_ADDRESS"
SECRET = "PRUNE_WORKER_SECRET"


class _Inbox:
    """Reads messages: jobs go to a queue, cancels to a set that the running job polls."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self.waiting: queue.Queue[tuple[int, Any] | None] = queue.Queue()
        self.cancelled: set[int] = set()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        try:
            while True:
                kind, number, job = self._connection.recv()
                if kind == "run":
                    self.waiting.put((number, job))
                elif kind == "cancel":
                    self.cancelled.add(number)
        except (EOFError, OSError):
            # whoever started this process is gone; a computation must not outlive its reader
            self.waiting.put(None)
            os._exit(0)


def _run(core: Any, inbox: _Inbox, connection: Connection, number: int, job: Any) -> None:
    def emit(event: dict[str, Any]) -> None:
        faults.point("worker.event")
        connection.send(("event", number, event))

    try:
        result = core.run(job, Progress(emit, lambda: number in inbox.cancelled))
        connection.send(("done", number, result))
    except Cancelled:
        connection.send(("cancelled", number, None))
    except PruneCoreError as error:
        connection.send(("failed", number, error.sentence))
    except Exception as error:
        log.exception("job %s failed", type(job).__name__)
        connection.send(("failed", number, unexpected(error)))
    finally:
        inbox.cancelled.discard(number)


def unexpected(error: Exception) -> Sentence:
    """The one sentence shown for a fault that nobody foresaw; the log has the rest."""
    return Sentence(
        "Something went wrong inside Prunescope ({kind}); the log says more.",
        kind=type(error).__name__,
    )


def main() -> int:
    """Connect to the parent, import torch, serve jobs until the connection closes."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    address, secret = os.environ.get(ADDRESS), os.environ.pop(SECRET, None)
    if not address or not secret:
        sys.stderr.write("The worker is started by Prunescope, not by hand.\n")
        return 2
    connection = Client(address, authkey=bytes.fromhex(secret))
    inbox = _Inbox(connection)
    from prune_core.engine.core import Core  # torch comes in here, after the parent is answered
    from prune_core.models import load  # noqa: F401 - transformers too, before the first job

    core = Core()
    while (item := inbox.waiting.get()) is not None:
        _run(core, inbox, connection, *item)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
