"""Fetching: whole and verified, or one clear sentence and nothing left behind."""

from __future__ import annotations

import hashlib
import importlib.metadata
import importlib.util
import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import zipfile
from pathlib import Path

import pytest

from prune_core.assets import download, fetch
from prune_core.assets.cache import asset_folder, is_cached
from prune_core.assets.fetch import fetch_asset
from prune_core.assets.manifest import Manifest, project_manifest, read_manifest
from prune_core.errors import AssetError, Cancelled
from prune_core.progress import Progress

PROJECT = Path(__file__).resolve().parents[2]
CONTENT = b"a tale worth keeping\n" * 500
OTHER = b"another tale\n" * 40


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def make_wheel(folder: Path, entries: list[tuple[str, bytes]]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    wheel = folder / "fake_tales-1.0-py3-none-any.whl"
    info = "fake_tales-1.0.dist-info"
    entries = [
        *entries,
        (f"{info}/METADATA", b"Metadata-Version: 2.1\nName: fake-tales\nVersion: 1.0\n"),
        (f"{info}/WHEEL", b"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"),
    ]
    record = "".join(f"{name},,\n" for name, _ in entries) + f"{info}/RECORD,,\n"
    with zipfile.ZipFile(wheel, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in [*entries, (f"{info}/RECORD", record.encode())]:
            archive.writestr(name, content)
    return wheel


def make_manifest(path: Path, wheel: Path, **changes: object) -> Path:
    source = {
        "index": "pypi",
        "package": "fake-tales",
        "version": "1.0",
        "wheel": wheel.name,
        "size": wheel.stat().st_size,
        "sha256": sha256(wheel.read_bytes()),
    }

    def asset(name: str, content: bytes) -> dict[str, object]:
        member = {
            "path": f"tales/{name}.txt",
            "name": f"{name}.txt",
            "size": len(content),
            "sha256": sha256(content),
        }
        return {
            "kind": "text",
            "format": "orange-tab",
            "title": f"Tale {name}",
            "summary": "",
            "parameters": 0,
            "license": "Public domain",
            "license_note": "",
            "provenance": "a test",
            "provenance_url": "",
            "redistributable": True,
            "source": source | changes,
            "members": [member],
        }

    assets = {"one": asset("one", CONTENT), "two": asset("two", OTHER)}
    path.write_text(json.dumps({"schema": 1, "assets": assets}))
    return path


@pytest.fixture
def wheels(tmp_path: Path) -> Path:
    folder = tmp_path / "wheels"
    make_wheel(folder, [("tales/one.txt", CONTENT), ("tales/two.txt", OTHER)])
    return folder


@pytest.fixture
def manifest_path(tmp_path: Path, wheels: Path) -> Path:
    return make_manifest(tmp_path / "manifest.json", next(wheels.iterdir()))


@pytest.fixture
def manifest(manifest_path: Path) -> Manifest:
    return read_manifest(manifest_path)


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    for name in ("PRUNE_ASSETS_DIR", "PRUNE_OFFLINE", "PRUNE_FAULTS"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def from_folder(wheels: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_ASSETS_DIR", str(wheels))


def left_behind(tmp_path: Path) -> list[str]:
    """Everything in the cache but locks and finished files."""
    root = tmp_path / "cache" / "assets"
    names = [str(p.relative_to(root)) for p in root.rglob("*") if p.is_file()]
    return sorted(n for n in names if not n.endswith((".lock", ".ok")))


def test_the_projects_manifest_is_complete() -> None:
    manifest = project_manifest()
    assert [a.name for a in manifest.of_kind("model")] == ["smollm2-135m", "minilm-l6"]
    assert [a.name for a in manifest.of_kind("text")] == ["grimm", "andersen"]
    for asset in manifest.assets.values():
        assert asset.license and asset.license_note and asset.provenance and asset.provenance_url
        assert len(asset.source.sha256) == 64 and all(len(m.sha256) == 64 for m in asset.members)
    assert {a.name for a in manifest.sharing(manifest["grimm"].source)} == {"grimm", "andersen"}


def test_an_unknown_asset_gets_a_hint() -> None:
    with pytest.raises(AssetError, match="Did you mean grimm"):
        fetch_asset("grim")


@pytest.mark.usefixtures("from_folder")
def test_a_wheel_in_the_folder_serves_all_its_assets(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[str, int, int, str]] = []
    path = fetch_asset(
        "one",
        manifest=manifest,
        progress=Progress(lambda e: seen.append((e["stage"], e["done"], e["total"], e["unit"]))),
    )
    assert path.read_bytes() == CONTENT
    assert seen[-1][0] == "verify" and seen[-1][3] == "bytes"
    assert seen[-1][1] == seen[-1][2]
    monkeypatch.delenv("PRUNE_ASSETS_DIR")
    monkeypatch.setenv("PRUNE_OFFLINE", "1")
    assert fetch_asset("two", manifest=manifest).read_bytes() == OTHER  # no second fetch needed
    assert len(left_behind(tmp_path)) == 2


@pytest.mark.usefixtures("from_folder")
def test_a_touched_file_is_hashed_again_and_replaced(manifest: Manifest) -> None:
    path = fetch_asset("one", manifest=manifest)
    damaged = bytearray(CONTENT)
    damaged[7] ^= 0xFF
    path.write_bytes(bytes(damaged))
    os.utime(path, ns=(1, 1))
    assert not is_cached(manifest["one"])
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT


@pytest.mark.usefixtures("from_folder")
def test_verify_finds_damage_that_kept_the_time(manifest: Manifest) -> None:
    path = fetch_asset("one", manifest=manifest)
    stamp = path.stat().st_mtime_ns
    path.write_bytes(b"x" * len(CONTENT))
    os.utime(path, ns=(stamp, stamp))
    assert is_cached(manifest["one"])
    assert not is_cached(manifest["one"], rehash=True)
    assert fetch_asset("one", manifest=manifest, verify=True).read_bytes() == CONTENT


def test_a_file_without_its_record_is_not_trusted(manifest: Manifest) -> None:
    folder = asset_folder(manifest["one"])
    folder.mkdir(parents=True)
    (folder / "one.txt").write_bytes(CONTENT)
    assert not is_cached(manifest["one"])


@pytest.mark.usefixtures("from_folder")
def test_row_59_a_wheel_with_another_hash_is_refused(
    wheels: Path, manifest: Manifest, tmp_path: Path
) -> None:
    make_wheel(wheels, [("tales/one.txt", b"forged"), ("tales/two.txt", OTHER)])
    with pytest.raises(AssetError, match="hash differs"):
        fetch_asset("one", manifest=manifest)
    assert left_behind(tmp_path) == []


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([("tales/one.txt", CONTENT), ("tales/one.txt", CONTENT)], "holds 2 files"),
        ([("../tales/one.txt", CONTENT)], "holds 0 files"),
        ([("tales/one.txt", CONTENT * 3)], "has 31500 bytes where the manifest names 10500"),
        ([("tales/one.txt", CONTENT[::-1])], "hash or size differs"),
    ],
    ids=["two-members", "traversal", "larger", "other-bytes"],
)
def test_row_65_a_wheel_that_is_not_as_described_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    entries: list[tuple[str, bytes]],
    message: str,
) -> None:
    if len(entries) == 2:
        with pytest.warns(UserWarning, match="Duplicate name"):
            wheel = make_wheel(tmp_path / "bad", entries)
    else:
        wheel = make_wheel(tmp_path / "bad", entries)
    manifest = read_manifest(make_manifest(tmp_path / "bad.json", wheel))
    monkeypatch.setenv("PRUNE_ASSETS_DIR", str(wheel.parent))
    with pytest.raises(AssetError, match=message):
        fetch_asset("one", manifest=manifest)
    assert left_behind(tmp_path) == []
    assert not list((tmp_path / "cache" / "assets").glob(".tmp-*"))


def test_row_65_a_member_that_unpacks_past_its_size_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = make_wheel(tmp_path / "bomb", [("tales/one.txt", b"\0" * 5_000_000)])
    # the central directory claims the pinned size; the stream holds far more
    claimed = len(CONTENT).to_bytes(4, "little")
    wheel.write_bytes(wheel.read_bytes().replace((5_000_000).to_bytes(4, "little"), claimed))
    manifest = read_manifest(make_manifest(tmp_path / "bomb.json", wheel))
    monkeypatch.setenv("PRUNE_ASSETS_DIR", str(wheel.parent))
    with pytest.raises(AssetError):
        fetch_asset("one", manifest=manifest)
    assert left_behind(tmp_path) == []


@pytest.mark.usefixtures("from_folder")
def test_row_44_a_full_disk_leaves_no_file(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_FAULTS", "fetch.before_replace=disk-full")
    with pytest.raises(AssetError, match="disk of the cache folder is full"):
        fetch_asset("one", manifest=manifest)
    assert left_behind(tmp_path) == []
    monkeypatch.delenv("PRUNE_FAULTS")
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT


@pytest.mark.usefixtures("from_folder")
def test_row_44_a_file_that_the_disk_cuts_short_is_gone(manifest: Manifest, tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(AssetError, match="disk of the cache folder is full"):
            fetch_asset("one", manifest=manifest)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert left_behind(tmp_path) == []


@pytest.mark.usefixtures("from_folder")
def test_row_44_too_small_a_disk_is_told_before_any_byte(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = fetch.shutil.disk_usage("/")
    monkeypatch.setattr(fetch.shutil, "disk_usage", lambda _: usage._replace(free=10_000))
    with pytest.raises(AssetError, match="MB of disk space"):
        fetch_asset("one", manifest=manifest)


@pytest.mark.usefixtures("from_folder")
def test_a_cancelled_fetch_leaves_nothing(manifest: Manifest, tmp_path: Path) -> None:
    with pytest.raises(Cancelled):
        fetch_asset("one", manifest=manifest, progress=Progress(cancelled=lambda: True))
    assert left_behind(tmp_path) == []
    assert not list((tmp_path / "cache" / "assets").glob(".tmp-*"))


def start(manifest_path: Path, **environment: str) -> subprocess.Popen[str]:
    """Fetch in another process; it prints the hash of what it got."""
    program = textwrap.dedent(
        """
        import hashlib, sys
        from pathlib import Path
        from prune_core.assets.fetch import fetch_asset
        from prune_core.assets.manifest import read_manifest
        path = fetch_asset("one", manifest=read_manifest(Path(sys.argv[1])))
        print(hashlib.sha256(path.read_bytes()).hexdigest())
        """
    )
    return subprocess.Popen(
        [sys.executable, "-c", program, str(manifest_path)],
        env={**os.environ, **environment},
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("place", ["fetch.before_replace", "fetch.before_ok"])
@pytest.mark.usefixtures("from_folder")
def test_row_45_a_killed_fetch_is_swept_up_and_repeated(
    place: str, manifest: Manifest, manifest_path: Path, tmp_path: Path
) -> None:
    with start(manifest_path, PRUNE_FAULTS=f"{place}=kill") as process:
        process.communicate(timeout=300)
    assert process.returncode == -signal.SIGKILL
    root = tmp_path / "cache" / "assets"
    assert list(root.glob(".tmp-*"))  # it did die in the middle
    assert not list(root.rglob("*.ok"))
    assert not is_cached(manifest["one"])
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT
    assert not list(root.glob(".tmp-*"))


@pytest.mark.usefixtures("from_folder")
def test_old_temporaries_of_other_assets_go_young_ones_stay(
    manifest: Manifest, tmp_path: Path
) -> None:
    root = tmp_path / "cache" / "assets"
    for name, age in (("old", 2 * 24 * 3600), ("young", 60)):
        folder = root / f".tmp-{name}-0123456789ab"
        folder.mkdir(parents=True)
        os.utime(folder, (time.time() - age, time.time() - age))
    fetch_asset("one", manifest=manifest)
    assert [p.name for p in root.glob(".tmp-*")] == [".tmp-young-0123456789ab"]


@pytest.mark.usefixtures("from_folder")
def test_row_58_two_processes_fetch_at_once(manifest_path: Path, tmp_path: Path) -> None:
    with start(manifest_path) as first, start(manifest_path) as second:
        outputs = [process.communicate(timeout=300) for process in (first, second)]
    assert [out.strip() for out, _ in outputs] == [sha256(CONTENT)] * 2, outputs
    assert len(left_behind(tmp_path)) == 2


@pytest.fixture
def pip_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)


@pytest.mark.usefixtures("pip_environment")
def test_pip_downloads_and_reports(
    wheels: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_TARGET", "/nowhere")  # a variable that would lead pip astray
    seen: list[tuple[str, int, int, str]] = []
    path = fetch_asset(
        "one",
        manifest=manifest,
        progress=Progress(lambda e: seen.append((e["stage"], e["done"], e["total"], e["unit"]))),
    )
    assert path.read_bytes() == CONTENT
    size = manifest["one"].source.size
    assert ("fetch", size, size, "bytes") in seen


@pytest.mark.usefixtures("pip_environment")
def test_row_59_pip_meets_another_hash(
    tmp_path: Path, wheels: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel = next(wheels.iterdir())
    manifest = read_manifest(make_manifest(tmp_path / "m.json", wheel, sha256="0" * 64))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    with pytest.raises(AssetError, match="its hash differs"):
        fetch_asset("one", manifest=manifest)
    assert left_behind(tmp_path) == []


@pytest.mark.usefixtures("pip_environment")
def test_row_59_an_unreachable_index_is_named_without_its_url(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@127.0.0.1:9/simple")
    with pytest.raises(AssetError, match="cannot be reached") as caught:
        fetch_asset("one", manifest=manifest)
    assert "secret" not in str(caught.value) and "127.0.0.1" not in str(caught.value)
    assert "PRUNE_ASSETS_DIR" in str(caught.value)


@pytest.mark.usefixtures("pip_environment")
def test_row_59_an_index_without_the_package(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(AssetError, match=r"has no fake-tales==1\.0"):
        fetch_asset("one", manifest=manifest)


@pytest.mark.parametrize(
    ("output", "sentence"),
    [
        ("ERROR: 403 Client Error: Forbidden for url: https://u:p@x/", "HTTP 403"),
        ("OSError: [Errno 28] No space left on device", "disk is full"),
        ("something else entirely https://u:p@x/", "pip failed"),
    ],
)
def test_row_59_what_pip_says_becomes_one_sentence(
    manifest: Manifest, output: str, sentence: str
) -> None:
    text = download._explain(output, manifest["one"], "pip", 1)
    assert sentence in text and "u:p" not in text


def test_a_cancelled_download_ends_pip(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = tmp_path / "slow.py"
    slow.write_text("import time; time.sleep(600)")
    real = subprocess.Popen
    started: list[subprocess.Popen[bytes]] = []

    def popen(command: list[str], **options: object) -> subprocess.Popen[bytes]:
        started.append(real([sys.executable, str(slow)], **options))
        return started[0]

    monkeypatch.setattr(download.subprocess, "Popen", popen)
    with pytest.raises(Cancelled):
        fetch_asset("one", manifest=manifest, progress=Progress(cancelled=lambda: bool(started)))
    assert started[0].returncode == -signal.SIGKILL
    assert not list((tmp_path / "cache" / "assets").glob(".tmp-*"))


def test_offline_is_told(manifest: Manifest, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_OFFLINE", "1")
    with pytest.raises(AssetError, match="PRUNE_OFFLINE forbids"):
        fetch_asset("one", manifest=manifest)


def test_row_60_without_pip_and_uv_there_is_a_way_by_hand(
    manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(AssetError, match=r"Neither pip nor uv .* put fake_tales-1\.0"):
        fetch_asset("one", manifest=manifest)


def test_row_60_without_pip_uv_serves(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "bin" / "uv"
    program.parent.mkdir()
    program.write_text(
        f"#!{sys.executable}\n"
        "import pathlib, sys\n"
        "options = dict(a.split('=', 1) for a in sys.argv if a.startswith('--') and '=' in a)\n"
        "folder = pathlib.Path(options['--target']) / 'tales'\n"
        "folder.mkdir(parents=True)\n"
        f"(folder / 'one.txt').write_bytes({CONTENT!r})\n"
        f"(folder / 'two.txt').write_bytes({OTHER!r})\n"
    )
    program.chmod(0o755)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    monkeypatch.setenv("PATH", str(program.parent))
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT


def test_an_installed_wheel_is_used(
    tmp_path: Path, wheels: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    with zipfile.ZipFile(next(wheels.iterdir())) as archive:
        archive.extractall(site)
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("PRUNE_OFFLINE", "1")
    assert importlib.metadata.version("fake-tales") == "1.0"
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT


def test_row_61_a_cache_that_cannot_be_written_is_told(
    tmp_path: Path, manifest: Manifest, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    with pytest.raises(AssetError, match="set PRUNE_CACHE_DIR"):
        fetch_asset("one", manifest=manifest)


@pytest.mark.usefixtures("from_folder")
def test_row_61_temporaries_share_the_caches_file_system(
    manifest: Manifest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", "/proc/nowhere")
    assert fetch_asset("one", manifest=manifest).read_bytes() == CONTENT
