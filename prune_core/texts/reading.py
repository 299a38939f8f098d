"""Texts: presets, files and pasted text, read strictly and cut into token windows."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_core.assets.fetch import fetch_asset
from prune_core.assets.manifest import Asset, project_manifest
from prune_core.errors import TextError
from prune_core.models.sources import mode, shown
from prune_core.progress import NONE, Progress
from prune_core.recipes.calibration import TextSpec
from prune_core.texts.windows import MIN_TOKENS

if TYPE_CHECKING:
    pass

MAX_FILE_BYTES = 20_000_000
MAX_INLINE_BYTES = 1_000_000
SUFFIXES = ("", ".txt", ".md", ".jsonl", ".csv")

TEXTS: dict[str, Asset] = {asset.name: asset for asset in project_manifest().of_kind("text")}
"""Preset texts by name."""


def text_choices() -> list[dict[str, Any]]:
    """Preset texts for a chooser.

    Returns:
        Dicts with ``name``, ``title``, ``size`` (bytes of text), ``license``, ``license_note``,
        ``provenance``, ``provenance_url`` and ``description`` (key in the language catalogue).
    """
    return [
        {
            "name": asset.name,
            "title": asset.title,
            "size": asset.size,
            "license": asset.license,
            "license_note": asset.license_note,
            "provenance": asset.provenance,
            "provenance_url": asset.provenance_url,
            "description": f"text.{asset.name}",
        }
        for asset in TEXTS.values()
    ]


def read_text(spec: TextSpec, progress: Progress = NONE) -> str:
    """The text that a spec names.

    Args:
        spec: ``preset`` (fetched if needed), ``file`` (at most 20 MB of UTF-8) or ``inline`` (at
            most 1 MB).
        progress: of the fetch of a preset; a cancel is seen during it.

    Raises:
        TextError: unknown, unreadable, too large, not UTF-8, with NUL characters, or empty.
        AssetError: a preset could not be fetched.
    """
    if spec.kind == "preset":
        if spec.value not in TEXTS:
            raise TextError(
                f"There is no text called {shown(spec.value)}; presets are {', '.join(TEXTS)}."
            )
        path = fetch_asset(spec.value, progress=progress)
        return _table_text(path.read_text(encoding="utf-8"))
    if spec.kind == "file":
        return _read_file(spec.value)
    if spec.kind == "inline":
        return _read_inline(spec.value)
    raise TextError(f"A text is a preset, a file or inline, not {shown(spec.kind)}.")


def _table_text(table: str) -> str:
    """The ``Content`` column of an Orange table: names, types and flags come in three lines."""
    rows = list(csv.reader(io.StringIO(table, newline=""), delimiter="\t"))
    column = rows[0].index("Content")
    return "\n\n".join(row[column] for row in rows[3:] if len(row) > column and row[column])


def _read_file(value: str) -> str:
    name = shown(Path(value).name or value)
    if mode() != "local":
        raise TextError("Files cannot be read here; paste the text instead.")
    if not value.strip():
        raise TextError("No text is named; give the path of a file or the name of a preset.")
    try:
        path = Path(value).expanduser()
        if path.suffix.lower() not in SUFFIXES:
            raise TextError(f"{name} is no text file; use .txt, .md, .jsonl or .csv.")
        if not path.is_file():
            raise TextError(f"There is no text file {shown(value)}.")
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TextError(f"{name} has {size / 1e6:.1f} MB; at most 20 MB are read.")
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError(f"The text file {name} cannot be read.") from error
    text = decode(content, name)
    if path.suffix.lower() == ".jsonl":
        text = _jsonl_text(text, name)
    elif path.suffix.lower() == ".csv":
        text = _csv_text(text, name)
    return _checked(text, name)


def decode(content: bytes, name: str) -> str:
    """Decode strictly as UTF-8; a byte-order mark is dropped.

    Raises:
        TextError: not UTF-8, or with NUL characters.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(
            f"{name} is not UTF-8 (byte {error.start}); save it as UTF-8 and try again."
        ) from error
    if "\0" in text:
        raise TextError(f"{name} holds NUL characters; it is no plain text.")
    return text


def _jsonl_text(text: str, name: str) -> str:
    parts = []
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError(f"Line {number} of {name} is not JSON.") from error
        part = entry.get("text") if isinstance(entry, dict) else entry
        if not isinstance(part, str):
            raise TextError(f'Line {number} of {name} has no "text".')
        parts.append(part)
    return "\n\n".join(parts)


def _csv_text(text: str, name: str) -> str:
    try:
        rows = list(csv.reader(io.StringIO(text, newline="")))
    except csv.Error as error:
        raise TextError(f"{name} is not a readable CSV file.") from error
    if not rows or "text" not in rows[0]:
        raise TextError(f"{name} has no column called text.")
    column = rows[0].index("text")
    return "\n\n".join(row[column] for row in rows[1:] if len(row) > column)


def _read_inline(value: str) -> str:
    try:
        content = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError("The text holds characters that are not valid Unicode.") from error
    if len(content) > MAX_INLINE_BYTES:
        raise TextError(f"The text has {len(content) / 1e6:.1f} MB; at most 1 MB can be pasted.")
    return _checked(decode(content, "The text"), "The text")


def _checked(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise TextError(f"{name} holds characters that are not valid Unicode.") from error
    if "\0" in text:
        raise TextError(f"{name} holds NUL characters; it is no plain text.")
    if not text.strip():
        raise TextError(f"{name} is empty; at least {MIN_TOKENS} tokens are needed.")
    return text
