"""Where cells are measured: here, in processes, or on a Dask cluster. All are
``concurrent.futures.Executor``; what runs in them measures a cell.
"""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from dataclasses import dataclass
from typing import Any

from prune_core.errors import GridError
from prune_core.sentences import Sentence


class InlineExecutor(Executor):
    """Runs what is submitted at once, in the caller."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn``; the future is done when this returns."""
        future: Future[Any] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:  # noqa: BLE001 - it is the future's
            future.set_exception(error)
        return future


@dataclass(frozen=True, slots=True)
class Where:
    """An executor that was asked for.

    Attributes:
        kind: ``inline``, ``processes`` or ``dask``.
        workers: cells at once.
        threads: of torch in each.
        address: of an existing Dask cluster; empty for one of our own on this machine.
    """

    kind: str
    workers: int
    threads: int
    address: str = ""

    def open(self) -> Executor:
        """Start it.

        Raises:
            GridError: Dask is not installed, or the cluster does not answer.
        """
        if self.kind == "inline":
            return InlineExecutor()
        if self.kind == "processes":
            return ProcessPoolExecutor(
                self.workers,
                multiprocessing.get_context("spawn"),
                initializer=_begin,
                initargs=(os.getpid(),),
            )
        return _dask(self)


def parse_where(text: str, threads: int | None = None) -> Where:
    """Read ``inline``, ``processes``, ``processes:2``, ``dask``, ``dask:2`` or ``dask://HOST:PORT``.

    Args:
        text: as above.
        threads: of torch in each worker; None shares the cores among the workers.

    Raises:
        GridError: anything else.
    """
    kind, _, rest = text.partition(":")
    cores = os.cpu_count() or 1
    address = ""
    if kind == "dask" and rest.startswith("//") and len(rest) > 2:
        address, rest = rest[2:], ""
    fits = kind in ("inline", "processes", "dask") and (not rest or rest.isdecimal())
    if not fits or (kind == "inline" and rest) or rest in ("0", "00"):
        raise GridError(
            "unknown executor {text!r}; use inline, processes, processes:2, dask, dask:2 or "
            "dask://HOST:PORT.",
            text=text,
        )
    workers = 1 if kind == "inline" else int(rest or min(cores, 2 if kind == "dask" else cores))
    if threads is not None and not 1 <= threads <= 256:
        raise GridError(
            "the number of threads must lie between 1 and 256, got {threads}.", threads=threads
        )
    return Where(kind, workers, threads or max(1, cores // workers), address)


def _begin(parent: int) -> None:
    """In a new process of the pool: end with the process that asked for it, however that ends."""

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(1.0)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _dask(where: Where) -> Executor:
    try:
        from distributed import Client, LocalCluster
    except ImportError:
        raise GridError(
            "Dask is not installed; run 'pip install -r requirements-scale.txt' or use another "
            "executor."
        ) from None
    try:
        if where.address:
            tls = _security()
            scheme = "tls" if tls is not None else "tcp"
            client = Client(f"{scheme}://{where.address}", security=tls, timeout="15s")
            return _DaskExecutor(client, None)
        cluster = LocalCluster(
            n_workers=where.workers,
            threads_per_worker=1,
            processes=True,
            host="127.0.0.1",
            dashboard_address=None,
            silence_logs=50,
        )
        return _DaskExecutor(Client(cluster), cluster)
    except (OSError, TimeoutError) as error:
        place = where.address or Sentence("this machine")
        raise GridError(
            "the Dask cluster at {place} does not answer: {error}.", place=place, error=error
        ) from None


def _security() -> Any:
    """TLS of an existing cluster, from ``PRUNE_DASK_TLS_CA``, ``_CERT`` and ``_KEY``; or None."""
    from distributed.security import Security

    files = {name: os.environ.get(f"PRUNE_DASK_TLS_{name}") for name in ("CA", "CERT", "KEY")}
    if not any(files.values()):
        return None
    missing = [f"PRUNE_DASK_TLS_{name}" for name, value in files.items() if not value]
    if missing:
        raise GridError("TLS for Dask needs {missing:list} too.", missing=missing)
    return Security(
        tls_ca_file=files["CA"],
        tls_client_cert=files["CERT"],
        tls_client_key=files["KEY"],
        require_encryption=True,
    )


class _DaskExecutor(Executor):
    """Dask's own executor, which also ends the cluster that was started for it."""

    def __init__(self, client: Any, cluster: Any) -> None:
        self._client, self._cluster = client, cluster
        self._executor = client.get_executor(pure=False, retries=0)

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Run ``fn`` on a worker."""
        future: Future[Any] = self._executor.submit(fn, *args, **kwargs)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End what was started here; an existing cluster stays."""
        self._executor.shutdown(wait=wait and not cancel_futures)
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()
