"""Files that change under their names: nothing old is told of the new."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path
from typing import Any

import pytest

from prune_core.engine.client import Engine
from prune_core.engine.core import Core
from prune_core.errors import PruneCoreError
from prune_core.jobs.base import LoadModel, TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.jobs.file_versions import lookup_key
from prune_core.models.tiny import TINY
from prune_core.paths import trim_folder
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe

STORY = "The wolf went to the well, and the stones fell in. "


def written(folder: Path, scale: float) -> str:
    model, tokenizer = TINY["tiny-llama"]()
    for parameter in model.parameters():
        parameter.data *= scale
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("mode", ["inline", "process"])
def test_a_changed_text_is_measured_again(mode: str, tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text(STORY * 10)
    job = Evaluate("tiny-llama", Recipe(), TextSpec("file", str(text)), 32, 2)
    engine = Engine(mode)
    try:
        first = asked(engine, job)
        assert asked(engine, job) is first
        text.write_text(STORY.upper() * 11)
        second = asked(engine, job)
        assert second["perplexity"] != first["perplexity"]
        fresh = Core().run(job)
        assert second["perplexity"] == pytest.approx(fresh["perplexity"])
    finally:
        engine.close()


def asked(engine: Engine, job: Any) -> dict[str, Any]:
    ticket = engine.submit(job, session="one", panel="one")
    assert ticket.computation.ended.wait(300) and ticket.result is not None, ticket.error
    return ticket.result


def test_a_changed_model_is_loaded_again(tmp_path: Path) -> None:
    source = written(tmp_path / "model", 1.0)
    engine = Engine("inline")
    job = Evaluate(source, Recipe(), TextSpec("inline", STORY * 10), 32, 2)
    first = asked(engine, job)
    written(tmp_path / "model", 0.5)
    second = asked(engine, job)
    assert second["protocol"]["model_fingerprint"] != first["protocol"]["model_fingerprint"]
    assert second["perplexity"] != first["perplexity"]


def test_what_a_key_depends_on(tmp_path: Path) -> None:
    text = tmp_path / "story.txt"
    text.write_text(STORY)
    calibrated = Recipe("wanda", calibration=Calibration(TextSpec("file", str(text)), 2, 16))
    plain, reading = Evaluate("tiny-llama"), Evaluate("tiny-llama", calibrated)
    writing = Export(str(tmp_path), calibrated, str(tmp_path))
    keys = [lookup_key(job) for job in (plain, reading, writing)]
    text.write_text(STORY * 2)
    again = [lookup_key(job) for job in (plain, reading, writing)]
    assert [a == b for a, b in zip(keys, again, strict=True)] == [True, False, True]
    for source in ("", "\0", "~nobody/x", "hub:a/b", "x" * 5000):
        assert lookup_key(LoadModel(source)) == LoadModel(source).key


def test_a_model_that_had_to_go_leaves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    core = Core()
    monkeypatch.setattr(core, "max_models", 1)
    gc.disable()
    try:
        gone = weakref.ref(core.loaded("tiny-gpt2"))
        _ = gone().copy  # type: ignore[union-attr]
        core.loaded("tiny-llama")
        assert gone() is None
    finally:
        gc.enable()


def test_running_out_of_memory_is_said_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: Any, **more: Any) -> None:
        raise RuntimeError(
            "[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory"
        )

    core = Core()
    monkeypatch.setattr("prune_core.tasks.evaluate.measure", full)
    with pytest.raises(PruneCoreError, match="ran out of memory"):
        core.run(Evaluate("tiny-llama"))


def test_a_file_that_another_process_took_is_no_fault(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b", "c"):
        (tmp_path / name).write_bytes(b"x" * 10)
    real = Path.stat

    def stat(self: Path, **more: Any) -> Any:
        if self.name == "b":
            raise FileNotFoundError(self.name)
        return real(self, **more)

    monkeypatch.setattr(Path, "stat", stat)
    trim_folder(tmp_path, 5)
    monkeypatch.undo()
    assert [path.name for path in tmp_path.iterdir()] == ["b"]
