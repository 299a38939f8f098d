"""What changes when a file does: a job that reads files is only done until they change."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from prune_core.jobs.base import Job
from prune_core.recipes.calibration import TextSpec

Stamp = tuple[int, int] | None

_READ = (".json", ".safetensors", ".gguf", ".txt", ".jinja", ".model")


def text_stamp(text: TextSpec) -> Stamp:
    """Time and size of a file's text; None where it must be read again."""
    return _stamp(Path(text.value)) if text.kind == "file" else (0, 0)


def source_stamp(source: str) -> tuple[tuple[str, Stamp], ...]:
    """Times and sizes of the files of a model; empty where it is no folder or file of this machine.

    Args:
        source: see ``prune_core.models.sources.parse_source``.
    """
    if not source or source.startswith("hub:"):
        return ()
    try:
        place = Path(source).expanduser()
        if place.is_file():
            return ((place.name, _stamp(place)),)
        if not place.is_dir():
            return ()
        found = [path for path in place.iterdir() if path.suffix in _READ]
        return tuple((path.name, _stamp(path)) for path in sorted(found))
    except (OSError, ValueError, RuntimeError):
        return ()


def lookup_key(job: Job) -> str:
    """A job's key with the stamps of the files that it reads."""
    if not job.repeatable:
        return job.key
    stamps = [source_stamp(job.source), *(text_stamp(text) for text in _file_texts(job))]
    return f"{job.key} {stamps}" if any(stamps) else job.key


def _file_texts(value: Any) -> Iterator[TextSpec]:
    if isinstance(value, TextSpec):
        if value.kind == "file":
            yield value
    elif is_dataclass(value):
        for field in fields(value):
            yield from _file_texts(getattr(value, field.name))
    elif isinstance(value, tuple):
        for one in value:
            yield from _file_texts(one)


def _stamp(path: Path) -> Stamp:
    try:
        found = path.expanduser().stat()
    except (OSError, ValueError, RuntimeError):
        return None
    return (found.st_mtime_ns, found.st_size)
