"""Where an export lies: full and read-only places, old exports, and kills at every moment."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from prune_core.engine.core import Core
from prune_core.errors import Cancelled, PruneCoreError
from prune_core.exporting import write
from prune_core.exporting.write import ExportError, write_folder
from prune_core.jobs.base import TextSpec
from prune_core.jobs.exports import Export
from prune_core.paths import PROJECT_ROOT
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe

TEXT = TextSpec("inline", "The fox ran over the hill and far away from here. " * 60)
LAST = Recipe(sparsity=0.3, drop_blocks=(1,))
NAMES = ("model.safetensors", "config.json", "recipe.json", "measured.json")


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Core()


@pytest.fixture
def run(core: Core) -> Callable[..., dict[str, Any]]:
    return lambda job: core.run(job)


def job(recipe: Recipe, folder: Path, form: str = "shrunk") -> Export:
    return Export("tiny-llama", recipe, str(folder), form, False, TEXT, 32, 2, 0)


def content(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def old(run: Callable[..., dict[str, Any]], tmp_path: Path) -> tuple[Path, dict[str, bytes]]:
    """An export that is there already."""
    run(job(LAST, tmp_path / "out"))
    return tmp_path / "out", content(tmp_path / "out")


def test_an_existing_folder_is_kept_unless_it_may_go(
    old: tuple[Path, dict[str, bytes]], run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder, before = old
    other = job(Recipe(sparsity=0.1), folder)
    with pytest.raises(PruneCoreError, match="exists"):
        run(other)
    assert content(folder) == before
    run(replace(other, overwrite=True))
    assert Recipe.from_json((folder / "recipe.json").read_text()) == other.recipe
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["folder", "file", "link"])
def test_what_is_no_export_is_never_replaced(
    kind: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    mine = tmp_path / "mine"
    if kind == "file":
        mine.write_text("dear")
    else:
        real = tmp_path / "real"
        real.mkdir()
        (real / "letter.txt").write_text("dear")
        mine.symlink_to(real) if kind == "link" else real.rename(mine)
    with pytest.raises(PruneCoreError, match=r"holds no export|is not a folder"):
        run(replace(job(LAST, mine), overwrite=True))
    assert "dear" in (mine / "letter.txt" if mine.is_dir() else mine).read_text()


@pytest.mark.parametrize("place", ["", "no/such/parent/out"])
def test_no_place_to_write(place: str, run: Callable[..., dict[str, Any]], tmp_path: Path) -> None:
    folder = str(tmp_path / place) if place else ""
    with pytest.raises(PruneCoreError, match=r"Name a folder|There is no folder"):
        run(replace(job(LAST, tmp_path), folder=folder))


def test_a_name_that_leaves_no_room_for_the_temporary_one(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="too long a name"):
        run(job(LAST, tmp_path / ("x" * 230)))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        (errno.ENOSPC, "disk is full"),
        (errno.EDQUOT, "disk is full"),
        (errno.EROFS, "read-only"),
        (errno.EACCES, "read-only"),
        (errno.EFBIG, "size allowed"),
    ],
)
@pytest.mark.parametrize(
    "moment",
    [
        "transformers.PreTrainedModel.save_pretrained",
        "transformers.PreTrainedTokenizerFast.save_pretrained",
        "prune_core.exporting.run.model_card",
        "prune_core.exporting.write._sync",
    ],
)
def test_a_place_that_takes_no_more(
    moment: str,
    code: int,
    sentence: str,
    old: tuple[Path, dict[str, bytes]],
    run: Callable[..., dict[str, Any]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    folder, before = old

    def full(*arguments: Any, **more: Any) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(moment, full)
    with pytest.raises(PruneCoreError, match=sentence) as refused:
        run(replace(job(Recipe(sparsity=0.1), folder), overwrite=True))
    assert str(refused.value).count(". ") <= 1
    assert content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 300 kB of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(words, capture_output=True).returncode:
        pytest.skip("A file system cannot be mounted here.")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_a_disk_that_is_too_small_is_seen_before_the_work(
    small_disk: Path, run: Callable[..., dict[str, Any]]
) -> None:
    with pytest.raises(ExportError, match=r"needs about .* MB free"):
        run(job(LAST, small_disk / "out"))
    assert not list(small_disk.iterdir())


def test_a_disk_that_fills_up(
    small_disk: Path, run: Callable[..., dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("prune_core.exporting.run.check_space", lambda folder, size: None)
    (small_disk / "other").write_bytes(b"x" * 150_000)
    with pytest.raises(ExportError, match="disk"):
        run(job(LAST, small_disk / "out"))
    assert [path.name for path in small_disk.iterdir()] == ["other"]


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_write_permission(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(ExportError, match="read-only"):
            run(job(LAST, tmp_path / "out"))
    finally:
        tmp_path.chmod(0o700)


def test_files_are_as_readable_as_their_folder(
    old: tuple[Path, dict[str, bytes]],
) -> None:
    folder, _ = old
    allowed = folder.stat().st_mode & 0o666
    assert {path.stat().st_mode & 0o777 for path in folder.iterdir()} == {allowed}


# ---- killed ----------------------------------------------------------------------------------

CHILD = """
import sys, time
from pathlib import Path
from prune_core.exporting import write
folder, moment, exchange = Path(sys.argv[1]), sys.argv[2], sys.argv[3] == "exchange"
if not exchange:
    write._swap_names = lambda one, other: False
