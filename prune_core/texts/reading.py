"""Texts: presets, files and pasted text, read strictly and cut into token windows."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_core.assets.fetch import fetch_asset
from prune_core.assets.manifest import Asset, project_manifest
from prune_core.errors import TextError
from prune_core.models.sources import mode, shown
from prune_core.progress import NONE, Progress
from prune_core.recipes.calibration import TextSpec
from prune_core.sentences import Sentence
from prune_core.texts.windows import MIN_TOKENS

if TYPE_CHECKING:
    pass

MAX_FILE_BYTES = 20_000_000
MAX_INLINE_BYTES = 1_000_000
JSON_LINES = (".jsonl", ".ndjson")
TABLES = {".csv": ",", ".tsv": "\t"}
NO_TEXTS = frozenset(
    (
        *(".bin", ".pt", ".pth", ".pkl", ".npy", ".npz", ".safetensors", ".gguf", ".onnx", ".h5"),
        *(".zip", ".gz", ".tar", ".7z", ".xz", ".zst", ".parquet", ".arrow", ".sqlite", ".db"),
        *(".png", ".jpg", ".jpeg", ".gif", ".webp", ".mp3", ".mp4", ".wav", ".exe", ".so"),
        *(".pdf", ".doc", ".docx", ".odt", ".xls", ".xlsx", ".ppt", ".pptx", ".epub"),
    )
)
"""Endings of files that are no texts; any other may be one, as .raw, .tokens or .text."""
OTHER_KINDS = {
    b"PK\x03\x04": "a ZIP or Office file",
    b"%PDF": "a PDF",
    b"\x1f\x8b": "packed with gzip",
    b"PAR1": "a Parquet table",
    b"ARROW1": "an Arrow table",
    b"SQLite format 3": "a database",
    b"\x89PNG": "a picture",
    b"\xff\xd8\xff": "a picture",
    b"GGUF": "a GGUF model",
    b"{\\rtf": "a Rich Text file",
    b"version https://git-lfs": "a Git LFS pointer",
}
"""First bytes of files that are given for texts and are none."""
WIDE = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}
LEGACY = (
    ("shift_jis", (0x3040, 0x30FF), 0.2),
    ("euc-jp", (0x3040, 0x30FF), 0.2),
    ("euc-kr", (0xAC00, 0xD7A3), 0.8),
    ("gb18030", (0x4E00, 0x9FFF), 0.8),
    ("big5", (0x4E00, 0x9FFF), 0.8),
    ("koi8-r", (0x400, 0x45F), 0.8),
    ("cp1251", (0x400, 0x45F), 0.8),
    ("cp1252", (0xC0, 0xFF), 0.6),
)
"""Encodings older than UTF-8 to guess from, in this order: what share of the letters beyond ASCII
at least lies in which range of Unicode."""
_LINE_ENDS = re.compile(r"\r\n|\n|\r")

TEXTS: dict[str, Asset] = {asset.name: asset for asset in project_manifest().of_kind("text")}
"""Preset texts by name."""


def text_named(name: str) -> TextSpec:
    """The preset of that name, else the file."""
    return TextSpec("preset" if name in TEXTS else "file", name)


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
                "There is no text called {value}; presets are {known:list}.",
                value=shown(spec.value),
                known=TEXTS,
            )
        path = fetch_asset(spec.value, progress=progress)
        return _table_text(path.read_text(encoding="utf-8"))
    if spec.kind == "file":
        return _read_file(spec.value)
    if spec.kind == "inline":
        return _read_inline(spec.value)
    raise TextError("A text is a preset, a file or inline, not {kind}.", kind=shown(spec.kind))


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
        if path.suffix.lower() in NO_TEXTS:
            raise TextError("{name} is no text file; use .txt, .md, .jsonl or .csv.", name=name)
        if not path.is_file():
            raise TextError("There is no text file {value}.", value=shown(value))
        size = path.stat().st_size
        if size > MAX_FILE_BYTES:
            raise TextError(
                "{name} has {size:.1f} MB; at most 20 MB are read.",
                name=name,
                size=size / 1e6,
            )
        content = path.read_bytes()
    except (OSError, ValueError, RuntimeError) as error:
        if isinstance(error, TextError):
            raise
        raise TextError("The text file {name} cannot be read.", name=name) from error
    for start, kind in OTHER_KINDS.items():
        if content.startswith(start):
            raise TextError(
                "{name} is no text but {kind}; save its text as UTF-8 (.txt).",
                name=name,
                kind=Sentence(kind),
            )
    text = decode(content, name)
    ending = path.suffix.lower()
    if ending in JSON_LINES:
        text = _jsonl_text(text, name)
    elif ending in TABLES:
        text = _csv_text(text, name, TABLES[ending])
    return _checked(text, name)


def decode(content: bytes, name: str) -> str:
    """Decode strictly as UTF-8; a byte-order mark is dropped.

    Raises:
        TextError: not UTF-8, or with NUL characters.
    """
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        encoding = guessed_encoding(content)
        if encoding is None:
            raise TextError(
                "{name} is not UTF-8 (byte {byte}); save it as UTF-8 and try again.",
                name=name,
                byte=error.start,
            ) from error
        raise TextError(
            "{name} is not UTF-8 (byte {place}) but probably {encoding}; convert it, for example "
            "with iconv -f {encoding} -t UTF-8, or save it as UTF-8 in an editor.",
            name=name,
            place=error.start,
            encoding=encoding,
        ) from error
    if "\0" in text:
        raise TextError("{name} holds NUL characters; it is no plain text.", name=name)
    return text


def guessed_encoding(content: bytes) -> str | None:
    """The encoding that bytes which are no UTF-8 most likely have, by iconv's name; or None.

    A guess by whether they decode to letters of one script: it only helps to name the way out.
    """
    for mark, name in WIDE.items():
        if content.startswith(mark):
            return name
    sample = content[:200_000]
    if b"\0" in sample:
        return None
    for encoding, (low, high), least in LEGACY:
        try:
            text = sample.decode(encoding)
        except UnicodeDecodeError as error:
            if error.start < len(sample) - 4 or len(sample) == len(content):
                continue  # not merely cut off in the middle of a character
            text = sample[: error.start].decode(encoding)
        letters = [c for c in text if c.isalpha() and ord(c) > 127]
        typical = sum(low <= ord(c) <= high for c in letters)
        if encoding == "koi8-r" and 2 * sum(c.isupper() for c in letters) > len(letters):
            continue  # the other Cyrillic encoding read as this one swaps the cases
        if encoding != "cp1252" and 2 * len(letters) < sum(map(str.isalpha, text)):
            continue  # a few letters among many of ASCII are accents
        if letters and typical >= least * len(letters):
            return encoding
    return None


def _jsonl_text(text: str, name: str) -> str:
    parts = []
    # not splitlines: JSON strings may hold U+2028, U+0085 and others that it would split at
    for number, line in enumerate(_LINE_ENDS.split(text), start=1):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TextError("Line {line} of {name} is not JSON.", line=number, name=name) from error
        part = entry.get("text") if isinstance(entry, dict) else entry
        if not isinstance(part, str):
            raise TextError('Line {line} of {name} has no "text".', line=number, name=name)
        parts.append(part)
    return "\n\n".join(parts)


def _csv_text(text: str, name: str, delimiter: str) -> str:
    first = text.split("\n", 1)[0]
    if delimiter == "," and delimiter not in first and ";" in first:
        delimiter = ";"  # as spreadsheets write it where the comma is in numbers
    before = csv.field_size_limit(max(len(text), csv.field_size_limit()))
    try:
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter))
    except csv.Error as error:
        raise TextError("{name} is not a readable CSV file.", name=name) from error
    finally:
        csv.field_size_limit(before)
    if not rows or "text" not in rows[0]:
        raise TextError("{name} has no column called text.", name=name)
    column = rows[0].index("text")
    return "\n\n".join(row[column] for row in rows[1:] if len(row) > column)


_PASTED = Sentence("The text")
"""What stands for the name of a text that came without a file."""


def _read_inline(value: str) -> str:
    try:
        content = value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise TextError("The text holds characters that are not valid Unicode.") from error
    if len(content) > MAX_INLINE_BYTES:
        raise TextError(
            "The text has {size:.1f} MB; at most 1 MB can be pasted.", size=len(content) / 1e6
        )
    return _checked(decode(content, _PASTED), _PASTED)


def _checked(text: str, name: str) -> str:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:  # JSON can spell half a character
        raise TextError("{name} holds characters that are not valid Unicode.", name=name) from error
    if "\0" in text:
        raise TextError("{name} holds NUL characters; it is no plain text.", name=name)
    if not text.strip():
        raise TextError(
            "{name} is empty; at least {least} tokens are needed.", name=name, least=MIN_TOKENS
        )
    return text
