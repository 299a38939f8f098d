"""The files of :mod:`prune_core.disk_cache`: tensors and a JSON value, every byte under a checksum.

::

    payload     the tensors' bytes, each beginning at a multiple of 64
    footer      JSON: cache, key, version, tensors (name, dtype, shape, offset), about, size of the
                payload, CRC-32 of each 4 MiB of it
    tail        8 bytes that name the format, length of the footer (8 bytes), its BLAKE2b (16 bytes)

The footer comes last because results are written while they are made.

CRC-32 because it guards against accidents, not against an attacker, who could as well rewrite the
checksum: damage passes unseen once in 2^32 chunks, and a core checks the 425 MB of ranks of SmolLM2
in a seventh of the time of SHA-256 or BLAKE2b (docs/decisions.md).
"""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import struct
import threading
import time
import weakref
import zlib
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

CHUNK = 4 << 20
"""Bytes of payload that share a checksum."""

ALIGN = 64
LARGE = 64 << 20
"""From this size on threads share the checking: CRC-32 runs outside the interpreter lock."""

SETTLED = 100_000_000
"""Nanoseconds: file systems' clocks tick more coarsely than a write takes."""

_FORMAT = 1
_MAGIC = b"prunes%02d" % _FORMAT
_TAIL = struct.Struct("<8sQ16s")

_lock = threading.Lock()
_checked: dict[Path, tuple[int, ...]] = {}


class DamagedFileError(ValueError):
    """A file is not what was written; the message says in which way."""


@dataclass(frozen=True)
class Identity:
    """What a file must say of itself: a good file under another's name is a wrong one.

    Attributes:
        cache: name of the cache.
        key: of the result.
        version: of the cache.
    """

    cache: str
    key: str
    version: int


class PayloadSums:
    """Checksums of a payload that comes in pieces.

    Attributes:
        size: bytes so far.
        sums: CRC-32 of each chunk so far.
    """

    def __init__(self) -> None:
        self.size = 0
        self.sums: list[int] = []

    def add(self, values: memoryview) -> None:
        """Bring the checksums up to date with what comes next."""
        while len(values):
            room = CHUNK - self.size % CHUNK
            if room == CHUNK:
                self.sums.append(0)
            self.sums[-1] = zlib.crc32(values[:room], self.sums[-1])
            self.size += min(room, len(values))
            values = values[room:]


def file_end(identity: Identity, tensors: list[list[Any]], about: Any, sums: PayloadSums) -> bytes:
    """Footer and tail.

    Args:
        identity: of the file.
        tensors: name, torch's name of the dtype, shape and offset of each.
        about: what can be written as JSON.
        sums: of the whole payload.
    """
    content = {**vars(identity), "tensors": tensors, "about": about}
    footer = json.dumps(content | {"sums": sums.sums, "size": sums.size}).encode()
    return footer + _TAIL.pack(_MAGIC, len(footer), _digest(footer))


def tensor_bytes(tensor: Tensor) -> memoryview:
    """The bytes of a tensor of any dtype and device, in C order."""
    import torch

    flat = tensor.detach().cpu().contiguous().reshape(-1)
    return flat.view(torch.uint8).numpy().data


