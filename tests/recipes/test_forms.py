"""A recipe in every form it is written in: there and back exactly, old ones read as before."""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
from collections.abc import Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as some
from streamlit.testing.v1 import AppTest

from prune_core.cli.main import command_parser
from prune_core.cli.options import recipe_from, recipe_options
from prune_core.criteria import CRITERIA
from prune_core.errors import GridError, PruneCoreError, RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import command_line, compare_line
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.weights import LayerTable
from prune_core.recipes.calibration import CALIBRATION_MODES, Calibration, apart, usual_text
from prune_core.recipes.choices import RECONSTRUCTIONS, own_pattern
from prune_core.recipes.form import value_of
from prune_core.recipes.forms import BY_FIELD, FORMS, GROUPS
from prune_core.recipes.notation import (
    MAX_LINK_SEED,
    read_indices,
    read_numbers,
    read_pairs,
    write_numbers,
)
from prune_core.recipes.options import option_words
from prune_core.recipes.packing import pack, unpack
from prune_core.recipes.parts import NEURON_METHODS, NEURON_SCOPES, NeuronShare
from prune_core.recipes.recipe import ALLOCATIONS, Recipe
from prune_core.recipes.values import link_texts, recipe_of, recipe_of_link, values_of
from prune_core.sweeps.grid import Grid

BEFORE = json.loads(
    (Path(__file__).parents[1] / "fixtures" / "recipe-forms-before.json").read_text()
)
"""Recipes and grids in all forms, written by the version before this table existed."""

# ---- recipes of any kind ---------------------------------------------------------------------

shares = some.floats(0.0, 1.0)
blocks = some.lists(some.integers(0, 999_999_999), max_size=3).map(tuple)
pairs = some.lists(
    some.tuples(some.integers(0, 99), some.integers(0, 999_999_999)), max_size=3
).map(tuple)
numbers = {
    "uniform": some.just({}),
    "global": some.just({}),
    "erk": some.just({}),
    "sensitivity": some.just({}),
    "owl": some.fixed_dictionaries({}, optional={"m": some.floats(0, 9), "spread": shares}),
    "per-role": some.dictionaries(some.sampled_from(["mlp.down", "attn.q"]), some.floats(0, 1000)),
    "manual": some.dictionaries(some.integers(0, 30).map(str), some.floats(0, 1000), max_size=3),
}
texts = some.one_of(
    some.sampled_from(["grimm", "andersen"]).map(lambda name: TextSpec("preset", name)),
    some.sampled_from(["/a b/c,d.txt", "it's.txt", "-x.txt"]).map(lambda p: TextSpec("file", p)),
    some.just(TextSpec("inline", "Äpfel 苹果 \"'<b>")),
)
calibrations = some.builds(
    Calibration,
    texts,
    some.integers(1, 4096),
    some.integers(2, 2**20),
    some.one_of(some.none(), some.integers(0, MAX_LINK_SEED)),
    some.integers(0, 2**40),
    some.sampled_from(CALIBRATION_MODES),
)
neuron_shares = some.builds(
    NeuronShare,
    some.floats(1e-6, 1.0),
    some.sampled_from(list(NEURON_METHODS)),
    some.sampled_from(NEURON_SCOPES),
)
parts = {
    "drop_heads": pairs,
    "drop_cross_heads": pairs,
    "drop_neurons": pairs,
    "drop_blocks": blocks,
    "drop_attention": blocks,
    "drop_mlp": blocks,
    "neurons": some.one_of(some.none(), neuron_shares),
    "compensate": some.booleans(),
    "calibration": calibrations,
}


