from __future__ import annotations

import json

import pytest

from prune_core.errors import RecipeError
from prune_core.recipes.recipe import Recipe


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


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ('"criterion": []', "the criterion must be text in quotes, got []."),
        ('"criterion": null', "the criterion must be text in quotes, got None."),
        ('"criterion": 5', "the criterion must be text in quotes, got 5."),
        ('"pattern": 5', "the pattern must be text in quotes, got 5."),
        ('"calibration": null', "the calibration must map names to values."),
        (
            '"calibration": {"text": 1}',
            "the calibration text must map names to values: kind and value.",
        ),
        (
            '"calibration": {"text": {"kind": null}}',
            "the kind of a text must be text in quotes, got None.",
        ),
        (
            '"calibration": {"text": {"value": []}}',
            "the value of a text must be text in quotes, got [].",
        ),
        # a sentence of the recipe's own is not put into another one
        ('"sparsity": -1', "sparsity must lie between 0 and 1, got -1."),
    ],
)
def test_a_value_of_the_wrong_kind_is_one_sentence(more: str, sentence: str) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_json(f'{{"schema": 1, {more}}}')
    assert str(caught.value) == sentence


def test_an_index_that_no_model_has_is_short_in_its_sentence() -> None:
    shares = {"9" * 5000: 1}
    with pytest.raises(RecipeError, match="it takes a block's index") as caught:
        Recipe(sparsity=0.5, allocation="manual", allocation_args=shares)
    assert len(str(caught.value)) < 200


def test_a_field_that_a_text_has_not_is_named() -> None:
    with pytest.raises(RecipeError, match="the calibration text is not readable"):
        Recipe.from_dict({"schema": 1, "calibration": {"text": {"path": "x"}}})


def test_nm_brings_its_own_sparsity() -> None:
    recipe = Recipe(sparsity=0.1, allocation="global").with_pattern("nm:1:4")
    assert recipe.sparsity == 0.75
    assert recipe.allocation == "uniform"
    assert recipe.kept_of == (1, 4)
    assert json.loads(recipe.to_json())["schema"] == 1