class CacheFile:
    """An open file of the cache, whole when it was opened.

    It stays open while it is mapped: what is compared is what is mapped, even if another file now
    has its name.

    Args:
        path: of the file.
        identity: what it must say of itself.
        mapped: map it privately rather than read it. Its payload is then compared only if this
            process has not done so since the file last changed.

    Attributes:
        path: as it was opened.
        tensors: by name.
        about: the JSON value.

    Raises:
        OSError: it cannot be opened or read.
        DamagedFileError: it is not what was written.
    """

    def __init__(self, path: Path, identity: Identity, *, mapped: bool) -> None:
        self.path = path
        self._identity = identity
        self._descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_BINARY", 0))
        self._close = weakref.finalize(self, os.close, self._descriptor)
        status = os.fstat(self._descriptor)
        with suppress(OSError):  # so that it counts as used; the time of change stays
            os.utime(path, ns=(time.time_ns(), status.st_mtime_ns))
        stamp = self._stamp_now()
        self._stamp: tuple[int, ...] = ()
        if stamp[2] < _TAIL.size:
            raise DamagedFileError("it is too short")
        if mapped:
            self._content: bytearray | mmap.mmap = mmap.mmap(
                self._descriptor, stamp[2], access=mmap.ACCESS_COPY
            )
        else:
            self._content = self._read(stamp[2])
        self._footer = _footer(memoryview(self._content), identity)
        with _lock:
            known = mapped and _checked.get(path) == stamp
        if known:
            self._stamp = stamp
        else:
            self._compare(stamp, remember=mapped)
        self.tensors = _tensors(self._content, self._footer)
        self.about = self._footer["about"]
        if not mapped:
            self._close()

    def damage(self) -> str | None:
        """In which way the content is no longer what was written; None if it is.

        Without a change of the file since the last check this costs a call of ``fstat``.
        """
        if not self._close.alive:  # in memory
            return None
        stamp = self._stamp_now()
        if stamp == self._stamp:
            return None
        try:
            if stamp[2] != len(self._content):  # to touch a page that is gone ends the process
                raise DamagedFileError("its length has changed")
            _footer(memoryview(self._content), self._identity)
            self._compare(stamp, remember=True)
        except DamagedFileError as error:
            return str(error)
        return None

    def _read(self, size: int) -> bytearray:
        content = bytearray(size)
        with os.fdopen(os.dup(self._descriptor), "rb") as file:
            if file.readinto(content) != size:
                raise DamagedFileError("it was cut short while it was read")
        return content

    def _compare(self, stamp: tuple[int, ...], *, remember: bool) -> None:
        _check(memoryview(self._content), self._footer)
        # a change within the same tick of the clock as this stamp would not show in the next one
        if remember and time.time_ns() - stamp[3] > SETTLED:
            self._stamp = stamp
            with _lock:
                _checked[self.path] = stamp

    def _stamp_now(self) -> tuple[int, ...]:
        status = os.fstat(self._descriptor)
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns


def _footer(content: memoryview, identity: Identity) -> dict[str, Any]:
    magic, length, digest = _TAIL.unpack(content[-_TAIL.size :])
    end = len(content) - _TAIL.size
    if magic != _MAGIC or length > end:
        raise DamagedFileError("its end is not that of a cache file")
    text = bytes(content[end - length : end])
    if _digest(text) != digest:
        raise DamagedFileError("its table of contents differs from what was written")
    footer: dict[str, Any] = json.loads(text)
    if Identity(footer["cache"], footer["key"], footer["version"]) != identity:
        raise DamagedFileError("it belongs to another key")
    if footer["size"] != end - length:
        raise DamagedFileError("its length differs from what was written")
    return footer


def _check(content: memoryview, footer: Mapping[str, Any]) -> None:
    size, sums = footer["size"], footer["sums"]

    def differs(place: int) -> bool:
        chunk = content[place * CHUNK : min((place + 1) * CHUNK, size)]
        return zlib.crc32(chunk) != sums[place]

    if size < LARGE:
        damaged = any(map(differs, range(len(sums))))
    else:
        with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
            damaged = any(list(pool.map(differs, range(len(sums)))))
    if damaged:
        raise DamagedFileError("its content differs from what was written")


def _tensors(content: bytearray | mmap.mmap, footer: Mapping[str, Any]) -> dict[str, Tensor]:
    if not footer["tensors"]:
        return {}
    import torch  # not for files without tensors: the web process reads hashes and has no torch

    tensors = {}
    for name, kind, shape, offset in footer["tensors"]:
        dtype, count = getattr(torch, kind), 1
        for length in shape:
            count *= length
        if count:
            flat = torch.frombuffer(content, dtype=dtype, count=count, offset=offset)
        else:
            flat = torch.empty(0, dtype=dtype)
        tensors[name] = flat.view(shape)
    return tensors


def _digest(content: bytes) -> bytes:
    return hashlib.blake2b(content, digest_size=16).digest()
