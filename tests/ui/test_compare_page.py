"""Compare by Streamlit's own test runner: slots, links, refusals, and what each slot shows."""

from __future__ import annotations

import json
from functools import partial
from typing import Any
from urllib.parse import urlencode

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.engine.core import Core
from prune_core.jobs.evaluate import Evaluate
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.packing import pack, unpack
from prune_core.recipes.recipe import Recipe
from prune_core.ui.compare.live import parting
from prune_core.ui.frame.slots import recipe_differences
from tests.ui.apps import app, drawn, fine

LOW, HIGH, RANDOM = Recipe(sparsity=0.2), Recipe(sparsity=0.7), Recipe("random", sparsity=0.5)
PAIR = pack({"A": LOW, "B": HIGH})
compare = partial(app, "compare", seq_len="64", windows="6", new_tokens="8")

pytestmark = pytest.mark.usefixtures("inline_engine")


def cards(at: AppTest) -> dict[str, dict[str, Any]]:
    return {card["slot"]: card for card in drawn(at, "card")}


def slots(at: AppTest) -> dict[str, Recipe]:
    return unpack(str(at.session_state["slots"] or "")) if "slots" in at.session_state else {}


def headings(at: AppTest) -> list[str]:
    return [heading.value for heading in at.subheader]


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize(("lang", "title"), [("en", "Compare"), ("zh", "比较")])
def test_a_cold_page_says_what_to_do(alone: bool, lang: str, title: str) -> None:
    at = fine(compare(alone=alone, lang=lang))
    assert at.title[0].value == title
    assert cards(at) == {}
    steps = [m.value for m in at.markdown if m.value.startswith("###")]
    assert len(steps) == 3


def test_a_link_opens_the_comparison_with_the_engines_numbers() -> None:
    at = fine(compare(slots=PAIR))
    shown = cards(at)
    assert list(shown) == ["A", "B"]
    core = Core()
    for name, recipe in {"A": LOW, "B": HIGH}.items():
        job = Evaluate("tiny-llama", recipe, TextSpec("preset", "grimm"), 64, 6)
        expected = core.run(job)
        card = shown[name]
        assert card["value"] == pytest.approx(expected["perplexity"], rel=1e-6)
        assert card["state"] == "settled"
        assert card["recipe"] == recipe.fingerprint
        assert card["dense"] == pytest.approx(expected["perplexity_dense"], rel=1e-6)
    assert shown["A"]["scale"] == shown["B"]["scale"]
    assert shown["A"]["color"] != shown["B"]["color"]
    assert shown["A"]["mark"] != shown["B"]["mark"]
    # differences, block damage, overlap
    assert len(at.get("plotly_chart")) == 3
    assert len(headings(at)) == 6
    assert at.query_params["slots"] == PAIR


def test_two_picks_in_a_row_both_count() -> None:
    at = fine(compare(sparsity="0.3"))
    at.button(key="_add_current").click()
    at.button(key="_ready_wanda").click().run()
    found = slots(fine(at))
    assert found == {"A": Recipe(sparsity=0.3), "B": Recipe("wanda", "per-row", sparsity=0.5)}
    assert list(cards(at)) == ["A", "B"]
    at.button(key="_ready_random").click().run()
    assert list(cards(fine(at))) == ["A", "B", "C"]
    assert at.query_params["slots"] == pack(slots(at))


@pytest.mark.parametrize("text", ["grimm", "andersen"])
def test_ready_made_wanda_works_on_the_text_that_usually_calibrates(text: str) -> None:
    at = fine(compare(text=text))
    at.button(key="_ready_wanda").click().run()
    at.button(key="_ready_magnitude").click().run()
    other = {"grimm": "andersen", "andersen": "grimm"}
    for measured in (text, other[text]):
        at.session_state["text"] = measured
        shown = cards(fine(at.run()))
        recipe = Recipe(
            "wanda", sparsity=0.5, calibration=Calibration(TextSpec("preset", other[measured]))
        )
        job = Evaluate("tiny-llama", recipe, TextSpec("preset", measured), 64, 6)
        expected = Core().run(job)
        assert shown["A"]["value"] == pytest.approx(expected["perplexity"], rel=1e-6)
        assert shown["A"]["state"] == "settled"


