"""The notebook and the recipe files of examples/, run on a tiny model."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from torch import nn

import prune_core as pc
from prune_core.paths import PROJECT_ROOT

EXAMPLES = Path(PROJECT_ROOT) / "examples"
NOTEBOOKS = sorted(EXAMPLES.glob("*.ipynb"))
RECIPES = sorted((EXAMPLES / "recipes").glob("*.json"))
WORDS = "Seven ravens flew over the glass mountain where a small star sat and counted keys. "


def code_cells(path: Path) -> list[dict[str, Any]]:
    notebook = json.loads(path.read_text(encoding="utf-8"))
    assert (notebook["nbformat"], notebook["nbformat_minor"]) >= (4, 5)
    ids = [cell["id"] for cell in notebook["cells"]]
    assert len(set(ids)) == len(ids)
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def is_parameters(cell: dict[str, Any]) -> bool:
    return "parameters" in cell["metadata"].get("tags", ())


def test_there_are_examples() -> None:
    assert [path.name for path in NOTEBOOKS] == ["first_steps.ipynb"] and len(RECIPES) == 3


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cell by cell in one namespace; only the cell of parameters is another."""
    monkeypatch.chdir(EXAMPLES)
    monkeypatch.syspath_prepend(str(PROJECT_ROOT))  # what the cells add to it is taken back
    small = f'MODEL, WINDOWS, SEQ_LEN, FOLDER = "tiny-llama", 2, 64, {str(tmp_path / "out")!r}'
    cells = code_cells(path)
    assert sum(map(is_parameters, cells)) == 1
    names: dict[str, Any] = {}
    for cell in cells:
        printed = io.StringIO()
        source = small if is_parameters(cell) else "".join(cell["source"])
        with contextlib.redirect_stdout(printed):
            exec(compile(source, f"{path.name}:{cell['id']}", "exec"), names)
        kept = "".join("".join(output["text"]) for output in cell["outputs"])
        assert bool(printed.getvalue()) == bool(kept), f"{cell['id']}: run the notebook again"
    assert names["measured"].sparsity == pytest.approx(0.5, abs=0.001)
    assert (tmp_path / "out" / "model.safetensors").is_file()


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_notebook_keeps_is_small_and_its_own(path: Path) -> None:
    assert path.stat().st_size < 20_000
    cells = code_cells(path)
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        assert all(output["output_type"] == "stream" for output in cell["outputs"]), cell["id"]
        assert "/home/" not in str(cell) and "/tmp/" not in str(cell), "a path of one machine"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_a_recipe_is_read_and_measured(path: Path) -> None:
    recipe = pc.Recipe.from_json(path.read_text(encoding="utf-8"))
    assert json.loads(path.read_text(encoding="utf-8")) == recipe.to_dict(), "as pages save it"
    if recipe.reads_calibration:  # a text that needs no fetching
        text = pc.TextSpec("inline", WORDS * 60)
        recipe = replace(recipe, calibration=pc.Calibration(text, windows=3, seq_len=32))
    other = pc.TextSpec("inline", "The king had a daughter who could not laugh at all. " * 9)
    model = pc.load("tiny-llama")
    measured = model.prune(recipe).evaluate(other, windows=2, seq_len=32)
    assert measured.sparsity > 0.05
    assert measured.perplexity is not None
    assert measured.perplexity != measured.perplexity_dense


@pytest.mark.real
def test_the_five_lines(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As they stand in the README, on the preset and the texts of a first start."""
    readme = (Path(PROJECT_ROOT) / "README.md").read_text(encoding="utf-8")
    lines = readme.split("```python\n")[1].split("```")[0]
    assert lines.startswith("import prune_core as pc\n") and len(lines.split("\n\n")) == 2
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(lines, names)
    assert isinstance(names["pruned"].torch, nn.Module)
    assert (tmp_path / "out" / "model.safetensors").is_file()
