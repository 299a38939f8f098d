"""The one cache on disk: what is read is what was written, or it is not there.

Everything that takes long to make and follows from its key (ranks, statistics, dense answers,
edits) is kept by a :class:`DiskCache`. A file is written under a temporary name and renamed when it
is whole; every byte of it is covered by a checksum, which is compared when a process first reads
the file and again whenever the file has changed since. A damaged file counts as absent: it is
logged, noted and made anew. A disk that cannot be written costs the file, never the result.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import os
import re
import shutil
import socket
import threading
import time
import uuid
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any

from prune_core import faults
from prune_core.cache_files import (
    ALIGN,
    CHUNK,
    CacheFile,
    DamagedFileError,
    Identity,
    PayloadSums,
    file_end,
    tensor_bytes,
)
from prune_core.paths import TEMPORARY, cache_root, trim_folder

if TYPE_CHECKING:
    from torch import Tensor

MEMORY_BUDGET = 1_000_000_000
"""Bytes kept in memory of what no disk took; the newest entry stays whatever its size."""

_STALE = 86_400  # seconds after which a temporary file has no owner, wherever that ran

_log = logging.getLogger(__name__)
_lock = threading.RLock()


@dataclass(frozen=True)
class Notice:
    """Something about the cache that a user may want to know; said once.

    Attributes:
        kind: ``damaged`` (a file was not what had been written; it is made anew) or ``unwritable``
            (results of this run are not kept on disk).
        cache: name of the :class:`DiskCache`.
        file: name of the file that was damaged; empty if nothing could be written.
        reason: in the words of the operating system, or what did not fit.
    """

    kind: str
    cache: str
    file: str
    reason: str


_notices: dict[tuple[str, ...], Notice] = {}
_swept: set[Path] = set()
_writing: set[Path] = set()
_memory: OrderedDict[Path, tuple[dict[str, Tensor], Any]] = OrderedDict()


def notices() -> list[dict[str, str]]:
    """What happened to the cache in this process, each once, oldest first; see :class:`Notice`."""
    with _lock:
        return [asdict(notice) for notice in _notices.values()]


def key_of(content: object, *tensors: Tensor) -> str:
    """A key: 24 hexadecimal digits that stand for everything a result follows from.

    Args:
        content: what can be written as JSON.
        tensors: on the CPU; their bytes. Put their shapes into ``content``.
    """
    digest = hashlib.sha256(json.dumps(content, sort_keys=True).encode())
    for tensor in tensors:
        digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()[:24]


@dataclass(frozen=True)
class Record:
    """What a cache holds for a key.

    Attributes:
        tensors: by name, on the CPU. Mapped ones are pages of the file, mapped privately: nothing
            written into them reaches the file.
        about: the JSON value written with them.
    """

    tensors: Mapping[str, Tensor]
    about: Any = None
    _source: tuple[DiskCache, CacheFile] | None = field(default=None, repr=False, compare=False)

    def intact(self) -> bool:
        """Whether the tensors are still what was written: ask before each use of mapped ones.

        Without a change of the file since the last check this costs a call of ``fstat``; otherwise
        the checksums are compared again.
        """
        if self._source is None:
            return True
        cache, file = self._source
        reason = file.damage()
        if reason is not None:
            cache._note("damaged", file.path.name, reason)
        return reason is None


class DiskCache:
    """A folder of results, each in a file named by its key.

    One for each kind of result, made where the module is imported: nothing touches the disk before
    the first use, and ``PRUNE_CACHE_DIR`` is read at each.

    Args:
        name: of the folder within the cache; also names the fault points ``NAME.before_write``,
            ``NAME.write`` and ``NAME.before_replace``.
        version: raise it where the same key would stand for other numbers than before; older files
            are then not found, and trimmed in time.
        budget: bytes on disk. The least recently used files go first; a file of more than half
            the budget may stay beside one other of its size.
    """

    def __init__(self, name: str, version: int, budget: int) -> None:
        self.name = name
        self.version = version
        self.budget = budget

    def path(self, key: str, folder: Path | None = None) -> Path:
        """Where the file of a key is, or would be.

        Args:
            key: see :func:`key_of`.
            folder: instead of the cache's own.
        """
        return (folder or cache_root() / self.name) / f"{key}.{self.version}.cache"

    def read(self, key: str, *, mapped: bool = False, folder: Path | None = None) -> Record | None:
        """What was written for a key; None if there is nothing, or nothing that can be believed.

        Args:
            key: see :func:`key_of`.
            mapped: map the file privately rather than read it: for what is large. Its checksums are
                compared if this process has not done so since the file last changed.
            folder: instead of the cache's own.
        """
        path = self.path(key, folder)
        _sweep(path.parent)
        try:
            file = CacheFile(path, self._identity(key), mapped=mapped)
        except OSError:  # above all: there is none
            return self._remembered(path)
        except DamagedFileError as error:
            self._note("damaged", path.name, str(error))
            return self._remembered(path)
        return Record(file.tensors, file.about, (self, file) if mapped else None)

    def write(
        self,
        key: str,
        tensors: Mapping[str, Tensor],
        about: Any = None,
        *,
        folder: Path | None = None,
    ) -> bool:
        """Keep a result: on disk, else in memory for as long as this process lives.

        Args:
            key: see :func:`key_of`.
            tensors: by name, of any dtype, shape and device.
            about: what can be written as JSON.
            folder: instead of the cache's own.

        Returns:
            Whether it is on disk.
        """
        size = _size(tensors)
        with self.stream(key, size, about, folder=folder) as stream:
            for name, tensor in tensors.items():
                if stream.add(name, str(tensor.dtype).removeprefix("torch."), tuple(tensor.shape)):
                    stream.extend(tensor_bytes(tensor))
            kept = stream.keep()
        if not kept:
            self._remember(self.path(key, folder), dict(tensors), about, size)
        return kept

    def stream(
        self, key: str, nbytes: int, about: Any = None, *, folder: Path | None = None
    ) -> Stream:
        """Write a result while it is being made; see :class:`Stream`.

        Args:
            key: see :func:`key_of`.
            nbytes: of all tensors; where the disk has not much more room nothing is written.
            about: what can be written as JSON.
            folder: instead of the cache's own.
        """
        return Stream(self, self.path(key, folder), self._identity(key), nbytes, about)

    def _identity(self, key: str) -> Identity:
        return Identity(self.name, key, self.version)

    def _remember(self, path: Path, tensors: dict[str, Tensor], about: Any, size: int) -> None:
        with _lock:
            _memory.pop(path, None)
            held = size + sum(_size(kept) for kept, _ in _memory.values())
            while _memory and held > MEMORY_BUDGET:
                held -= _size(_memory.popitem(last=False)[1][0])
            _memory[path] = (tensors, about)

    def _remembered(self, path: Path) -> Record | None:
        with _lock:
            entry = _memory.get(path)
        return None if entry is None else Record(*entry)

    def _note(self, kind: str, file: str, reason: str) -> None:
        """Log and remember it, the first time it happens."""
        # a disk that takes nothing is one event, however many caches meet it
        place = (kind, self.name, file) if kind == "damaged" else (kind, reason)
        with _lock:
            if place in _notices or len(_notices) >= 1000:
                return
            _notices[place] = Notice(kind, self.name, file, reason)
        if kind == "damaged":
            _log.warning("The cache file %s/%s is damaged (%s).", self.name, file, reason)
        else:
            _log.warning(
                "Results of this run are not kept: the folder %s of the cache cannot be written "
                "(%s).",
                *(self.name, reason),
            )


class Stream:
    """A file under way: a context that leaves nothing behind unless :meth:`keep` was called.

    A disk that does not take it is no error: the methods then do nothing and give False.

    Attributes:
        path: where it is going to be.
    """

    def __init__(
        self, cache: DiskCache, path: Path, identity: Identity, nbytes: int, about: Any
    ) -> None:
        self.path = path
        self._cache = cache
        self._identity = identity
        self._nbytes = nbytes
        self._about = about
        self._file: IO[bytes] | None = None
        self._temporary = path.with_name(f"{_temporary_name()}{uuid.uuid4().hex[:12]}")
        self._tensors: list[list[Any]] = []
        self._sums = PayloadSums()

    def __enter__(self) -> Stream:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            _sweep(self.path.parent)
            if shutil.disk_usage(self.path.parent).free < 1.2 * self._nbytes:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            faults.point(f"{self._cache.name}.before_write")
            _writing.add(self._temporary)
            self._file = self._temporary.open("wb")
        except OSError as error:
            self._fail(error)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._discard()

    def add(self, name: str, dtype: str, shape: tuple[int, ...]) -> bool:
        """Begin a tensor; its bytes follow by :meth:`extend`.

        Args:
            name: of the tensor.
            dtype: torch's name of it, as ``float32``.
            shape: its own.
        """
        if not self._write(bytes(-self._sums.size % ALIGN)):
            return False
        self._tensors.append([name, dtype, shape, self._sums.size])
        return True

    def extend(self, values: memoryview) -> bool:
        """Write what comes next of the tensor begun last: contiguous, in C order."""
        return self._write(values.cast("B") if values.nbytes else b"")

    def keep(self) -> bool:
        """Move the file into place and trim the folder; False if it could not be written."""
        if self._file is None:
            return False
        cache = self._cache
        try:
            self._file.write(file_end(self._identity, self._tensors, self._about, self._sums))
            self._file.flush()
            os.fsync(self._file.fileno())
            faults.point(f"{cache.name}.before_replace")
            self._file.close()
            self._temporary.replace(self.path)
        except OSError as error:
            self._fail(error)
            return False
        self._file = None
        _writing.discard(self._temporary)
        with _lock:
            _memory.pop(self.path, None)
        with suppress(OSError):  # it is there: what follows only keeps house
            _sync_folder(self.path.parent)
            trim_folder(self.path.parent, max(cache.budget, 2 * self._sums.size))
        return True

    def _write(self, values: bytes | memoryview) -> bool:
        if self._file is None:
            return False
        try:
            faults.point(f"{self._cache.name}.write")
            for start in range(0, len(values), CHUNK):
                piece = memoryview(values)[start : start + CHUNK]
                self._sums.add(piece)
                self._file.write(piece)
        except OSError as error:
            self._fail(error)
            return False
        return True

    def _fail(self, error: OSError) -> None:
        self._cache._note("unwritable", "", error.strerror or str(error))
        self._discard()

    def _discard(self) -> None:
        with suppress(OSError):
            if self._file is not None:
                self._file.close()
        self._file = None
        with suppress(OSError):
            self._temporary.unlink(missing_ok=True)
        _writing.discard(self._temporary)


def _size(tensors: Mapping[str, Tensor]) -> int:
    return sum(x.numel() * x.element_size() for x in tensors.values())


def _sync_folder(folder: Path) -> None:
    """Make a rename durable (a no-op where folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _temporary_name() -> str:
    """How the names of this process's temporary files begin: they say who is writing."""
    host = re.sub(r"[^A-Za-z0-9]", "", socket.gethostname())[:32]
    return f"{TEMPORARY}{host}-{os.getpid()}-"


def _sweep(folder: Path) -> None:
    """Remove, once in a process, what writers that are gone have left in a folder."""
    with _lock:
        if folder in _swept:
            return
        with suppress(OSError):
            for path in folder.glob(f"{TEMPORARY}*"):
                with suppress(OSError):
                    if path.is_file() and _abandoned(path):
                        path.unlink()
            _swept.add(folder)


def _abandoned(path: Path) -> bool:
    """Whether nobody writes a temporary file: its process is gone, or it is a day old."""
    if path in _writing:
        return False
    if time.time() - path.stat().st_mtime > _STALE:
        return True
    mine = _temporary_name()
    host = mine.rsplit("-", 2)[0] + "-"
    number = path.name.removeprefix(host).split("-")[0]
    if not path.name.startswith(host) or not number.isdecimal() or os.name != "posix":
        return False
    if path.name.startswith(mine):
        return True  # of an earlier process that had this number
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except OSError:
        return False
    return False