def fill(place):
    for name in sys.argv[4:]:
        with (place / name).open("w") as file:
            file.write("new " * 1000)
            file.flush()
            if name == moment:
                print("now", flush=True)
                time.sleep(600)
            file.write("new " * 1000)
write.write_folder(folder, fill, overwrite=True)
"""
NEW = ("new " * 2000).encode()


def started(folder: Path, moment: str, exchange: str) -> subprocess.Popen[bytes]:
    faults = f"export.{moment}=kill" if moment.startswith(("before", "between")) else ""
    return subprocess.Popen(
        [sys.executable, "-c", CHILD, str(folder), moment, exchange, *NAMES],
        env={**os.environ, "PRUNE_FAULTS": faults, "PYTHONPATH": str(PROJECT_ROOT)},
        stdout=subprocess.PIPE,
    )


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="there is no SIGKILL here")
@pytest.mark.parametrize("exchange", ["exchange", "two steps"])
@pytest.mark.parametrize("moment", [*NAMES, "before_replace", "between"])
@pytest.mark.parametrize("there", [True, False])
def test_killed_at_any_moment(there: bool, moment: str, exchange: str, tmp_path: Path) -> None:
    folder = tmp_path / "out"
    if there:
        folder.mkdir()
        for name in NAMES:
            (folder / name).write_text("old")
    before = content(folder) if there else None
    child = started(folder, moment, exchange)
    assert child.stdout is not None
    if moment in NAMES:
        assert child.stdout.readline() == b"now\n"
        child.kill()
    child.stdout.close()
    code = child.wait(300)
    reached = moment != "between" or (there and exchange == "two steps")
    assert code == (-signal.SIGKILL if reached else 0)
    if not reached:  # nothing stood between: all went well
        assert content(folder) == dict.fromkeys(NAMES, NEW)
        return
    half = [path for path in tmp_path.iterdir() if path != folder]
    assert half and all(path.name.startswith(".") for path in half)  # no one takes it for an export
    if moment != "between":
        assert folder.exists() is there
        assert before is None or content(folder) == before
    # the next export finds the old one, whole, and clears away what was left
    with pytest.raises(ExportError if there else Cancelled):
        write_folder(folder, _refused, overwrite=False)
    assert before is None or content(folder) == before
    assert [path.name for path in tmp_path.iterdir()] == (["out"] if there else [])


def _refused(place: Path) -> None:
    raise Cancelled("Enough.")


def test_what_others_are_writing_is_left_alone(tmp_path: Path) -> None:
    """Two exports to one name: the one that ends last stands, whole, if it may replace."""
    folder = tmp_path / "out"
    child = started(folder, NAMES[1], "exchange")
    assert child.stdout is not None and child.stdout.readline() == b"now\n"
    (theirs,) = tmp_path.iterdir()

    def fill(place: Path) -> None:
        for name in NAMES:
            (place / name).write_text("ours")

    write_folder(folder, fill, overwrite=False)
    assert theirs.is_dir() and content(folder) == dict.fromkeys(NAMES, b"ours")
    child.kill()
    child.stdout.close()
    child.wait(300)
    write_folder(folder, fill, overwrite=True)
    assert not theirs.exists() and [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_comes_up_while_it_writes_is_kept(overwrite: bool, tmp_path: Path) -> None:
    folder = tmp_path / "out"

    def fill(place: Path) -> None:
        (place / "recipe.json").write_text("ours")
        folder.mkdir()
        (folder / "thesis.txt").write_text("dear")

    with pytest.raises(ExportError, match=r"exists|holds no export"):
        write_folder(folder, fill, overwrite=overwrite)
    assert content(folder) == {"thesis.txt": b"dear"}
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize("kind", ["a folder", "a file", "a link", "only a recipe"])
def test_an_export_that_holds_something_else_is_kept(
    kind: str, old: tuple[Path, dict[str, bytes]], run: Callable[..., dict[str, Any]]
) -> None:
    folder, _ = old
    if kind == "a folder":
        (folder / "thesis.json").mkdir()
    elif kind == "a file":
        (folder / "thesis.docx").write_text("dear")
    elif kind == "a link":
        (folder / "thesis.json").symlink_to(folder / "config.json")
    else:
        (folder / "measured.json").unlink()
    before = sorted(path.name for path in folder.iterdir())
    with pytest.raises(PruneCoreError, match=r"holds thesis\.|holds no export"):
        run(replace(job(Recipe(sparsity=0.1), folder), overwrite=True))
    assert sorted(path.name for path in folder.iterdir()) == before


def test_a_folder_of_another_machine_goes_after_a_day(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    foreign = tmp_path / ".out.tmp-00000000-1-abcdef01"
    unlike = tmp_path / ".out.tmp-mine"
    for place in (foreign, unlike):
        place.mkdir()
    write._clear_leftovers(folder)
    assert foreign.exists() and unlike.exists()
    os.utime(foreign, (1, 1))
    os.utime(unlike, (1, 1))
    write._clear_leftovers(folder)
    assert not foreign.exists() and unlike.exists()


def test_killed_before_the_move_by_the_command_line(
    old: tuple[Path, dict[str, bytes]], tmp_path: Path
) -> None:
    folder, before = old
    text = tmp_path / "text.txt"
    text.write_text(TEXT.value)
    words = ["export", "tiny-llama", "--sparsity", "0.1", "--to", str(folder), "--overwrite"]
    words += ["--text", str(text), "--seq-len", "32", "--windows", "2", "--repeats", "0"]
    done = subprocess.run(
        [sys.executable, "-m", "prune_core", *words],
        env={**os.environ, "PRUNE_FAULTS": "export.before_replace=kill"},
        cwd=PROJECT_ROOT,
        capture_output=True,
        check=False,
    )
    assert done.returncode == -signal.SIGKILL
    assert content(folder) == before


@pytest.mark.parametrize("stage", ["write", "load", "verify", "measure"])
def test_cancel_leaves_nothing(stage: str, core: Core, tmp_path: Path) -> None:
    stages: list[str] = []
    with pytest.raises(Cancelled):
        core.run(
            replace(job(LAST, tmp_path / "out"), repeats=1),
            Progress(
                lambda event: stages.append(str(event.get("stage"))),
                lambda: stage in stages,
            ),
        )
    assert not list(tmp_path.iterdir())


def test_only_a_local_app_writes_files(
    run: Callable[..., dict[str, Any]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_MODE", "team")
    with pytest.raises(PruneCoreError, match="cannot be written here"):
        run(job(LAST, tmp_path / "out"))
