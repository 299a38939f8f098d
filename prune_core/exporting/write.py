"""Writing a checkpoint: to a temporary folder beside the target, then moved into place."""

from __future__ import annotations

import ctypes
import errno
import os
import re
import shutil
import socket
import sys
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from prune_core import faults
from prune_core.errors import PruneCoreError
from prune_core.models.sources import MAX_LENGTH, mode, shown
from prune_core.sentences import Sentence

RECIPE, MEASURED = "recipe.json", "measured.json"
"""Every export holds both: a folder without them is not replaced."""

WRITTEN = frozenset((".json", ".safetensors", ".md", ".txt", ".jinja", ".model"))
"""Endings of an export's files; a folder with others, or with folders, is not replaced either."""

LONGEST = 200
"""Bytes of a folder's name: the temporary one beside it is longer by some forty, of 255."""

SPARE = 32_000_000
"""Bytes beside the weights: tokenizer, card and room to breathe."""


class ExportError(PruneCoreError):
    """A checkpoint could not be written; nothing of it is left, and an older one is untouched."""


def chosen_folder(text: str, *, overwrite: bool) -> Path:
    """The target that a user named, absolute.

    Raises:
        ExportError: files are not written in this mode, the name is no path, or see
            :func:`check_target`.
    """
    if mode() != "local":
        raise ExportError("Files cannot be written here; export from the command line instead.")
    if not text.strip():
        raise ExportError("Name a folder for the export.")
    if "\0" in text or len(text) > MAX_LENGTH:
        raise ExportError("{text} is not the name of a folder; choose another.", text=shown(text))
    try:
        folder = Path(text).expanduser()
    except RuntimeError:
        raise ExportError(
            "{text} names a home folder that is not known here.", text=shown(text)
        ) from None
    folder = Path(os.path.normpath(folder.absolute()))  # no .. in what is checked and shown
    check_target(folder, overwrite=overwrite)
    return folder


def check_target(folder: Path, *, overwrite: bool) -> None:
    """Refuse a place that cannot or should not be written.

    Raises:
        ExportError: it exists and may not be replaced, is no export, or its parent is not there.
    """
    name = shown(str(folder))
    if not folder.name:
        raise ExportError("Name a folder for the export.")
    try:
        if len(os.fsencode(folder.name)) > LONGEST:
            raise ExportError(
                "{name} is too long a name for an export; choose a shorter one.", name=name
            )
        if folder.is_symlink() or folder.is_file():
            raise ExportError(
                "{name} is not a folder; choose another name for the export.", name=name
            )
        if folder.is_dir():
            if not overwrite:
                raise ExportError(
                    "The folder {name} exists; choose another, or ask to overwrite it.", name=name
                )
            _check_own(folder)
        if not folder.parent.is_dir():
            raise ExportError(
                "There is no folder {parent} to write into.", parent=shown(str(folder.parent))
            )
    except OSError as error:
        raise ExportError(_sentence(error, folder)) from error


def _check_own(folder: Path) -> None:
    """Refuse to replace a folder that holds anything but an export; an empty one may go."""
    entries = sorted(folder.iterdir())
    names = {path.name for path in entries}
    if names and not names.issuperset((RECIPE, MEASURED)):
        raise ExportError(
            "The folder {name} holds no export of Prunescope; it is not overwritten.",
            name=shown(str(folder)),
        )
    for path in entries:
        ours = path.name == "LICENSE" or path.suffix in WRITTEN
        if not ours or path.is_symlink() or not path.is_file():
            raise ExportError(
                "The folder {name} holds {entry}, which no export wrote; move it away or choose "
                "another folder.",
                name=shown(str(folder)),
                entry=shown(path.name),
            )


def check_space(folder: Path, size: int) -> None:
    """Refuse before the work what would not fit after it.

    Args:
        folder: the target; its parent exists.
        size: bytes of the weights.

    Raises:
        ExportError: there is less room.
    """
    with suppress(OSError):
        free = shutil.disk_usage(folder.parent).free
        if free < size + SPARE // 16:
            raise ExportError(
                "The export needs about {need:,.1f} MB and there are {free:,.1f} MB free in "
                "{parent}; make room or choose another place.",
                need=size / 1e6,
                free=free / 1e6,
                parent=shown(str(folder.parent)),
            )


