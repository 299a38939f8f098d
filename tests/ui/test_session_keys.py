"""What a session remembers: links round trip, nonsense is refused, command lines parse back."""

from __future__ import annotations

import shlex

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.errors import PruneCoreError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.heads import AttentionPattern, HeadImportance
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.keys import KEYS

RECIPES = [
    Recipe(),
    Recipe(sparsity=0.29, allocation="global"),
    Recipe().with_pattern("nm:1:4"),
    Recipe(sparsity=0.5, pattern="per-row", drop_heads=((0, 1), (3, 0))),
    Recipe(drop_cross_heads=((2, 0), (3, 1)), drop_neurons=((1, 7),)),
    Recipe(sparsity=0.1, overrides={"role:mlp.down": 0.3, "block:2": 0.5}),
]


def write_link() -> None:
    import json

    import streamlit as st

    from prune_core.recipes.recipe import Recipe
    from prune_core.ui.session.link import link_values
    from prune_core.ui.session.recipe_state import set_recipe

    recipe = Recipe.from_json(st.session_state["wanted"])
    before = link_values(recipe)
    set_recipe(recipe)
    assert link_values() == before
    st.text(json.dumps(before))


def read_link() -> None:
    import streamlit as st

    from prune_core.ui.session.link import adopt_link, write_url
    from prune_core.ui.session.recipe_state import recipe_from_state

    refused = adopt_link()
    write_url()
    st.text(recipe_from_state().to_json())
    st.text(",".join(refused))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.fingerprint[:4])
def test_a_link_carries_the_recipe(recipe: Recipe) -> None:
    import json

    writer = AppTest.from_function(write_link)
    writer.session_state["wanted"] = recipe.to_json()
    writer.run()
    assert not writer.exception
    reader = AppTest.from_function(read_link)
    link = json.loads(writer.text[0].value)
    for key, text in link.items():
        reader.query_params[key] = text
    reader.run()
    assert not reader.exception
    assert Recipe.from_json(reader.text[0].value) == recipe
    assert reader.text[1].value == ""
    assert {key: reader.query_params[key] for key in link} == link


@pytest.mark.parametrize(
    ("key", "text"),
    [
        ("sparsity", "1.5"),
        ("sparsity", "nan"),
        ("sparsity", "half"),
        ("pattern", "nm:4:2"),
        ("pattern", "diagonal"),
        ("allocation", "fair"),
        ("criterion", "wishful"),
        ("heads", "1:2;3"),
        ("overrides", "role:x=7"),
        ("overrides", "nonsense"),
        ("windows", "0"),
        ("seq_len", "100"),
        ("lang", "xx"),
        ("present", "maybe"),
    ],
)
def test_a_stale_value_is_named_and_its_default_used(key: str, text: str) -> None:
    reader = AppTest.from_function(read_link)
    reader.query_params[key] = text
    reader.run()
    assert not reader.exception
    assert Recipe.from_json(reader.text[0].value) == Recipe()
    assert reader.text[1].value == key


def test_a_recipe_that_cannot_be_is_dropped_whole() -> None:
    reader = AppTest.from_function(read_link)
    for key, text in {"pattern": "per-row", "allocation": "global", "sparsity": "0.5"}.items():
        reader.query_params[key] = text
    reader.run()
    assert not reader.exception
    assert Recipe.from_json(reader.text[0].value) == Recipe()
    assert "pattern" in reader.text[1].value


def test_defaults_are_what_their_own_text_reads_as() -> None:
    for key, spec in KEYS.items():
        if spec.default is not None:
            text = "1" if spec.default is True else "0" if spec.default is False else None
            assert spec.read(str(spec.default) if text is None else text) == spec.default, key


def test_evaluate_command_line() -> None:
    recipe = Recipe(sparsity=0.5, drop_heads=((0, 3), (5, 1)))
    line = command_line(Evaluate("smollm2-135m", recipe=recipe, seq_len=128, windows=4))
    assert line == (
        "python -m prune_core evaluate smollm2-135m --criterion magnitude --pattern per-layer "
        "--allocation uniform --sparsity 0.5 --drop-heads 0:3,5:1 --text grimm --seq-len 128 "
        "--windows 4"
    )


def test_command_lines_are_quoted() -> None:
    prompt = "it's; rm -rf $HOME `x`"
    words = shlex.split(command_line(Generate("/tmp/my models/a b", prompt=prompt)))
    assert words[3:5] == ["generate", "/tmp/my models/a b"]
    assert words[words.index("--prompt") + 1] == prompt
    assert "--greedy" in words


def test_a_preset_text_matters_only_where_it_is_read() -> None:
    text = TextSpec("preset", "andersen")
    assert "--text" not in command_line(HeadImportance("tiny-llama", "weight-norm", text))
    assert "--text andersen" in command_line(HeadImportance("tiny-llama", "gradient", text))


def test_a_job_without_a_verb_is_refused() -> None:
    with pytest.raises(PruneCoreError, match="AttentionPattern"):
        command_line(AttentionPattern("tiny-llama"))


def choose_by_itself() -> None:
    from dataclasses import replace

    from prune_core.recipes.calibration import Calibration, TextSpec
    from prune_core.recipes.parts import NeuronShare
    from prune_core.ui.session.keys import set_value, value
    from prune_core.ui.session.recipe_state import recipe_from_state, set_recipe

    recipe = recipe_from_state()
    assert recipe.calibration.text.value == "andersen"
    few = replace(recipe.calibration, windows=4)
    chosen = replace(recipe, neurons=NeuronShare(0.1), calibration=few)
    set_recipe(chosen)
    assert value("cal_text") == "" and value("cal_seq_len") == 0
    assert recipe_from_state() == chosen
    set_value("text", "andersen")
    assert recipe_from_state().calibration.text.value == "grimm"
    other = Calibration(TextSpec("preset", "andersen"), 4, 64)
    set_recipe(replace(chosen, calibration=other))
    assert value("cal_text") == "andersen" and value("cal_seq_len") == 64


def test_what_is_chosen_by_itself_stays_so() -> None:
    """Undo and every click set the recipe: the calibration text must not be pinned by that."""
    assert not AppTest.from_function(choose_by_itself).run().exception