@some.composite
def recipes(draw: some.DrawFn) -> Recipe:
    """Any recipe that can be."""
    criterion = draw(some.sampled_from(list(CRITERIA)))
    arguments: dict[str, Any] = {}
    for name, usual in CRITERIA[criterion].defaults.items():
        if (criterion, name) != ("threshold", "value") and draw(some.booleans()):
            whole = isinstance(usual, int)
            arguments[name] = draw(some.integers(0, 9) if whole else some.floats(0, 4))
    chosen: dict[str, Any] = {"criterion": criterion, "criterion_args": arguments}
    if criterion == "threshold" and draw(some.booleans()):
        arguments["value"] = draw(some.floats(1e-6, 1e6))
    elif draw(some.booleans()):
        pattern = draw(some.sampled_from(["nm:2:4", "nm:1:7", "nm:04:8"]))
        share = Recipe().with_pattern(pattern).sparsity
        chosen |= {"pattern": pattern, "sparsity": share}
        chosen["reconstruction"] = draw(some.sampled_from(list(RECONSTRUCTIONS)))
    else:
        chosen["allocation"] = draw(some.sampled_from(list(ALLOCATIONS)))
        chosen["allocation_args"] = draw(numbers[chosen["allocation"]])
        patterns = ["own", "per-layer", "per-row", "block:4", "block:2:max", "block:8:avg"]
        chosen["pattern"] = draw(some.sampled_from(patterns))
        chosen["sparsity"] = draw(shares)
        chosen["reconstruction"] = draw(some.sampled_from(list(RECONSTRUCTIONS)))
        names = ["role:mlp.down", "block:2", "layer:model.layers.0.mlp.up_proj"]
        chosen["overrides"] = draw(some.dictionaries(some.sampled_from(names), shares))
    try:
        return Recipe(**chosen, **draw(some.fixed_dictionaries({}, optional=parts)))
    except RecipeError:  # global ranking per row or block by block
        assume(False)
        raise


def same(one: Recipe, other: Recipe) -> bool:
    return one == other and one.fingerprint == other.fingerprint


# ---- the table -------------------------------------------------------------------------------


def test_every_field_has_a_row() -> None:
    names = {f.name for f in fields(Recipe)} - {"neurons", "calibration"}
    names |= {f"neurons.{f.name}" for f in fields(NeuronShare)}
    names |= {f"calibration.{f.name}" for f in fields(Calibration)}
    assert {form.field for form in FORMS} == names | {"criterion_args.value"}
    assert set(BY_FIELD) == {form.field for form in FORMS} and len(BY_FIELD) == len(FORMS)


def test_every_row_is_in_every_form() -> None:
    grid = {f.name for f in fields(Grid)}
    sub = command_parser()._actions[1].choices["evaluate"]  # type: ignore[index,call-overload]
    for form in FORMS:
        assert form.group in GROUPS
        if form.field == "criterion_args.value":  # said among the arguments
            continue
        assert form.grid in grid, form.field
        assert form.option in sub._option_string_actions, form.field
    assert len({form.key for form in FORMS}) == len(FORMS)
    names = [form.option.strip("-").replace("-", "_") for form in FORMS if form.option]
    assert [name for name in names if sub.get_default(name) is not None] == []


@given(recipes())
@settings(max_examples=60)
def test_json_there_and_back(recipe: Recipe) -> None:
    assert same(Recipe.from_json(recipe.to_json()), recipe)
    assert json.loads(recipe.to_json())["pattern"] == recipe.pattern != "own"


@given(recipes())
@settings(max_examples=60)
def test_values_there_and_back(recipe: Recipe) -> None:
    assert same(recipe_of(values_of(recipe)), recipe)


@given(recipes())
@settings(max_examples=60)
def test_a_link_there_and_back(recipe: Recipe) -> None:
    texts = link_texts(recipe)
    back = recipe_of_link(texts)
    if recipe.calibration.text.kind != "preset":  # a link names no file and holds no text
        assert "cal_text" not in texts
        back = replace(back, calibration=replace(back.calibration, text=recipe.calibration.text))
    assert same(back, recipe)


@given(recipes())
@settings(max_examples=60)
def test_packed_there_and_back(recipe: Recipe) -> None:
    assert same(unpack(pack({"B": recipe}))["B"], recipe)


def read_options(words: list[str]) -> Recipe:
    parser = argparse.ArgumentParser()
    recipe_options(parser)
    return recipe_from(parser.parse_args(words))


@given(recipes())
@settings(max_examples=100)
def test_options_there_and_back_without_a_shell_s_tricks(recipe: Recipe) -> None:
    words = shlex.split(command_line(Evaluate("m", recipe)))[5:]
    if recipe.calibration.text.kind == "inline":
        saved = replace(recipe.calibration, text=TextSpec("file", "text.txt"))
        recipe = replace(recipe, calibration=saved)
    parsed = command_parser().parse_args(["evaluate", "m", *words])
    assert same(recipe_from(parsed), recipe)
    assert parsed.recipe is None


