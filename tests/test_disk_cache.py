from __future__ import annotations

import logging
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prune_core import cache_files, disk_cache
from prune_core.analysis.neurons.statistics import neuron_statistics
from prune_core.calibration.statistics import statistics_of
from prune_core.calibration.windows import calibration_windows
from prune_core.disk_cache import DiskCache, Record, key_of, notices
from prune_core.exporting.cost import temporary_checkpoints
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.fingerprint import file_sha256
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.pruning.ranks import RankStore
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import prepare, work_out

READ = TextSpec("inline", "The miller had three sons, and the youngest was given a cat. " * 40)
ASKED = TextSpec(
    "inline", "Once upon a time a king's daughter lost her golden ball in a well. " * 40
)
NUMBERS = ("nll", "nll_dense", "kl", "perplexity", "top1", "removed", "window_nll")


@pytest.fixture(autouse=True)
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A cache of its own, in a process that has seen none."""
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    forget()
    yield tmp_path / "cache"
    forget()


def forget() -> None:
    """What a new process would not know."""
    for memory in (disk_cache._notices, cache_files._checked, disk_cache._memory):
        memory.clear()
    disk_cache._swept.clear()


def settle(path: Path) -> None:
    """Make a file look older than the coarsest clock, so that its check is remembered."""
    past = time.time_ns() - 60 * 10**9
    os.utime(path, ns=(past, past))


def damage(path: Path, dice: random.Random, *, unseen: bool = False) -> None:
    """Write 1 to 4,096 random bytes somewhere, with the size and, unseen, the time as they were."""
    status = path.stat()
    length = min(dice.randint(1, 4096), status.st_size)
    with path.open("r+b") as file:
        file.seek(dice.randint(0, status.st_size - length))
        file.write(dice.randbytes(length))
    if unseen:
        os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def cat(tensors: Mapping[Any, Tensor]) -> Tensor:
    return torch.cat([x.reshape(-1).double() for x in tensors.values()])


class Caches:
    """Each cache of the project by name: a function that reads it as the project does."""

    def __init__(self, handle: ModelHandle, model_file: Path) -> None:
        self.handle, self.structure = handle, handle.structure
        self.model_file = model_file
        model_file.write_bytes(bytes(range(256)) * 20)
        self.windows = calibration_windows(
            handle.tokenizer, Calibration(READ, 2, 16), handle.info.context
        )
        self.readers: dict[str, Callable[[], Tensor]] = {
            "ranks": self.ranks,
            "ordered": self.ordered,
            "dense": self.dense,
            "edits": self.edits,
            "neurons": self.neurons,
            "sensitivity": self.sensitivity,
            "hashes": self.hashes,
        }
        for kind in ("input_norm", "obs_diagonal", "gradient_square"):
            self.readers[kind] = lambda kind=kind: self.statistics(kind)

    def store(self) -> RankStore:
        return RankStore(self.handle.model, self.structure.layers, self.handle.fingerprint)

    def ranks(self) -> Tensor:
        return cat(self.store().ranked("magnitude", {}, "per-row").ranks)

    def ordered(self) -> Tensor:
        scores = self.store().ordered("magnitude", {})
        return cat({name: torch.from_numpy(x) for name, x in scores.items()})

    def statistics(self, kind: str) -> Tensor:
        statistics = statistics_of(
            self.handle.model, self.structure, "print", self.windows, frozenset({kind})
        )
        field = "gradient" if kind.startswith("gradient") else kind
        return cat({name: getattr(x, field) for name, x in statistics.layers.items()})

    def dense(self) -> Tensor:
        reference = LoadedModel(self.handle).reference
        answer = reference.find(self.windows[0]) or reference.measure(self.windows[0])
        return torch.cat([answer.losses, answer.top_logp.reshape(-1), answer.top1]).double()

    def edits(self) -> Tensor:
        recipe = Recipe(
            reconstruction="sparsegpt", sparsity=0.3, calibration=Calibration(READ, 2, 16)
        )
        edits = work_out(LoadedModel(self.handle), recipe).edits
        assert edits is not None
        return torch.cat([cat(edits.weights), cat(edits.bits)])

    def neurons(self) -> Tensor:
        statistics = neuron_statistics(self.handle.model, self.structure, "print", self.windows)
        return cat(statistics.values)

    def sensitivity(self) -> Tensor:
        recipe = Recipe(
            allocation="sensitivity", sparsity=0.3, calibration=Calibration(READ, 2, 16)
        )
        increases = prepare(LoadedModel(self.handle), recipe).increases
        assert increases is not None
        return torch.tensor(increases[1], dtype=torch.float64)

    def hashes(self) -> Tensor:
        return torch.tensor(list(bytes.fromhex(file_sha256(self.model_file))))


def made_by(name: str, root: Path, before: set[Path]) -> list[Path]:
    """The new files of one of :class:`Caches`, without those of others that it read."""
    folder = {"ordered": "ranks"}.get(name, name)
    folder = "statistics" if "_" in folder else folder
    return sorted(p for p in set(root.rglob("*.cache")) - before if p.parent.name == folder)


@pytest.fixture
def caches(handles: Mapping[str, ModelHandle], tmp_path: Path) -> Caches:
    return Caches(handles["tiny-llama"], tmp_path / "model.bin")


def test_two_hundred_random_damages_change_no_number(caches: Caches, fresh: Path) -> None:
    expected, files = {}, {}
    for name, reader in caches.readers.items():
        before = set(fresh.rglob("*.cache"))
        expected[name] = reader()
        files[name] = made_by(name, fresh, before)
    assert all(files.values()), "a cache wrote nothing"
    dice = random.Random(20)
    noticed = 0
    for turn in range(200):
        name = dice.choice(list(files))
        path = dice.choice(files[name])
        whole = path.read_bytes()
        settle(path)
        if turn % 2:  # this process has checked the file before: only its time tells
            caches.readers[name]()
            disk_cache._notices.clear()
        else:  # a process that first sees the file
            forget()
        damage(path, dice, unseen=not turn % 4)
        changed = path.read_bytes() != whole
        assert torch.equal(caches.readers[name](), expected[name]), (turn, name)
        noticed += changed
        assert [x["kind"] for x in notices()] == ["damaged"] * changed, (turn, name)
        assert path.read_bytes() == whole, "it was not made anew"
    assert noticed > 190


@pytest.mark.parametrize("how", ["cut", "empty", "longer", "garbage", "other"])
def test_files_of_another_length_or_of_another_key_are_made_again(
    caches: Caches, fresh: Path, how: str
) -> None:
    for name, reader in caches.readers.items():
        before = set(fresh.rglob("*.cache"))
        expected = reader()
        (path,) = made_by(name, fresh, before)
        whole = path.read_bytes()
        forget()
        if how == "cut":
            path.write_bytes(whole[: len(whole) * 2 // 3])
        elif how == "empty":
            path.write_bytes(b"")
        elif how == "longer":
            path.write_bytes(whole + bytes(100))
        elif how == "garbage":
            path.write_bytes(random.Random(3).randbytes(len(whole)))
        else:
            DiskCache(path.parent.name, 1, 10**9).write("other", {"x": torch.ones(3)})
            (path.parent / "other.1.cache").replace(path)
        assert torch.equal(reader(), expected), name
        assert [x["file"] for x in notices()] == [path.name]
        assert path.read_bytes() == whole


@pytest.mark.parametrize("how", ["damaged", "cut", "empty", "longer"])
def test_a_file_that_changes_while_it_is_mapped_is_made_again(
    handles: Mapping[str, ModelHandle], fresh: Path, how: str
) -> None:
    def change(path: Path) -> None:
        if how == "damaged":
            damage(path, random.Random(1))
        elif how == "longer":
            with path.open("ab") as file:
                file.write(b"more")
        else:
            os.truncate(path, 0 if how == "empty" else 100)

    loaded = LoadedModel(handles["tiny-llama"])
    recipe = Recipe(reconstruction="sparsegpt", sparsity=0.3, calibration=Calibration(READ, 2, 16))

    def read() -> list[Tensor]:
        edits = work_out(loaded, recipe).edits
        assert edits is not None
        sorted_scores = loaded.ranks.ordered("magnitude", {})
        return [
            cat(loaded.ranks.ranked("magnitude", {}, "per-row").ranks),
            cat({name: torch.from_numpy(x) for name, x in sorted_scores.items()}),
            cat(edits.weights),
        ]

    expected = read()
    loaded = LoadedModel(handles["tiny-llama"])  # edits of this one come from the file
    paths = [*(fresh / "ranks").iterdir(), *(fresh / "edits").iterdir()]
    assert len(paths) == 3
    for path in paths:
        settle(path)
    read()
    assert not notices()
    for path in paths:
        change(path)
    for tensor, other in zip(read(), expected, strict=True):
        assert torch.equal(tensor, other)
    assert {x["file"] for x in notices()} == {path.name for path in paths}


def test_an_unchanged_file_is_compared_once_in_a_process(
    fresh: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = DiskCache("x", 1, 10**9)
    cache.write("k", {"a": torch.arange(10)})
    settle(cache.path("k"))
    compared = []
    real = cache_files._check

    def check(content: memoryview, footer: Mapping[str, Any]) -> None:
        compared.append(footer["key"])
        real(content, footer)

    monkeypatch.setattr(cache_files, "_check", check)
    record = cache.read("k", mapped=True)
    assert record is not None and record.intact() and record.intact()
    assert cache.read("k", mapped=True) is not None
    assert compared == ["k"]
    os.utime(cache.path("k"))  # touched, but the same
    assert record.intact() and compared == ["k", "k"]
    cache.path("k").unlink()  # trimmed by another process: what is mapped stays good
    assert record.intact() and torch.equal(record.tensors["a"], torch.arange(10))


@pytest.mark.parametrize("mapped", [False, True])
def test_every_dtype_and_shape_comes_back_bit_for_bit(mapped: bool) -> None:
    cache = DiskCache("x", 1, 10**9)
    tensors = {
        "float32": torch.randn(3, 5),
        "bfloat16": torch.randn(7).bfloat16(),
        "float16": torch.randn(2, 2, 2).half(),
        "float64": torch.tensor([float("nan"), float("inf"), -0.0]).double(),
        "int64": torch.tensor(2**60),
        "bool": torch.tensor([True, False, True]),
        "uint8": torch.arange(200, dtype=torch.uint8),
        "empty": torch.empty(0, 4),
        "view": torch.arange(12).reshape(3, 4).T,
        "large": torch.randint(0, 2**60, (3 * cache_files.CHUNK // 16 + 1,)),
    }
    about = {"removed": {"a": 1}, "names": ["Ünï", None], "value": 0.1}
    assert cache.write("k", tensors, about)
    record = cache.read("k", mapped=mapped)
    assert record is not None and record.about == about
    assert list(record.tensors) == list(tensors)
    for name, tensor in tensors.items():
        other = record.tensors[name]
        assert other.dtype == tensor.dtype and other.shape == tensor.shape
        assert torch.equal(other.nan_to_num(nan=7.0), tensor.nan_to_num(nan=7.0))
        if tensor.numel():
            other.zero_()  # private: the file does not see it
    again = cache.read("k")
    assert again is not None and torch.equal(again.tensors["float32"], tensors["float32"])


def test_large_files_are_checked_by_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cache_files, "CHUNK", 1 << 10)
    monkeypatch.setattr(cache_files, "LARGE", 1 << 12)
    cache = DiskCache("x", 1, 10**9)
    cache.write("k", {"a": torch.arange(5000)})
    assert cache.read("k") is not None
    dice = random.Random(4)
    for place in dice.sample(range(40_000), 30):
        with cache.path("k").open("r+b") as file:
            file.seek(place)
            (byte,) = file.read(1)
            file.seek(place)
            file.write(bytes([byte ^ 1]))
            file.flush()
            assert cache.read("k", mapped=True) is None
            file.seek(place)
            file.write(bytes([byte]))
        assert cache.read("k", mapped=True) is not None


def test_another_version_or_cache_finds_nothing() -> None:
    DiskCache("x", 1, 10**9).write("k", {}, 5)
    assert DiskCache("x", 2, 10**9).read("k") is None
    assert DiskCache("y", 1, 10**9).read("k") is None
    assert not notices()
    DiskCache("x", 2, 10**9).write("k", {}, 6)
    kept = [DiskCache("x", version, 10**9).read("k") for version in (1, 2)]
    assert [record.about for record in kept if record is not None] == [5, 6]


def test_the_least_recently_used_go_first(fresh: Path) -> None:
    cache = DiskCache("x", 1, 10**9)
    for age, key in enumerate("abcd"):
        cache.write(key, {"v": torch.zeros(250)})
        os.utime(cache.path(key), (1000 + age, 1000 + age))
    cache.budget = cache.path("a").stat().st_size * 7 // 2
    assert cache.read("a") is not None  # used: its time of change stays
    assert cache.path("a").stat().st_mtime == 1000
    unfinished = fresh / "x" / ".tmp-other-1-abc"
    unfinished.write_bytes(b"under way")
    cache.write("e", {"v": torch.zeros(250)})
    assert sorted(p.name[0] for p in (fresh / "x").glob("*.cache")) == ["a", "d", "e"]
    assert unfinished.exists()


def test_keys_tell_contents_and_tensors_apart() -> None:
    keys = {
        key_of([1, "a"]),
        key_of([1, "b"]),
        key_of([1, "a"], torch.zeros(2)),
        key_of([1, "a"], torch.ones(2)),
    }
    assert len(keys) == 4 and all(len(key) == 24 for key in keys)
    assert key_of({"a": 1, "b": 2}) == key_of({"b": 2, "a": 1})


def evaluated(handle: ModelHandle, recipe: Recipe) -> list[Any]:
    job = Evaluate("x", recipe, ASKED, 48, 2)
    result = measure(LoadedModel(handle), job)
    return [result[name] for name in NUMBERS]


RECIPES = [
    Recipe(
        sparsity=0.5, criterion="wanda", pattern="per-row", calibration=Calibration(READ, 2, 16)
    ),
    Recipe(sparsity=0.5, pattern="per-layer", allocation="global"),
    Recipe(sparsity=0.3, allocation="sensitivity", calibration=Calibration(READ, 2, 16)),
    Recipe(sparsity=0.3, reconstruction="sparsegpt", calibration=Calibration(READ, 2, 16)),
]


@pytest.mark.parametrize("how", ["not a folder", "full", "read-only mount"])
def test_a_cache_that_cannot_be_written_fails_no_evaluation(
    handles: Mapping[str, ModelHandle],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
    how: str,
) -> None:
    handle = handles["tiny-llama"]
    expected = [evaluated(handle, recipe) for recipe in RECIPES]
    forget()
    place = tmp_path / "no"
    if how == "not a folder":
        place.write_text("a file")
        monkeypatch.setenv("PRUNE_CACHE_DIR", str(place / "cache"))
    elif how == "full":
        names = ("ranks", "statistics", "dense", "edits", "sensitivity")
        faults = ",".join(f"{name}.before_write=disk-full" for name in names)
        monkeypatch.setenv("PRUNE_FAULTS", faults)
        monkeypatch.setenv("PRUNE_CACHE_DIR", str(place))
    else:
        place.mkdir()
        mount = ["mount", "-t", "tmpfs", "-o", "ro", "none", str(place)]
        if sys.platform != "linux" or subprocess.run(mount, capture_output=True).returncode:
            pytest.skip("may not mount")
        request.addfinalizer(lambda: subprocess.run(["umount", str(place)], check=True))
        monkeypatch.setenv("PRUNE_CACHE_DIR", str(place))
    with caplog.at_level(logging.WARNING, "prune_core.disk_cache"):
        assert [evaluated(handle, recipe) for recipe in RECIPES] == expected
    assert [x["kind"] for x in notices()] == ["unwritable"]
    assert len(caplog.records) == 1 and "cannot be written" in caplog.text
    assert not [p for p in tmp_path.joinpath("no").rglob("*") if p.is_file()]


def test_what_no_disk_took_is_not_made_twice(
    handles: Mapping[str, ModelHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    handle, passes = handles["tiny-llama"], []
    windows = calibration_windows(handle.tokenizer, Calibration(READ, 2, 16), handle.info.context)
    monkeypatch.setenv("PRUNE_FAULTS", "statistics.before_replace=disk-full")
    for _ in range(3):
        statistics_of(
            handle.model,
            handle.structure,
            "print",
            windows,
            frozenset({"input_norm"}),
            progress=Progress(lambda event: passes.append(event["done"])),
        )
    assert passes == [2]


def test_memory_holds_the_newest_within_its_budget(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(disk_cache, "MEMORY_BUDGET", 1000)
    monkeypatch.setenv("PRUNE_FAULTS", "x.write=disk-full")
    cache = DiskCache("x", 1, 10**9)

    def known() -> list[str]:
        return [key for key in "abcd" if cache.read(key) is not None]

    for key in "abc":
        assert not cache.write(key, {"v": torch.zeros(100)})
    assert known() == ["b", "c"]
    cache.write("d", {"v": torch.zeros(1000)})
    assert known() == ["d"]
    monkeypatch.delenv("PRUNE_FAULTS")
    assert cache.write("d", {"v": torch.ones(3)})
    record = cache.read("d")
    assert record is not None and record.tensors["v"].tolist() == [1.0] * 3


WRITER = """
import sys, torch
from prune_core.disk_cache import DiskCache
cache, value = DiskCache("x", 1, 10**9), float(sys.argv[1])
print("ready", flush=True)
sys.stdin.readline()
for _ in range(20):
    assert cache.write("k", {"v": torch.full((50_000,), value)}, value)
