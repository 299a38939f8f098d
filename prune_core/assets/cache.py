"""The asset cache: what counts as present, how a file gets there whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
import uuid
from pathlib import Path
from typing import IO, Any

from filelock import FileLock, Timeout

from prune_core.assets.manifest import Asset, Member
from prune_core.errors import AssetError
from prune_core.faults import point
from prune_core.paths import cache_folder
from prune_core.progress import NONE, Progress

CHUNK = 1 << 20
CANCELLED = "The fetch was cancelled."
STALE_SECONDS = 24 * 3600
TEMP_PREFIX = ".tmp-"


def hash_file(
    path: Path,
    *,
    progress: Progress = NONE,
) -> str:
    """SHA-256 of a file, reported as stage ``verify``."""
    digest = hashlib.sha256()
    verifying = progress.stage("verify", path.stat().st_size, unit="bytes")
    done = 0
    with path.open("rb") as stream:
        while chunk := stream.read(CHUNK):
            progress.check(CANCELLED)
            digest.update(chunk)
            done += len(chunk)
            verifying.step(done)
    return digest.hexdigest()


def assets_root() -> Path:
    """The folder of all fetched assets, made if missing.

    Raises:
        AssetError: the cache folder cannot be written.
    """
    try:
        return cache_folder("assets")
    except OSError as error:
        raise AssetError(
            "The cache folder cannot be written ({reason}); set PRUNE_CACHE_DIR to a folder that "
            "can.",
            reason=error.strerror,
        ) from error


def asset_folder(asset: Asset) -> Path:
    """Where the asset's files lie once fetched."""
    return assets_root() / asset.digest


def asset_path(asset: Asset) -> Path:
    """What a reader opens: the file of a one-file asset, else the folder."""
    folder = asset_folder(asset)
    return folder / asset.members[0].name if len(asset.members) == 1 else folder


def is_cached(asset: Asset, *, rehash: bool = False) -> bool:
    """Whether every file of the asset is present and trusted.

    A file is trusted when its ``.ok`` record agrees with the manifest and the file has not been
    touched since; a touched one (or any with ``rehash``) is hashed again.
    """
    folder = asset_folder(asset)
    return all(_is_whole(folder, member, rehash=rehash) for member in asset.members)


def _is_whole(folder: Path, member: Member, *, rehash: bool) -> bool:
    path = folder / member.name
    try:
        status = path.stat()
        record: dict[str, Any] = json.loads(_record_path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    if record.get("sha256") != member.sha256 or status.st_size != member.size:
        return False
    if record.get("mtime_ns") == status.st_mtime_ns and not rehash:
        return True
    if hash_file(path) != member.sha256:
        return False
    with contextlib.suppress(OSError):  # a read-only cache is still a good one
        _write_record(path, member)
    return True


def _record_path(path: Path) -> Path:
    return path.with_name(path.name + ".ok")


def _write_record(path: Path, member: Member) -> None:
    status = path.stat()
    record = {
        "sha256": member.sha256,
        "size": member.size,
        "mtime_ns": status.st_mtime_ns,
        "time": time.time(),
    }
    unfinished = path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}.unfinished")
    unfinished.write_text(json.dumps(record), encoding="utf-8")
    unfinished.replace(_record_path(path))


def store_member(
    stream: IO[bytes],
    member: Member,
    folder: Path,
    temporary: Path,
    *,
    progress: Progress = NONE,
) -> None:
    """Copy one file into the cache: counted, hashed, synced, renamed; its ``.ok`` comes last.

    Args:
        stream: the file's bytes.
        member: what they must be.
        folder: the asset's cache folder.
        temporary: a folder on the same file system, removed by the caller.
        progress: stage ``verify`` in bytes; a cancel is seen between chunks.

    Raises:
        AssetError: longer or shorter than pinned, or another hash.
    """
    unfinished = temporary / f"member-{uuid.uuid4().hex[:8]}"
    digest = hashlib.sha256()
    verifying = progress.stage("verify", member.size, unit="bytes")
    done = 0
    with unfinished.open("wb") as target:
        while chunk := stream.read(CHUNK):
            progress.check(CANCELLED)
            done += len(chunk)
            if done > member.size:  # a zip can claim one size and unpack to another
                break
            digest.update(chunk)
            target.write(chunk)
            verifying.step(done)
        target.flush()
        os.fsync(target.fileno())
    if done != member.size or digest.hexdigest() != member.sha256:
        raise AssetError(
            "{name} is not the file that the manifest names (its hash or size differs); it was "
            "not used.",
            name=member.name,
        )
    point("fetch.before_replace")
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    final = folder / member.name
    unfinished.replace(final)
    sync_folder(folder)
    point("fetch.before_ok")
    _write_record(final, member)


def sync_folder(folder: Path) -> None:
    """Make a rename in ``folder`` durable (a no-op where folders cannot be opened)."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def make_temporary(root: Path, key: str) -> Path:
    """A new private folder in ``root``, so that ``os.replace`` stays on one file system."""
    folder = root / f"{TEMP_PREFIX}{key}-{uuid.uuid4().hex[:12]}"
    folder.mkdir(mode=0o700)
    return folder


def sweep_temporary(root: Path, held_key: str) -> None:
    """Remove what interrupted fetches left behind.

    The caller holds the lock of ``held_key``, so temporary folders of that key have no owner.
    Those of other keys go when they are older than a day and their lock is free.
    """
    for folder in root.glob(f"{TEMP_PREFIX}*"):
        key = folder.name.removeprefix(TEMP_PREFIX).rpartition("-")[0]
        if key == held_key:
            shutil.rmtree(folder, ignore_errors=True)
            continue
        try:
            if time.time() - folder.stat().st_mtime < STALE_SECONDS:
                continue
            with FileLock(root / f"{key}.lock", timeout=0):
                shutil.rmtree(folder, ignore_errors=True)
        except (OSError, Timeout):
            continue
