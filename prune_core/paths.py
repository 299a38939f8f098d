"""Where things lie on disk: one cache folder, named once."""

from __future__ import annotations

import os
from pathlib import Path

PROJECT_ROOT = Path(__file__).resolve().parents[1]
"""The checkout: the folder that holds app.py, pages/ and assets/."""

ASSETS_FOLDER = PROJECT_ROOT / "assets"
"""What ships with the project: the manifest and the language catalogues."""


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