@given(recipes())
@settings(max_examples=60)
def test_a_grid_there_and_back(recipe: Recipe) -> None:
    content: dict[str, Any] = {"models": ["tiny-llama"], "texts": ["measured.txt"]}
    for form in FORMS:
        value = value_of(recipe, form.field)
        if form.group == "calibration":
            named = {"kind": value.kind, "value": value.value} if "text" in form.field else value
            content.setdefault("calibration", {})[form.field.partition(".")[2]] = named
        elif form.field == "criterion_args":
            content[form.grid] = [write_numbers(recipe.criterion_args)]
        elif form.grid in ("neuron_method", "neuron_scope"):
            content[form.grid] = value
        elif form.grid:
            content[form.grid] = [form.write(value) if form.as_text else value]
    if not recipe.removes_weights:  # then a grid has one dense cell, or the parts alone
        values = {k: v for k, v in values_of(recipe).items() if BY_FIELD[k].group != "weights"}
        recipe = recipe_of(values)
    (cell,) = Grid.from_dict(content).cells()
    assert same(cell.recipe, recipe)
    again = Grid.from_dict(json.loads(json.dumps(Grid.from_dict(content).to_dict())))
    assert again.fingerprint == Grid.from_dict(content).fingerprint


def test_long_lists_are_said_in_several_options() -> None:
    recipe = Recipe(drop_neurons=tuple((block, n) for block in range(30) for n in range(900)))
    words = option_words(recipe)
    assert words.count("--drop-neurons") > 1 and max(map(len, words)) < 131_072
    assert same(read_options(words), recipe)


# ---- what earlier versions wrote -------------------------------------------------------------


@pytest.mark.parametrize("row", BEFORE["recipes"], ids=lambda row: row["fingerprint"])
def test_old_recipes_read_as_before(row: Mapping[str, Any]) -> None:
    recipe = Recipe.from_dict(row["recipe"])
    assert recipe.to_dict() == row["recipe"]
    assert recipe.fingerprint == row["fingerprint"]
    assert same(unpack(row["packed"])["A"], recipe)
    assert pack({"A": recipe}) == row["packed"]
    assert same(recipe_of_link(row["link"]), recipe)
    if row["options"] is not None:
        assert same(read_options(row["options"]), recipe)


@pytest.mark.parametrize("row", BEFORE["grids"], ids=lambda row: row["fingerprint"])
def test_old_grids_ask_for_the_same_cells(row: Mapping[str, Any]) -> None:
    grid = Grid.from_dict(row["grid"])
    assert grid.fingerprint == row["fingerprint"]
    assert [cell.key for cell in grid.cells()] == row["keys"]


def session_round_trip() -> None:
    import json

    import streamlit as st

    from prune_core.recipes.recipe import Recipe
    from prune_core.ui.session.link import read_link
    from prune_core.ui.session.recipe_state import recipe_from_state, set_recipe

    for row in json.loads(st.session_state["rows"]):
        recipe = Recipe.from_dict(row["recipe"])
        set_recipe(recipe)
        if recipe_from_state() != recipe:
            st.text(f"session {recipe.to_json()}")
        from urllib.parse import urlencode

        if row["link"] and read_link(f"http://x/studio?{urlencode(row['link'])}")[2] != recipe:
            st.text(f"link {recipe.to_json()}")


def test_a_session_holds_what_recipes_and_old_links_say() -> None:
    at = AppTest.from_function(session_round_trip, default_timeout=60)
    at.session_state["rows"] = json.dumps(BEFORE["recipes"])
    at.run()
    assert not at.exception
    assert [text.value for text in at.text] == []


def words_of_differences() -> None:
    import json

    import streamlit as st

    from prune_core.recipes.recipe import Recipe
    from prune_core.ui.frame.slots import recipe_differences

    for one, other in json.loads(st.session_state["pairs"]):
        recipes = {"A": Recipe.from_dict(one), "B": Recipe.from_dict(other)}
        st.text(json.dumps([row["field"] for row in recipe_differences(recipes)]))


