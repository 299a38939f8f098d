"""Files without their zeros: what is read back, what is refused, what the model card tells."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from prune_core.engine.core import Core
from prune_core.errors import PruneCoreError, RecipeError
from prune_core.exporting.compressed import FILE
from prune_core.exporting.formats import format_problem, library_problem
from prune_core.jobs.base import TextSpec
from prune_core.jobs.exports import Export
from prune_core.models.reading import quiet
from prune_core.models.tiny import TINY
from prune_core.recipes.recipe import Recipe

TEXT = TextSpec("inline", "The fox ran over the hill and far away from here. " * 60)
HALF = Recipe(sparsity=0.5)
CHECK = """
import json, torch
ids = torch.arange(4, 36)[None]
with torch.no_grad():
    print(json.dumps(model(input_ids=ids).logits[0].double().sum(1).tolist()))
"""


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Core()


@pytest.fixture
def run(core: Core) -> Callable[..., dict[str, Any]]:
    pytest.importorskip("compressed_tensors")
    return lambda job: core.run(job)


def job(recipe: Recipe, folder: Path, source: str = "tiny-llama") -> Export:
    return Export(source, recipe, str(folder), "compressed", False, TEXT, 32, 2, 0)


@pytest.mark.parametrize("name", sorted(TINY))
@pytest.mark.parametrize("pattern", ["per-layer", "nm:2:4"])
def test_what_is_read_back_is_the_model_on_screen(
    name: str, pattern: str, core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    recipe = HALF.with_pattern(pattern)
    got = run(job(recipe, tmp_path / "out", name))
    assert got["difference"] == 0
    # a Conv1D lies the other way round, so its neighbours are not the pattern's
    fits = pattern == "nm:2:4" and name != "tiny-gpt2"
    assert got["library_format"] == ("sparse-24-bitmask" if fits else "sparse-bitmask")
    size = (tmp_path / "out" / FILE).stat().st_size
    assert got["exported"]["bytes"] == size < got["dense"]["bytes"]
    removed = got["dense"]["nonzero"] - got["exported"]["nonzero"]
    info = core.loaded(name).handle.info
    # of each layer the bits of its mask, an offset for each row, and four entries of the header
    beside = sum(x.rows * x.columns / 8 + 9 * (x.rows + x.columns) + 800 for x in info.layers)
    assert size < got["dense"]["bytes"] - 4 * removed + beside + 20_000


@pytest.mark.parametrize("pattern", ["per-layer", "nm:2:4"])
def test_the_card_tells_how_to_load_it(
    pattern: str, core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    folder = tmp_path / "out"
    run(job(HALF.with_pattern(pattern), folder))
    code = re.search(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)
    assert code is not None and "prune" not in code[1]
    done = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", code[1] + CHECK],
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    copy = core.loaded("tiny-llama").copy
    with torch.no_grad():
        ours = copy.model(input_ids=torch.arange(4, 36)[None]).logits[0].double().sum(1)
    theirs = torch.tensor(eval(done.stdout), dtype=torch.float64)
    torch.testing.assert_close(theirs, ours, rtol=1e-5, atol=1e-4)


def test_plain_transformers_does_not_take_it_for_random_weights(
    core: Core, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    run(job(HALF, tmp_path / "out"))
    kind = type(core.loaded("tiny-llama").handle.model)
    with quiet(), pytest.raises(OSError, match="no file named"):
        kind.from_pretrained(tmp_path / "out")


def test_dropped_parts_go_where_they_can(
    run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    got = run(job(replace(HALF, drop_blocks=(1,)), tmp_path / "cut"))
    assert got["cut"] and "physically gone" in got["card"]
    assert got["exported"]["parameters"] < got["dense"]["parameters"]
    got = run(job(replace(HALF, drop_mlp=(1,)), tmp_path / "whole"))
    assert not got["cut"] and got["difference"] == 0
    assert got["exported"]["parameters"] == got["dense"]["parameters"]


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [(Recipe(), "nothing is removed"), (Recipe(sparsity=0.01), "too few weights .* another")],
)
def test_what_would_not_get_smaller_is_refused(
    recipe: Recipe, sentence: str, run: Callable[..., dict[str, Any]], tmp_path: Path
) -> None:
    with pytest.raises(PruneCoreError, match=sentence):
        run(job(recipe, tmp_path / "out"))
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("version", [None, "0.15.0", "1.2"])
def test_a_library_that_is_missing_or_too_new(
    version: str | None, core: Core, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def found(name: str) -> str:
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr("prune_core.exporting.formats.metadata.version", found)
    handle = core.loaded("tiny-llama").handle
    problem = format_problem("compressed", handle.info, HALF)
    assert problem == library_problem() and problem is not None
    assert "requirements-export.txt" in problem and problem.count(". ") == 0
    with pytest.raises(RecipeError, match=r"requirements-export\.txt"):
        core.run(job(HALF, tmp_path / "out"))
    assert not list(tmp_path.iterdir())
