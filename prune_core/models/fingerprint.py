"""Fingerprints: what a model's cache keys rest on. File hashes are remembered by size and time."""

from __future__ import annotations

import hashlib
from pathlib import Path

from prune_core.assets.cache import hash_file
from prune_core.disk_cache import DiskCache
from prune_core.errors import ModelFileError
from prune_core.models.sources import shown
from prune_core.progress import NONE, Progress

_HASHES = DiskCache("hashes", 1, 10_000_000)
_SHAPING = frozenset({".json", ".safetensors", ".model", ".txt", ".jinja", ".spm"})


def file_sha256(path: Path, *, progress: Progress = NONE) -> str:
    """SHA-256 of a file, read only once as long as path, size and time of change stay the same.

    Raises:
        ModelFileError: the file cannot be read.
    """
    try:
        status = path.stat()
        key = f"{path.resolve()}\0{status.st_size}\0{status.st_mtime_ns}"
        place = hashlib.sha256(key.encode()).hexdigest()[:32]
        record = _HASHES.read(place)
        if record is not None:
            return str(record.about)
        digest = hash_file(path, progress=progress)
        _HASHES.write(place, {}, digest)
    except OSError as error:
        raise ModelFileError(
            "{name} cannot be read ({reason}).", name=shown(path.name), reason=error.strerror
        ) from error
    return digest


def folder_fingerprint(
    folder: Path,
    dtype: str,
    *,
    progress: Progress = NONE,
) -> str:
    """Fingerprint of a model folder: its files' contents and the dtype it is loaded in."""
    digest = hashlib.sha256(f"dtype {dtype}\n".encode())
    for path in sorted(p for p in folder.iterdir() if p.suffix in _SHAPING and p.is_file()):
        watched = progress if path.suffix == ".safetensors" else progress.silent()
        content = file_sha256(path, progress=watched)
        digest.update(f"{path.name} {content}\n".encode())
    return digest.hexdigest()