BASE = Recipe(
    "ria",
    "per-row",
    "owl",
    0.5,
    drop_neurons=((0, 0),),
    neurons=NeuronShare(0.1),
)
OTHER: Mapping[str, Recipe] = {
    "criterion": replace(BASE, criterion="wanda"),
    "criterion_args": replace(BASE, criterion_args={"power": 0.7}),
    "criterion_args.value": replace(
        Recipe("threshold", criterion_args={"value": 0.1}),
        drop_neurons=BASE.drop_neurons,
        neurons=BASE.neurons,
    ),
    "pattern": replace(BASE, pattern="per-layer"),
    "allocation": replace(BASE, allocation="erk"),
    "allocation_args": replace(BASE, allocation_args={"m": 7}),
    "sparsity": replace(BASE, sparsity=0.4),
    "overrides": replace(BASE, overrides={"block:1": 0.1}),
    "reconstruction": replace(BASE, reconstruction="sparsegpt"),
    "drop_heads": replace(BASE, drop_heads=((1, 1),)),
    "drop_cross_heads": replace(BASE, drop_cross_heads=((1, 1),)),
    "drop_neurons": replace(BASE, drop_neurons=((1, 1),)),
    "neurons.fraction": replace(BASE, neurons=NeuronShare(0.2)),
    "neurons.method": replace(BASE, neurons=NeuronShare(0.1, "firing")),
    "neurons.scope": replace(BASE, neurons=NeuronShare(0.1, scope="global")),
    "compensate": replace(BASE, compensate=True),
    "drop_blocks": replace(BASE, drop_blocks=(1,)),
    "drop_attention": replace(BASE, drop_attention=(1,)),
    "drop_mlp": replace(BASE, drop_mlp=(1,)),
    "calibration.text": replace(BASE, calibration=Calibration(TextSpec("preset", "grimm"))),
    "calibration.windows": replace(BASE, calibration=Calibration(windows=8)),
    "calibration.seq_len": replace(BASE, calibration=Calibration(seq_len=64)),
    "calibration.skip": replace(BASE, calibration=Calibration(skip=3)),
    "calibration.seed": replace(BASE, calibration=Calibration(seed=3)),
    "calibration.mode": replace(BASE, calibration=Calibration(mode="sequential")),
}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_people_read_of_every_field_that_differs(lang: str) -> None:
    from prune_core.words.catalogue import catalogue

    assert set(OTHER) == set(BY_FIELD)
    at = AppTest.from_function(words_of_differences, default_timeout=60)
    at.session_state["lang"] = lang
    pairs = [(BASE.to_dict(), other.to_dict()) for other in OTHER.values()]
    at.session_state["pairs"] = json.dumps(pairs)
    at.run()
    assert not at.exception
    names = catalogue(lang)
    for field, text in zip(OTHER, at.text, strict=True):
        named = json.loads(text.value)
        assert names[BY_FIELD[field].words] in named, field
        assert field == "criterion_args.value" or len(named) == 1, (field, named)


# ---- a recipe normalizes itself --------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "plain"),
    [
        (Recipe(sparsity=0.5, calibration=Calibration(windows=8)), Recipe(sparsity=0.5)),
        (Recipe("ria", criterion_args={"power": 0.5}), Recipe("ria")),
        (
            Recipe("ria", criterion_args={"power": 1}),
            Recipe("ria", criterion_args={"power": 1.0}),
        ),
        (Recipe(allocation_args={"m": 7, "3": 0.5, "mlp.down": 0.1}), Recipe()),
        (Recipe(allocation="owl", allocation_args={"m": 5}), Recipe(allocation="owl")),
        (
            Recipe(allocation="manual", allocation_args={"03": 1, "m": 7, "2": 0.5}),
            Recipe(allocation="manual", allocation_args={"2": 0.5}),
        ),
        (Recipe(pattern="block:4:avg"), Recipe(pattern="block:04")),
        (Recipe(pattern="nm:02:4", sparsity=0.5), Recipe(pattern="nm:2:4", sparsity=0.5)),
        (Recipe(overrides={"block:1": 1}), Recipe(overrides={"block:1": 1.0})),
        (Recipe(neurons=NeuronShare(0.0), compensate=True), Recipe()),
        (Recipe(drop_blocks=(3, 1, 3)), Recipe(drop_blocks=(1, 3))),
    ],
)
def test_recipes_that_ask_for_the_same_are_equal(said: Recipe, plain: Recipe) -> None:
    assert same(said, plain)


def test_what_waits_stays() -> None:
    waiting = Recipe("wanda", allocation="owl", calibration=Calibration(windows=8))
    assert waiting.calibration.windows == 8 and waiting.allocation == "owl"
    assert replace(waiting, criterion="magnitude").calibration == Calibration()


