from __future__ import annotations

import json

import pytest

from prune_core.errors import RecipeError
from prune_core.recipe import Recipe


def test_round_trip() -> None:
    recipe = Recipe(
        sparsity=0.3, overrides={"role:mlp.up": 0.1}, drop_heads=((2, 1), (0, 3), (2, 1))
    )
    again = Recipe.from_json(recipe.to_json())
    assert again == recipe
    assert again.fingerprint == recipe.fingerprint
    assert again.drop_heads == ((0, 3), (2, 1))
    assert Recipe(sparsity=0.31).fingerprint != Recipe(sparsity=0.3).fingerprint


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"schema": 99}', "{}", '{"schema": 1, "nonsense": 1}',
        '{"schema": 1, "sparsity": 2}', '{"schema": 1, "drop_heads": 5}',
        '{"schema": 1, "overrides": {"x": 0.1}}', '{"schema": 1, "pattern": "nm:4:2"}',
        '{"schema": 1, "pattern": "nm:2:4", "sparsity": 0.3}',
        '{"schema": 1, "allocation": "global", "pattern": "per-row"}',
        '{"schema": 1, "drop_heads": [[0, -1]]}', '{"schema": 1, "reconstruction": "magic"}',
    ],
)  # fmt: skip
def test_nonsense_is_refused_in_one_sentence(text: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json(text)
    assert "\n" not in str(caught.value)


def test_nm_brings_its_own_sparsity() -> None:
    recipe = Recipe(sparsity=0.1, allocation="global").with_pattern("nm:1:4")
    assert recipe.sparsity == 0.75
    assert recipe.allocation == "uniform"
    assert recipe.kept_of == (1, 4)
    assert json.loads(recipe.to_json())["schema"] == 1
