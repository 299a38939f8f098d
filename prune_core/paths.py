"""Where things lie on disk: one cache folder, named once."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The checkout: the folder that holds app.py, pages/ and assets/."""

ASSETS_FOLDER = PROJECT_ROOT / "assets"
"""What ships with the project: the manifest and the language catalogues."""


TEMPORARY = ".tmp-"
"""How the names of unfinished files begin."""


def cache_root() -> Path:
    """Folder of everything that can be made again: models, texts, ranks, dense references.

    ``PRUNE_CACHE_DIR`` overrides it; otherwise ``$XDG_CACHE_HOME/prunescope`` or
    ``~/.cache/prunescope``.
    """
    chosen = os.environ.get("PRUNE_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    base = os.environ.get("XDG_CACHE_HOME")
    # HOME may be unset (a service account): expanduser then asks the password database
    return (Path(base) if base else Path("~/.cache").expanduser()) / "prunescope"


def cache_folder(*parts: str) -> Path:
    """A folder of the cache, made if missing, readable by its owner only."""
    folder = cache_root().joinpath(*parts)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    return folder


def data_root() -> Path:
    """Folder of what cannot be made again, the store of runs: no cache, so nothing trims it.

    ``$XDG_DATA_HOME/prunescope`` or ``~/.local/share/prunescope``; with ``PRUNE_CACHE_DIR`` the
    folder ``data`` in it, so that a folder chosen for everything holds everything.
    """
    chosen = os.environ.get("PRUNE_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser() / "data"
    base = os.environ.get("XDG_DATA_HOME")
    return (Path(base) if base else Path("~/.local/share").expanduser()) / "prunescope"


def trim_folder(folder: Path, budget: int) -> None:
    """Delete the least recently used files of a cache folder until ``budget`` bytes are left.

    Unfinished files stay: another process may be writing them.
    """
    files = []
    for path in folder.iterdir():
        with suppress(OSError):
            if path.is_file() and not path.name.startswith(TEMPORARY):
                files.append((path.stat(), path))
    total = sum(status.st_size for status, _ in files)
    # file systems may not note when a file is read; the cache sets the time of access itself
    for status, path in sorted(files, key=lambda x: max(x[0].st_atime_ns, x[0].st_mtime_ns)):
        if total <= budget:
            return
        with suppress(OSError):  # another process may have it, or have deleted it
            path.unlink()
            total -= status.st_size