def test_an_argument_that_no_allocation_takes_is_refused() -> None:
    for name in ("x", "9" * 40):
        with pytest.raises(RecipeError, match="has no argument"):
            Recipe(allocation="owl", allocation_args={name: 1})


@given(recipes())
@settings(max_examples=100)
def test_a_text_that_is_read_is_never_dropped(recipe: Recipe) -> None:
    """The engine decides for itself what it reads."""
    if recipe.reads_calibration:
        assert recipe.may_read_calibration
    if not recipe.may_read_calibration:
        assert recipe.calibration == Calibration()


# ---- one pattern for each criterion ----------------------------------------------------------


@pytest.mark.parametrize("criterion", list(CRITERIA))
def test_a_criterion_has_one_pattern_wherever_it_is_chosen(criterion: str) -> None:
    expected = "per-row" if criterion in ("wanda", "ria") else "per-layer"
    assert own_pattern(criterion) == expected
    for unset in ("own", "", None):
        assert Recipe(criterion, unset).pattern == expected  # type: ignore[arg-type]
    assert Recipe.from_dict({"schema": 1, "criterion": criterion}).pattern == expected
    words = ["--criterion", criterion, "--sparsity", "0.5"]
    assert read_options(words).pattern == expected
    grid = Grid.from_dict({"models": "tiny-llama", "criteria": criterion, "sparsities": 0.5})
    assert [cell.recipe.pattern for cell in grid.cells()] == [expected]
    assert grid.to_dict()["patterns"] == [expected]
    assert Recipe(criterion, allocation="global").pattern == "per-layer"


def test_a_grid_of_several_criteria_gives_each_its_own_pattern() -> None:
    grid = Grid.from_dict(
        {"models": "tiny-llama", "criteria": ["magnitude", "wanda"], "sparsities": 0.5}
    )
    assert {(c.recipe.criterion, c.recipe.pattern) for c in grid.cells()} == {
        ("magnitude", "per-layer"),
        ("wanda", "per-row"),
    }


# ---- calibration and what is measured --------------------------------------------------------


@pytest.mark.parametrize("name", ["grimm", "andersen"])
def test_the_usual_calibration_is_not_the_measured_text(name: str) -> None:
    measured = TextSpec("preset", name)
    assert usual_text(measured) != measured
    assert usual_text() == Calibration().text
    for usual in ("grimm", "andersen"):
        moved = apart(Calibration(TextSpec("preset", usual)), measured)
        assert moved.text.value == {"grimm": "andersen", "andersen": "grimm"}[name]
    chosen = Calibration(measured, 8)
    assert apart(chosen, measured) == chosen  # somebody chose it: that is for the engine to refuse
    parsed = command_parser().parse_args(["evaluate", "m", "--criterion", "wanda", "--text", name])
    assert recipe_from(parsed).calibration == Calibration(usual_text(measured))
    parsed.calibration = name
    assert recipe_from(parsed).calibration.text == measured
    grid = Grid.from_dict(
        {"models": "tiny-llama", "criteria": "wanda", "sparsities": 0.5, "texts": [name]}
    )
    assert [cell.recipe.calibration.text for cell in grid.cells()] == [usual_text(measured)]


# ---- the command line and grids refuse what would be ignored ---------------------------------


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--override", "block:1"], "--override takes NAME=NUMBER"),
        (["--override", "somewhere=0.5"], "unknown override"),
        (["--override", "block:1=2"], "the override block:1"),
        (["--criterion-arg", "power=0.5"], "the criterion magnitude has no argument 'power'"),
        (["--criterion", "ria", "--criterion-arg", "power=x"], "--criterion-arg takes NAME=NUMBER"),
        (["--allocation-arg", "m=7"], "--allocation-arg m belongs to --allocation owl"),
        (["--allocation-arg", "x=7"], "the allocation uniform has no argument 'x'"),
        (["--sparsity", "half"], "--sparsity takes a number from 0 to 1"),
        (["--calibration-windows", "0"], "--calibration-windows takes a whole number from 1"),
        (["--allocation", "fair"], "--allocation takes uniform, "),
        (["--drop-neurons", "0.1,0.2"], "--drop-neurons takes one share"),
        (["--drop-neurons", "some"], "--drop-neurons takes a share from 0 to 1"),
        (["--neuron-method", "luck"], "--neuron-method takes "),
        (["--drop-mlp", "1:2"], "--drop-mlp takes the indices of blocks"),
    ],
)
def test_a_wrong_option_is_one_sentence(words: list[str], sentence: str) -> None:
    with pytest.raises(PruneCoreError) as caught:
        read_options(words)
    assert str(caught.value).startswith(sentence) or sentence in str(caught.value)
    assert "\n" not in str(caught.value)