def test_one_recipe_is_shown_and_a_second_asked_for() -> None:
    at = fine(compare(slots=pack({"A": LOW})))
    assert list(cards(at)) == ["A"]
    assert any("at least one more" in box.value for box in at.info)
    assert len(at.get("plotly_chart")) == 1  # its blocks; nothing to compare


def test_four_slots_are_all_and_a_removed_one_leaves_the_others_in_place() -> None:
    four = {"A": LOW, "B": HIGH, "C": RANDOM, "D": Recipe(drop_blocks=(1,))}
    at = fine(compare(slots=pack(four)))
    assert list(cards(at)) == list("ABCD")
    assert at.button(key="_add_current").disabled
    before = cards(at)
    at.button(key="_remove_B").click().run()
    after = cards(fine(at))
    assert list(after) == ["A", "C", "D"]
    assert after["C"]["value"] == before["C"]["value"]
    assert after["C"]["color"] == before["C"]["color"]
    at.button(key="_add_current").click().run()
    assert slots(fine(at))["B"] == Recipe()


def test_clear_empties_all() -> None:
    at = fine(compare(slots=PAIR))
    at.button(key="_clear_slots").click().run()
    assert cards(fine(at)) == {}
    assert "slots" not in at.query_params


def test_the_same_recipe_twice_is_refused_in_a_sentence() -> None:
    at = fine(compare(slots=pack({"A": Recipe("wanda", "per-row", sparsity=0.5)})))
    at.button(key="_ready_wanda").click().run()
    assert [box.value for box in fine(at).warning] == ["This recipe is already in slot A\\."]
    assert list(cards(at)) == ["A"]


@pytest.mark.parametrize("damaged", ["nonsense", PAIR[:-3], "1" + "A" * 30, "x" * 7000])
def test_a_damaged_link_says_so_and_shows_the_empty_page(damaged: str) -> None:
    at = fine(compare(slots=damaged))
    assert any("slots" in box.value for box in at.info)
    assert cards(at) == {}


def test_stale_query_values_are_named() -> None:
    at = fine(compare(slots=PAIR, slot_at="Z", block_measure="guess", prompt_at="9"))
    message = next(box.value for box in at.info if "could not be used" in box.value)
    assert all(name in message for name in ("slot_at", "block_measure", "prompt_at"))
    assert list(cards(at)) == ["A", "B"]


def paste(at: AppTest, link: str) -> AppTest:
    at.text_input(key="_link").input(link)
    next(b for b in at.button if b.label == "Add").click()
    return at.run()


def test_links_of_the_studio_and_of_a_comparison() -> None:
    at = fine(compare())
    query = urlencode({"model": "tiny-llama", "sparsity": "0.4", "drop_blocks": "1"})
    paste(at, f"http://localhost:8501/studio?{query}")
    assert slots(fine(at)) == {"A": Recipe(sparsity=0.4, drop_blocks=(1,))}
    paste(at, f"http://x/compare?{urlencode({'model': 'tiny-llama', 'slots': PAIR})}")
    assert list(slots(fine(at)).values()) == [Recipe(sparsity=0.4, drop_blocks=(1,)), LOW, HIGH]
    assert not at.warning


@pytest.mark.parametrize(
    ("link", "said"),
    [
        ("hello", "not a link"),
        ("http://x/studio?model=tiny-gpt2&sparsity=0.5", "another|tiny-gpt2"),
        ("http://x/studio?model=tiny-llama&sparsity=7", "sparsity"),
        ("http://x/compare?model=tiny-llama&slots=1zzz", "slots"),
        (
            "http://x/studio?model=tiny-llama&pattern=per-row&allocation=global&sparsity=.5",
            "global",
        ),
        ("http://[bad", "another|not a link|model"),
    ],
)
def test_a_link_of_no_use_is_one_sentence(link: str, said: str) -> None:
    at = paste(fine(compare(slots=pack({"A": LOW}))), link)
    assert not at.exception
    assert len(at.warning) == 1
    text = at.warning[0].value.replace("\\", "").lower()
    assert any(part in text for part in said.split("|")), text
    assert slots(at) == {"A": LOW}


