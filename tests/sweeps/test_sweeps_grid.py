"""Grids: what they hold, what is refused and how it is said."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from prune_core.errors import GridError
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.grid import Grid

SMALL: dict[str, Any] = {"model": "tiny-llama", "criteria": ["magnitude", "wanda"]}


def grid(**more: Any) -> Grid:
    return Grid.from_dict({**SMALL, **more})


def test_every_combination_is_one_cell() -> None:
    found = grid(
        sparsities=[0.5, 0.1], patterns=["per-layer", "per-row"], heads=["none", "0:1"]
    ).cells()
    assert len(found) == len({cell.key for cell in found}) == 2 * 2 * 2 * 2
    assert {cell.recipe.drop_heads for cell in found} == {(), ((0, 1),)}
    # one method after the other, so that ranks are made once
    methods = [(c.recipe.drop_heads, c.recipe.criterion, c.recipe.pattern) for c in found]
    assert sum(a != b for a, b in pairwise(methods)) == len(set(methods)) - 1
    assert [c.recipe.sparsity for c in found[:2]] == [0.1, 0.5]


def test_steps_and_nm_and_dense() -> None:
    found = grid(
        sparsities={"from": 0.0, "to": 0.8, "step": 0.1}, patterns=["per-layer", "nm:2:4"]
    ).cells()
    recipes = [cell.recipe for cell in found]
    assert recipes.count(Recipe()) == 1  # dense is dense by any method
    assert sum(recipe.pattern == "nm:2:4" for recipe in recipes) == 2
    assert all(r.sparsity == 0.5 for r in recipes if r.pattern == "nm:2:4")
    assert len(recipes) == 1 + 2 * 8 + 2


def test_only_what_reads_a_text_carries_a_calibration() -> None:
    found = grid(sparsities=[0.5], calibration={"text": "andersen", "windows": 4}).cells()
    assert [cell.recipe.calibration.windows for cell in found] == [32, 4]


def test_a_grid_comes_back_from_its_dictionary() -> None:
    one = grid(sparsities=[0.3], neurons=[0, 0.25], name="first", interval=0.05)
    again = Grid.from_dict(one.to_dict())
    assert again == one
    assert again.fingerprint == grid(sparsities=[0.3], neurons=[0, 0.25], interval=0.05).fingerprint
    assert [c.key for c in again.cells()] == [c.key for c in one.cells()]


def test_what_cannot_be_is_left_out_and_said() -> None:
    found = grid(sparsities=[0.5], patterns=["per-layer", "per-row"], allocations=["global"])
    assert {cell.recipe.pattern for cell in found.cells()} == {"per-layer"}
    assert len(found.left_out) == 1
    with pytest.raises(GridError, match="global"):
        grid(sparsities=[0.5], patterns=["per-row"], allocations=["global"])


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"criteria": []}, "the grid is empty: criteria lists nothing"),
        ({"sparsities": []}, "the grid is empty: sparsities lists nothing"),
        ({"criteria": ["wand"]}, "unknown criterion 'wand'; did you mean wanda?"),
        ({"patterns": ["per-rows"]}, "unknown pattern.* Did you mean per-row?"),
        ({"allocations": ["uniformly"]}, "did you mean uniform?"),
        ({"criterai": ["wanda"]}, "unknown key 'criterai'; did you mean criteria?"),
        ({"sparsities": [1.5]}, "between 0 and 1, got 1.5"),
        ({"sparsities": ["half"]}, "numbers from 0 to 1, got 'half'"),
        ({"sparsities": {"from": 0, "to": 1}}, "with a step above 0"),
        ({"sparsities": {"from": 0, "to": 1, "step": 0}}, "with a step above 0"),
        ({"calibration": {"window": 3}}, "unknown key 'window'; did you mean windows?"),
        ({"calibration": 3}, "calibration is a mapping"),
        ({"heads": ["1-2"]}, "heads takes BLOCK:HEAD"),
        ({"models": []}, "the grid is empty: models"),
        ({"windows": 0}, "windows must be a whole number from 1"),
        ({"interval": 7}, "interval is a share"),
        ({"model": "smollm9"}, "smollm9"),
    ],
)
def test_nonsense_is_one_sentence(more: dict[str, Any], said: str) -> None:
    with pytest.raises(GridError, match=said.replace("?", r"\?")) as refused:
        grid(**more)
    assert "\n" not in str(refused.value)


def test_a_million_cells_are_refused_with_count_and_estimate() -> None:
    steps = {"from": 0.0, "to": 1.0, "step": 0.0001}
    with pytest.raises(GridError, match=r"1,000,100 cells.*days.*estimate.*20,000"):
        grid(criteria=["magnitude"], sparsities=steps, neurons=[n / 100 for n in range(100)])


def test_files(tmp_path: Path) -> None:
    path = tmp_path / "grid.yaml"
    path.write_text("model: tiny-llama\ncriteria: [wanda]\nsparsities: [0.1, 0.2]\n")
    assert len(Grid.from_file(path).cells()) == 2
    path.write_text("model: [tiny-llama\n")
    with pytest.raises(GridError, match="not valid YAML"):
        Grid.from_file(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(GridError, match="cannot be read"):
        Grid.from_file(path)
    with pytest.raises(GridError, match="No such file"):
        Grid.from_file(tmp_path / "missing.yaml")
    path.write_text("- a list\n")
    with pytest.raises(GridError, match="a grid is a mapping"):
        Grid.from_file(path)
    path.write_text("criteria: [wanda]\n")
    with pytest.raises(GridError, match="names no model"):
        Grid.from_file(path)
