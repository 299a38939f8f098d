"""Makes a report's files and puts them in place: whole or not at all."""

from __future__ import annotations

import errno
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from prune_core.errors import ReportError
from prune_core.reporting.content import Content
from prune_core.reporting.tables import csv_bytes, recipes_zip
from prune_core.sentences import Sentence

FORMATS = ("html", "pptx", "csv", "recipes")

SUFFIXES = {"html": ".html", "pptx": ".pptx", "csv": ".csv", "recipes": ".zip"}
TYPES = {
    "html": "text/html",
    "pptx": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
    "csv": "text/csv",
    "recipes": "application/zip",
}


def made(content: Content, format: str) -> bytes:
    """One file of a report.

    Raises:
        ReportError: an unknown format.
    """
    from prune_core.reporting.html import page
    from prune_core.reporting.pptx import presentation

    makers: Mapping[str, Callable[[Content], bytes]] = {
        "html": page,
        "pptx": presentation,
        "csv": csv_bytes,
        "recipes": recipes_zip,
    }
    if format not in makers:
        raise ReportError(
            "a report is made as {known:list}, not {format!r}.", known=FORMATS, format=format
        )
    return makers[format](content)


def file_name(content: Content, format: str) -> str:
    """What a file is called in a folder: ``report-en.pptx``, ``runs.csv``."""
    if format == "recipes":
        return "recipes.zip"
    if format == "csv":
        return "runs.csv"
    kind = "" if content.audience == "stakeholder" else f"-{content.audience}"
    return f"report{kind}-{content.language}{SUFFIXES[format]}"


def chosen_files(
    to: str, format: str | None, content_name: Callable[[str], str]
) -> dict[str, Path]:
    """Which files are written where: format to path.

    Args:
        to: a file with a known suffix, or a folder.
        format: one of :data:`FORMATS`, ``all``, or None: the suffix's, and all for a folder.
        content_name: gives a format's file name in a folder.

    Raises:
        ReportError: the name and the format do not agree, or there is no folder to write into.
    """
    if not to.strip() or "\0" in to:
        raise ReportError("name a file or a folder for the report.")
    path = Path(to).expanduser()
    kinds = {suffix: kind for kind, suffix in SUFFIXES.items()}
    suffix = path.suffix.lower()
    if suffix in kinds and not path.is_dir():
        if format not in (None, kinds[suffix]):
            raise ReportError(
                "{name} is a name for {kind}, not for {format}.",
                name=path.name,
                kind=kinds[suffix],
                format=format,
            )
        if not path.parent.is_dir():
            raise ReportError("there is no folder {parent} to write into.", parent=path.parent)
        return {kinds[suffix]: path}
    if path.exists() and not path.is_dir():
        raise ReportError(
            "{name} is a file and no report; end the name in {suffixes:list}, or name a folder.",
            name=path.name,
            suffixes=SUFFIXES.values(),
        )
    if not path.is_dir() and not path.parent.is_dir():
        raise ReportError("there is no folder {parent} to write into.", parent=path.parent)
    formats = FORMATS if format in (None, "all") else (format,)
    return {kind: path / content_name(kind) for kind in formats}


def check_free(files: Mapping[str, Path], *, overwrite: bool) -> None:
    """Refuse before the work what exists and may not be replaced.

    Raises:
        ReportError: a file exists, or is a folder or a link.
    """
    for path in files.values():
        if path.is_symlink() or path.is_dir():
            raise ReportError(
                "{path} is a folder or a link; choose another name for the report.", path=path
            )
        if path.exists() and not overwrite:
            raise ReportError(
                "{path} exists; choose another name, or ask to overwrite it.", path=path
            )


def put(files: Mapping[Path, bytes], *, overwrite: bool) -> None:
    """Write files beside their places, then move them in; none is ever half written.

    Raises:
        ReportError: a place cannot be written, or was taken in the meantime.
    """
    waiting: list[tuple[Path, Path]] = []
    made_folder: list[Path] = []
    try:
        for path, data in files.items():
            if not path.parent.is_dir():
                path.parent.mkdir()
                made_folder.append(path.parent)
            handle, name = tempfile.mkstemp(prefix=".report-", dir=path.parent)
            waiting.append((Path(name), path))
            with os.fdopen(handle, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            umask = os.umask(0)
            os.umask(umask)
            Path(name).chmod(0o666 & ~umask)
        for temporary, path in waiting:
            if overwrite:
                temporary.replace(path)
            else:
                os.link(temporary, path)  # fails where another took the name since
    except FileExistsError as error:
        raise ReportError(
            "{path} exists; choose another name.", path=error.filename2 or error.filename
        ) from error
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        why = Sentence("the disk is full") if full else (error.strerror or str(error))
        where = next(iter(files)).parent
        raise ReportError(
            "the report could not be written into {where}: {why}.", where=where, why=why
        ) from error
    finally:
        for temporary, _ in waiting:
            with suppress(OSError):
                temporary.unlink()
        for folder in made_folder:
            with suppress(OSError):
                folder.rmdir()  # only where nothing came into it