def write_folder(folder: Path, fill: Callable[[Path], None], *, overwrite: bool) -> None:
    """Let ``fill`` write into a temporary folder; move it to ``folder`` when it is complete.

    A process killed at any moment leaves the old folder or the new one under the name, complete.
    A temporary folder that it leaves beside it goes with the next export to that name.

    Args:
        folder: the target.
        fill: writes everything.
        overwrite: an existing export is replaced.

    Raises:
        ExportError: see :func:`check_target`; or the disk is full or not writable.
    """
    _clear_leftovers(folder)
    check_target(folder, overwrite=overwrite)
    temporary = folder.with_name(f".{folder.name}.tmp-{_owner()}-{uuid.uuid4().hex[:8]}")
    try:
        temporary.mkdir()
        fill(temporary)
        _readable(temporary)
        _to_disk(temporary)
        faults.point("export.before_replace")
        check_target(folder, overwrite=overwrite)  # it may have come up in the meantime
        _move(temporary, folder)
    except OSError as error:
        raise ExportError(_sentence(error, folder)) from error
    except PruneCoreError:
        raise
    except Exception as error:
        # safetensors reports a full disk in words of its own
        if "os error" in str(error).lower() or "No space" in str(error):
            raise ExportError(
                "The disk took no more while {folder} was written; make room.",
                folder=shown(str(folder)),
            ) from error
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _move(temporary: Path, folder: Path) -> None:
    """Under the target's name in one step; what was there is then under the temporary one."""
    if not folder.is_dir():
        temporary.replace(folder)
    elif not _swap_names(temporary, folder):
        # two steps where the system has no exchange: killed between them, the next export finds
        # the old folder under this name and puts it back
        old = folder.with_name(f".{folder.name}.old-{_owner()}-{uuid.uuid4().hex[:8]}")
        folder.replace(old)
        faults.point("export.between")
        try:
            temporary.replace(folder)
        except OSError:
            old.replace(folder)
            raise
        shutil.rmtree(old, ignore_errors=True)
    with suppress(OSError):
        _sync(folder.parent)


def _swap_names(one: Path, other: Path) -> bool:
    """Swap two names at once (Linux); False where that is not possible."""
    if not sys.platform.startswith("linux"):
        return False
    try:
        swap = ctypes.CDLL(None, use_errno=True).renameat2
    except (OSError, AttributeError):
        return False
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return bool(swap(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0)


def _clear_leftovers(folder: Path) -> None:
    """Put back and clear away what killed exports to the same name left beside it."""
    name = re.escape(folder.name)
    pattern = re.compile(rf"^\.{name}\.(tmp|old)-([0-9a-f]{{8}})-(\d+)-[0-9a-f]{{8}}$")
    try:
        matches = [(path, pattern.match(path.name)) for path in folder.parent.iterdir()]
    except OSError:
        return  # told where it is written to
    for path, match in matches:
        if match is None or not _is_abandoned(path, match[2], int(match[3])):
            continue
        if match[1] == "old" and not folder.exists():
            with suppress(OSError):
                path.replace(folder)
            continue
        shutil.rmtree(path, ignore_errors=True)


def _owner() -> str:
    host = uuid.uuid5(uuid.NAMESPACE_DNS, socket.gethostname()).hex[:8]
    return f"{host}-{os.getpid()}"


def _is_abandoned(path: Path, host: str, process: int) -> bool:
    """Nobody writes there any more: its process is gone, or it is of another machine and old."""
    if host == _owner().partition("-")[0] and hasattr(os, "kill"):
        if process == os.getpid():
            return False
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return True
        except OSError:
            pass
    with suppress(OSError):
        return time.time() - path.stat().st_mtime > 86_400
    return False


def _readable(folder: Path) -> None:
    """Files as open as the folder: safetensors makes its own for their owner alone."""
    allowed = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file():
            path.chmod(allowed)


def _to_disk(folder: Path) -> None:
    for path in [*folder.rglob("*"), folder]:
        _sync(path)


def _sync(path: Path) -> None:
    if path.is_dir() and os.name == "nt":
        return  # folders cannot be opened there
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EBADF, errno.EACCES):
            raise
    finally:
        os.close(handle)


def _sentence(error: OSError, folder: Path) -> Sentence:
    name = shown(str(folder))
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return Sentence(
            "The disk is full; {name} was not written. Make room and export again.", name=name
        )
    if error.errno == errno.EFBIG:
        return Sentence(
            "{name} was not written: a file grew past the size allowed here.", name=name
        )
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return Sentence(
            "{name} cannot be written: the place is read-only for this user.", name=name
        )
    return Sentence(
        "{name} cannot be written: {reason}.", name=name, reason=error.strerror or error
    )