def test_recipe_files_are_added_and_a_bad_one_is_named() -> None:
    at = fine(compare())
    at.file_uploader(key="_slot_files").upload("a.json", LOW.to_json().encode(), "application/json")
    at.run()
    assert slots(fine(at)) == {"A": LOW}
    at.file_uploader(key="_slot_files").upload("bad.json", b"{", "application/json").run()
    assert not at.exception
    assert len(at.warning) == 1 and "bad" in at.warning[0].value
    assert slots(at) == {"A": LOW}


def test_a_recipe_for_another_model_fails_alone() -> None:
    at = compare(slots=pack({"A": LOW, "B": Recipe(drop_blocks=(77,)), "C": HIGH}))
    assert not at.exception
    shown = cards(at)
    assert shown["B"]["state"] == "failed"
    assert "77" in shown["B"]["note"] and "\n" not in shown["B"]["note"]
    assert shown["B"]["value"] is None
    assert [shown[name]["state"] for name in "AC"] == ["settled", "settled"]
    # the others are compared as if it were not there
    assert any("**A**" in m.value and "**C**" in m.value for m in at.markdown)
    assert not any("**B**" in m.value for m in at.markdown)
    assert at.button(key="_again_B").label == "Try again"


def test_an_encoder_is_compared_by_similarity() -> None:
    at = fine(compare(model="tiny-bert", slots=PAIR))
    shown = cards(at)
    assert shown["A"]["label"] == "Similarity to dense"
    assert 0 < shown["B"]["value"] < shown["A"]["value"] < 1
    assert any("closer to the dense" in m.value for m in at.markdown)
    assert not drawn(at, "compared_answers") and not drawn(at, "lanes")
    assert len(at.get("plotly_chart")) == 3


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-opt", "tiny-neox", "tiny-t5"])
def test_every_family(model: str) -> None:
    at = fine(compare(model=model, slots=PAIR))
    assert [card["state"] for card in cards(at).values()] == ["settled", "settled"]


def test_answers_mark_where_they_leave_the_dense_one() -> None:
    at = fine(compare(slots=pack({"A": Recipe(), "B": Recipe("random", sparsity=0.9)})))
    dense, same, other = drawn(at, "compared_answers")[0]["answers"]
    assert dense["id"] == "dense" and len(dense["pieces"]) == 8
    assert same["divergence"] is None and all(same["same"])
    at_token = other["divergence"]
    assert at_token is not None
    assert all(other["same"][:at_token]) and not other["same"][at_token]
    assert f"token {at_token + 1}" in other["parted"]


def test_prompts_can_be_chosen_and_written() -> None:
    at = fine(compare(slots=PAIR, prompts="One fox\nTwo wolves", prompt_at="3"))
    assert [text.value for text in at.text][:1] == ["Two wolves"]
    at.segmented_control(key="_prompt_at").set_value("0").run()
    assert fine(at).text[0].value == "One fox"
    assert at.session_state["prompt_at"] == "0"


def test_lanes_hold_the_same_tokens_with_both_losses() -> None:
    at = fine(compare(slots=PAIR))
    lanes = drawn(at, "lanes")[0]
    assert lanes["names"] == ["A", "B"]
    assert len(lanes["tokens"]) == 6 * 63
    assert all(len(token) == 4 for token in lanes["tokens"])


def test_too_few_windows_are_said_to_be_too_few() -> None:
    at = fine(compare(slots=PAIR, windows="4"))
    assert any("4 windows cannot" in box.value for box in at.info)
    assert not any("cannot show" in box.value for box in fine(compare(slots=PAIR)).info)


