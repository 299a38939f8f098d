"""Fetch an asset: from the cache, an installed wheel, a folder of wheels, pip or uv; verified."""

from __future__ import annotations

import contextlib
import errno
import importlib.metadata
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from filelock import FileLock, Timeout

from prune_core.assets.cache import (
    CANCELLED,
    asset_folder,
    asset_path,
    assets_root,
    hash_file,
    is_cached,
    make_temporary,
    store_member,
    sweep_temporary,
)
from prune_core.assets.download import by_hand, find_uv, has_pip, pip_download, uv_install
from prune_core.assets.manifest import (
    Asset,
    Manifest,
    Member,
    WheelSource,
    project_manifest,
)
from prune_core.errors import AssetError
from prune_core.progress import NONE, Progress

LOCK_SECONDS = 1800.0
DISK_FACTOR = 2.2  # the wheel and the files out of it exist side by side for a moment

Opener = Callable[[Member], contextlib.AbstractContextManager[IO[bytes]]]


def offline() -> bool:
    """Whether ``PRUNE_OFFLINE`` forbids the network."""
    return os.environ.get("PRUNE_OFFLINE", "").strip().lower() not in ("", "0", "false", "no")


def fetch_asset(
    name: str,
    *,
    manifest: Manifest | None = None,
    verify: bool = False,
    progress: Progress = NONE,
) -> Path:
    """Bring an asset into the cache, if it is not there, and return where it lies.

    Args:
        name: as in the manifest.
        manifest: the project's, unless given.
        verify: hash cached files again instead of trusting their records.
        progress: stages ``fetch`` and ``verify`` in bytes; a cancel is seen while waiting,
            downloading and copying.

    Returns:
        The file of a one-file asset, else the folder of its files.

    Raises:
        AssetError: it could not be had; one sentence says why and what to do.
        Cancelled: by ``progress``; nothing is left behind.
    """
    manifest = manifest or project_manifest()
    asset = manifest[name]
    if is_cached(asset, rehash=verify):
        return asset_path(asset)
    root = assets_root()
    key = asset.source.sha256[:16]
    try:
        with _lock(root / f"{key}.lock", asset, progress):
            if not is_cached(asset, rehash=verify):  # another process may have been faster
                sweep_temporary(root, key)
                _fetch(asset, manifest, root, key, progress)
    except OSError as error:
        raise AssetError(_disk_sentence(asset, error)) from error
    return asset_path(asset)


def _disk_sentence(asset: Asset, error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return (
            f"{asset.title} could not be stored: the disk of the cache folder is full; free some "
            "space or set PRUNE_CACHE_DIR to another disk."
        )
    return (
        f"{asset.title} could not be stored in the cache folder ({error.strerror or error}); "
        "set PRUNE_CACHE_DIR to a folder that can be written."
    )


@contextlib.contextmanager
def _lock(path: Path, asset: Asset, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    waited = 0.0
    while True:
        progress.check(CANCELLED)
        try:
            lock.acquire(timeout=0.25)
            break
        except Timeout:
            waited += 0.25
            if waited >= LOCK_SECONDS:
                raise AssetError(
                    f"Another process has been fetching {asset.title} for half an hour; "
                    "end it and try again."
                ) from None
    try:
        yield
    finally:
        lock.release()


def _fetch(
    asset: Asset,
    manifest: Manifest,
    root: Path,
    key: str,
    progress: Progress,
) -> None:
    need = int(DISK_FACTOR * max(asset.source.size, asset.size))
    free = shutil.disk_usage(root).free
    if free < need:
        raise AssetError(
            f"{asset.title} needs {need / 1e6:.0f} MB of disk space while it is fetched, but the "
            f"cache folder's disk has {free / 1e6:.0f} MB; set PRUNE_CACHE_DIR to another disk."
        )
    temporary = make_temporary(root, key)

    def store(assets: tuple[Asset, ...], opener: Opener) -> None:
        for each in assets:
            for member in each.members:
                with opener(member) as stream:
                    folder = asset_folder(each)
                    store_member(stream, member, folder, temporary, progress=progress)

    try:
        installed = _installed(asset)
        if installed is not None:
            store((asset,), _folder_opener(installed, asset))
            return
        others = (a for a in manifest.sharing(asset.source) if a.name != asset.name)
        missing = (asset, *(a for a in others if not is_cached(a)))
        wheel = _local_wheel(asset.source)
        if wheel is None:
            _refuse_without_network(asset)
            if not has_pip():
                unpacked = uv_install(asset, temporary, progress=progress)
                store(missing, _folder_opener(unpacked, asset))
                return
            wheel = pip_download(asset, temporary, progress=progress)
        if hash_file(wheel, progress=progress) != asset.source.sha256:
            raise AssetError(
                f"{wheel.name} is not the wheel that the manifest names (its hash differs); "
                "it was not used: replace it with the published one."
            )
        store(missing, _wheel_opener(wheel))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_without_network(asset: Asset) -> None:
    if offline():
        raise AssetError(
            f"{asset.title} is not in the cache and PRUNE_OFFLINE forbids fetching it; unset "
            f"PRUNE_OFFLINE, or {by_hand(asset)}."
        )
    if not has_pip() and find_uv() is None:
        raise AssetError(f"Neither pip nor uv is here to fetch {asset.title}; {by_hand(asset)}.")


def _installed(asset: Asset) -> Path | None:
    """Root of the package if it is installed in the pinned version with files of the right size."""
    try:
        distribution = importlib.metadata.distribution(asset.source.package)
    except importlib.metadata.PackageNotFoundError:
        return None
    if distribution.version != asset.source.version:
        return None
    root = Path(str(distribution.locate_file("")))
    paths = {str(path) for path in distribution.files or ()}
    for member in asset.members:
        path = root / member.path
        if member.path not in paths or not path.is_file() or path.stat().st_size != member.size:
            return None
        if hash_file(path) != member.sha256:
            return None
    return root


def _local_wheel(source: WheelSource) -> Path | None:
    folder = os.environ.get("PRUNE_ASSETS_DIR")
    if not folder:
        return None
    wheel = Path(folder).expanduser() / source.wheel
    return wheel if wheel.is_file() else None


def _folder_opener(root: Path, asset: Asset) -> Opener:
    @contextlib.contextmanager
    def open_member(member: Member) -> Iterator[IO[bytes]]:
        path = root / member.path
        if not path.is_file():
            raise AssetError(f"{asset.source.wheel} holds no {member.path}; it was not used.")
        with path.open("rb") as stream:
            yield stream

    return open_member


def _wheel_opener(wheel: Path) -> Opener:
    @contextlib.contextmanager
    def open_member(member: Member) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(wheel) as archive:
                found = [info for info in archive.infolist() if info.filename == member.path]
                if len(found) != 1:
                    raise AssetError(
                        f"{wheel.name} holds {len(found)} files called {member.path} where the "
                        "manifest names one; it was not used."
                    )
                if found[0].file_size != member.size:
                    raise AssetError(
                        f"{member.path} in {wheel.name} has {found[0].file_size} bytes where the "
                        f"manifest names {member.size}; it was not used."
                    )
                with archive.open(found[0]) as stream:
                    yield stream
        except zipfile.BadZipFile as error:
            raise AssetError(f"{wheel.name} is damaged; it was not used.") from error

    return open_member