def test_options_may_be_said_several_times_or_with_commas() -> None:
    often = ["--override", "role:mlp.down=0.3", "--override", "block:2=0.5"]
    at_once = ["--override", "role:mlp.down=0.3,block:2=0.5"]
    expected = Recipe(sparsity=0.5, overrides={"role:mlp.down": 0.3, "block:2": 0.5})
    assert read_options(["--sparsity", "0.5", *often]) == expected
    assert read_options(["--sparsity", "0.5", *at_once]) == expected


def test_a_grid_combines_parts_and_settings() -> None:
    grid = Grid.from_dict(
        {
            "models": "tiny-llama",
            "criteria": ["magnitude", "ria"],
            "criterion_args": ["", "power=0.3"],
            "sparsities": 0.5,
            "overrides": [None, {"role:mlp.down": 0.3}],
            "drop_heads": [None, "0:1"],
            "drop_mlp": [None, 1],
        }
    )
    made = [cell.recipe for cell in grid.cells()]
    expected = [
        replace(base, overrides=overrides, drop_heads=heads, drop_mlp=mlp)
        for base, overrides, heads, mlp in itertools.product(
            (
                Recipe(sparsity=0.5),
                Recipe("ria", sparsity=0.5),
                Recipe("ria", sparsity=0.5, criterion_args={"power": 0.3}),
            ),
            ({}, {"role:mlp.down": 0.3}),
            ((), ((0, 1),)),
            ((), (1,)),
        )
    ]
    assert {recipe.fingerprint for recipe in made} == {r.fingerprint for r in expected}
    assert len(made) == len(expected) == 24
    assert grid.left_out == ["the criterion magnitude has no argument 'power'; it takes none."]
    assert "drop_neurons" not in grid.to_dict() and "overrides" in grid.to_dict()


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"overrides": ["block:1"]}, "overrides takes NAME=NUMBER"),
        ({"overrides": ["x=0.5"]}, "unknown override"),
        ({"drop_neurons": ["1-2"]}, "drop_neurons takes BLOCK:NEURON"),
        ({"drop_attention": ["first"]}, "drop_attention takes the indices"),
        ({"compensate": ["yes"]}, "compensate lists true or false"),
        ({"criterion_args": ["power"]}, "criterion_args takes NAME=NUMBER"),
    ],
)
def test_a_wrong_key_of_a_grid_is_one_sentence(more: dict[str, Any], sentence: str) -> None:
    with pytest.raises(GridError, match=sentence):
        Grid.from_dict({"models": "tiny-llama", "sparsities": 0.5, **more})


def test_commands_of_scores_and_comparisons_say_all() -> None:
    recipe = Recipe("ria", criterion_args={"power": 0.3}, calibration=Calibration(windows=4))
    words = shlex.split(command_line(LayerTable("m", recipe, scored=True)))
    assert words[3:] == [
        *("inspect", "m", "--scores", "ria", "--criterion-arg", "power=0.3"),
        *("--calibration", "andersen", "--calibration-windows", "4"),
    ]
    chosen = {"A": recipe, "C": Recipe(sparsity=0.5, overrides={"block:1": 0.1})}
    words = shlex.split(compare_line("m", chosen, TextSpec(), 64, 2))
    assert unpack(words[words.index("--slots") + 1]) == chosen


# ---- readers ---------------------------------------------------------------------------------


def test_readers_take_one_grammar() -> None:
    assert read_pairs("0:3, 5:1,", "x") == ((0, 3), (5, 1))
    assert read_indices("3,,5", "x") == (3, 5)
    got = read_numbers("b=-0.5,a=3", "x")
    assert got == {"b": -0.5, "a": 3} and isinstance(got["a"], int)
    for text in ("=1", "a", "a=", "a=nan", "a=inf", "a=1e999", "a=" + "9" * 5000):
        with pytest.raises(RecipeError, match="x takes NAME=NUMBER"):
            read_numbers(text, "x")
