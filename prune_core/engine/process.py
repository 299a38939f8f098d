"""The parent's side of the worker process: start it, send, receive, kill. No torch here."""

from __future__ import annotations

import contextlib
import os
import secrets
import subprocess
import sys
import threading
import time
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Listener
from typing import Any

from prune_core.engine.worker import ADDRESS, SECRET
from prune_core.errors import WorkerError
from prune_core.paths import PROJECT_ROOT

START_SECONDS = 60.0


class WorkerProcess:
    """A running worker.

    Raises:
        WorkerError: it did not start.
    """

    def __init__(self) -> None:
        secret = secrets.token_bytes(32)
        # torch threads that wait by spinning would take the web process's core
        environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, SECRET: secret.hex()}
        path = [str(PROJECT_ROOT), environment.get("PYTHONPATH", "")]
        environment["PYTHONPATH"] = os.pathsep.join(p for p in path if p)
        with Listener(authkey=secret) as listener:
            environment[ADDRESS] = str(listener.address)
            self._process = subprocess.Popen(
                [sys.executable, "-m", "prune_core.engine.worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
            )
            self._connection: Any = self._accept(listener)

    def _accept(self, listener: Listener) -> Any:
        accepted = threading.Event()

        def watch() -> None:
            # accept() takes no timeout: a process that ends without connecting is stood in for
            # by a connection that fails the secret
            end = time.monotonic() + START_SECONDS
            while not accepted.wait(0.1):
                if self._process.poll() is not None or time.monotonic() > end:
                    with contextlib.suppress(OSError, EOFError, AuthenticationError):
                        Client(listener.address, authkey=b"nobody").close()
                    return

        threading.Thread(target=watch, daemon=True).start()
        try:
            return listener.accept()
        except (OSError, EOFError, AuthenticationError) as error:
            self._process.kill()
            raise WorkerError("The compute worker did not start; the log says why.") from error
        finally:
            accepted.set()

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    def send(self, kind: str, number: int, job: Any = None) -> None:
        """Send a message; a worker that is gone is noticed when its answer is awaited."""
        try:
            self._connection.send((kind, number, job))
        except (OSError, ValueError):
            return

    def receive(self, timeout: float) -> tuple[str, int, Any] | None:
        """The next message, or None if none came in time.

        Raises:
            WorkerError: the worker is gone.
        """
        try:
            if self._connection.poll(timeout):
                kind, number, payload = self._connection.recv()
                return kind, number, payload
        except (EOFError, OSError) as error:
            raise WorkerError("The compute worker ended.") from error
        if self._process.poll() is not None and not self._connection.poll(0):
            raise WorkerError("The compute worker ended.")
        return None

    def kill(self) -> None:
        """End it at once; the connection closes, so a new one can start."""
        self._process.kill()
        self._process.wait()
        self._connection.close()