"""


def test_writers_at_the_same_time_leave_one_whole_result(fresh: Path) -> None:
    cache = DiskCache("x", 1, 10**9)
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", WRITER, str(value)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for value in (1, 2)
    ]
    for writer in writers:
        assert writer.stdout is not None and writer.stdin is not None
        assert writer.stdout.readline() == "ready\n"
        writer.stdin.write("\n")
        writer.stdin.flush()
    seen: list[Record] = []
    while any(writer.poll() is None for writer in writers):
        record = cache.read("k", mapped=len(seen) % 2 == 0)
        if record is not None:
            seen.append(record)
            assert bool((record.tensors["v"] == record.about).all())
    assert [writer.wait() for writer in writers] == [0, 0] and seen
    for writer in writers:
        for pipe in (writer.stdin, writer.stdout):
            assert pipe is not None
            pipe.close()
    assert not notices()
    assert [p.name for p in (fresh / "x").iterdir()] == ["k.1.cache"]


def test_what_a_killed_writer_left_is_cleared_by_the_next_process(fresh: Path) -> None:
    script = "import torch\nfrom prune_core.disk_cache import DiskCache\n"
    script += "DiskCache('x', 1, 10**9).write('k', {'v': torch.ones(9)})"
    faults = os.environ | {"PRUNE_FAULTS": "x.before_replace=kill"}
    assert subprocess.run([sys.executable, "-c", script], env=faults).returncode < 0
    (left,) = (fresh / "x").iterdir()
    start = disk_cache._temporary_name().rsplit("-", 2)[0]
    assert left.name.startswith(f"{start}-")
    folder = fresh / "x"
    kept = [folder / f"{start}-{os.getppid()}-abc", folder / ".tmp-elsewhere-77-abc"]
    gone = [
        folder / f"{start}-{os.getpid()}-earlier",  # of a process that had the same number
        folder / ".tmp-elsewhere-77-old",
        folder / ".tmp-0123456789abcdef",  # named by an earlier version
    ]
    for path in [*kept, *gone]:
        path.write_bytes(b"x")
    for path in gone[1:]:
        os.utime(path, (1000, 1000))
    cache = DiskCache("x", 1, 10**9)
    assert cache.read("k") is None
    assert sorted(folder.iterdir()) == sorted(kept)
    stream = cache.stream("k", 8)
    with stream:
        stream.add("v", "uint8", (8,))
        disk_cache._swept.clear()
        assert cache.read("k") is None  # the first use of another thread leaves it alone
        stream.extend(memoryview(b"12345678"))
        assert stream.keep()
    record = cache.read("k")
    assert record is not None and bytes(record.tensors["v"].numpy()) == b"12345678"


def test_a_stream_that_is_left_early_leaves_nothing(fresh: Path) -> None:
    cache = DiskCache("x", 1, 10**9)

    def interrupted() -> None:
        with cache.stream("k", 8) as stream:
            stream.add("v", "uint8", (8,))
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not list((fresh / "x").iterdir())
    assert cache.read("k") is None and not notices()


def test_checkpoints_that_are_only_measured_need_no_cache(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "file" / "cache"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with temporary_checkpoints() as place:
        (place / "weights").write_bytes(b"x")
    assert [p.name for p in tmp_path.iterdir()] == ["file"]