def test_only_fields_that_differ_are_listed() -> None:
    at = fine(compare(slots=PAIR))
    frame = at.dataframe[0].value
    assert frame.to_dict("records") == [{"Field": "Sparsity", "A": "0.2", "B": "0.7"}]


def test_hostile_words_stay_words() -> None:
    text = "<img src=x onerror=alert(1)> **bold**"
    at = fine(compare(slots=PAIR, prompts=text))
    assert at.text[0].value == text
    assert not any("**bold**" in m.value for m in at.markdown)


def test_presentation_steps_through_slots_and_prompts() -> None:
    at = fine(compare(slots=PAIR, present="1"))
    assert not at.sidebar.selectbox
    assert all(card["present"] for card in cards(at).values())
    assert [name for name, card in cards(at).items() if card["here"]] == ["A"]
    assert at.button(key="_step_Right").proto.shortcut == "right"
    at.button(key="_step_Right").click().run()
    assert [name for name, card in cards(fine(at)).items() if card["here"]] == ["B"]
    assert [a["id"] for a in drawn(at, "compared_answers")[0]["answers"]] == ["dense", "B"]
    at.button(key="_step_Right").click().run()
    assert [name for name, card in cards(fine(at)).items() if card["here"]] == ["A"]
    first = at.subheader[0].value
    at.button(key="_step_Down").click().run()
    assert fine(at).subheader[0].value != first
    at.button(key="_step_Up").click().run()
    assert fine(at).subheader[0].value == first


def test_a_slot_can_be_taken_back_to_the_studio() -> None:
    at = fine(compare(slots=PAIR))
    at.button(key="_use_B").click().run()
    assert fine(at).session_state["sparsity"] == 0.7
    at.switch_page("pages/studio.py").run()
    assert fine(at).slider(key="sparsity").value == 0.7
    at.switch_page("pages/compare.py").run()
    assert list(cards(fine(at))) == ["A", "B"]


def test_parting() -> None:
    assert parting([1, 2, 3], [1, 2, 3], finished=True) is None
    assert parting([1, 9, 3], [1, 2, 3], finished=False) == 1
    assert parting([1, 2], [1, 2, 3], finished=False) is None
    assert parting([1, 2], [1, 2, 3], finished=True) == 2
    assert parting([], [], finished=True) is None


def field_names() -> None:
    import streamlit as st

    from prune_core.recipes.calibration import Calibration
    from prune_core.recipes.recipe import Recipe
    from prune_core.ui.frame.slots import recipe_detail, recipe_differences, recipe_name

    full = Recipe(
        "wanda",
        "per-row",
        "owl",
        0.5,
        drop_heads=((0, 1),),
        drop_blocks=(1, 2),
        reconstruction="sparsegpt",
        calibration=Calibration(windows=8),
    )
    st.text(recipe_name(full))
    st.text(recipe_detail(full))
    st.text(recipe_name(Recipe().with_pattern("nm:2:4")))
    st.text(recipe_name(Recipe("threshold", criterion_args={"value": 0.04})))
    st.text(recipe_name(Recipe()))
    rows = recipe_differences({"A": Recipe("wanda", sparsity=0.5), "C": full})
    st.json({row["field"]: row["C"] for row in rows})


def test_names_of_recipes() -> None:
    at = AppTest.from_function(field_names).run()
    assert not at.exception
    assert [text.value for text in at.text] == [
        "Wanda 50 %, one head, 2 blocks",
        "Per output row · OWL · repaired by SparseGPT",
        "Magnitude 2:4",
        "|w| < 0.04",
        "Dense, nothing removed",
    ]
    fields = json.loads(at.json[0].value)
    assert fields["Blocks removed"] == "1, 2"
    assert fields["Heads removed (block:head)"] == "0:1"
    assert fields["Calibration: windows"] == "8"
    assert "Criterion" not in fields and "Sparsity" not in fields
    assert recipe_differences({"A": LOW, "B": LOW}) == []
