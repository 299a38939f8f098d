"""The Studio by Streamlit's own test runner: its recipe, its history, and what it refuses."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.criteria import CRITERIA
from prune_core.engine.client import Engine
from prune_core.engine.tickets import Computation, Ticket
from prune_core.jobs.base import Job
from prune_core.jobs.weights import Histograms
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.ui.frame.method_cards import method_card
from tests.browser import chromium, require_browser, visitor
from tests.ui.apps import app, by_label, drawn, fine

pytestmark = pytest.mark.usefixtures("inline_engine")

studio = partial(app, "studio", seq_len="64", windows="2")


def shown(at: AppTest) -> dict[str, Any]:
    """The numbers on the gauges."""
    return dict(at.session_state["_studio_shown"]["numbers"])


def recipe_shown(at: AppTest) -> str:
    return str(at.session_state["_studio_shown"]["recipe"])


def load_recipe(at: AppTest, content: bytes) -> AppTest:
    at.file_uploader(key="_recipe_file").upload("recipe.json", content, "application/json").run()
    return at


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("alone", [True, False])
def test_the_page_alone_and_in_the_app(alone: bool, lang: str) -> None:
    at = fine(studio(alone=alone, lang=lang))
    assert at.title[0].value == {"en": "Studio", "zh": "工作室"}[lang]
    numbers = shown(at)
    assert numbers["sparsity"] == 0.0
    assert numbers["perplexity"] == numbers["perplexity_dense"]
    assert recipe_shown(at) == Recipe().fingerprint


def test_the_slider_changes_the_numbers() -> None:
    at = studio()
    at.slider(key="sparsity").set_value(0.5).run()
    numbers = shown(fine(at))
    # tiny layers are small: the whole number of weights nearest to a half
    assert numbers["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert numbers["perplexity"] != numbers["perplexity_dense"]
    assert recipe_shown(at) == Recipe(sparsity=0.5).fingerprint
    assert len(at.get("plotly_chart")) == 2


def test_a_link_may_ask_for_everything() -> None:
    at = fine(studio(sparsity="1.0"))
    assert shown(at)["sparsity"] == 1.0
    assert at.slider(key="sparsity").value == 1.0


def test_two_changes_in_a_row_both_count() -> None:
    at = studio()
    at.slider(key="sparsity").set_value(0.3)
    at.selectbox(key="criterion").select("random").run()
    assert recipe_shown(fine(at)) == Recipe(criterion="random", sparsity=0.3).fingerprint
    at.slider(key="sparsity").set_value(0.4).run()
    at.selectbox(key="criterion").select("magnitude").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.4).fingerprint
    assert shown(at)["sparsity"] == pytest.approx(0.4, abs=1e-3)


def test_n_of_m_fixes_the_sparsity() -> None:
    at = studio(sparsity="0.3")
    at.selectbox(key="pattern").select("nm:2:4").run()
    fine(at)
    assert at.slider(key="_fixed_2_4").disabled
    assert shown(at)["sparsity"] == 0.5
    at.selectbox(key="pattern").select("nm:1:4").run()
    assert shown(fine(at))["sparsity"] == 0.75
    at.selectbox(key="pattern").select("per-layer").run()
    assert not fine(at).slider(key="sparsity").disabled


def test_global_ranking_is_left_when_the_pattern_needs_it() -> None:
    at = studio(sparsity="0.5")
    at.selectbox(key="allocation").select("global").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5, allocation="global").fingerprint
    at.selectbox(key="pattern").select("per-row").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5, pattern="per-row").fingerprint


def test_reconstruction_brings_its_scores_and_goes_again() -> None:
    at = studio(sparsity="0.5", allocation="global")
    at.selectbox(key="reconstruction").select("sparsegpt").run()
    assert at.selectbox(key="criterion").value == "sparsegpt"
    assert at.selectbox(key="allocation").value == "uniform"
    calibration = Calibration(TextSpec("preset", "andersen"), seq_len=256)
    repaired = Recipe(
        "sparsegpt", sparsity=0.5, reconstruction="sparsegpt", calibration=calibration
    )
    assert recipe_shown(fine(at)) == repaired.fingerprint
    at.button(key="_undo").click().run()
    assert at.selectbox(key="reconstruction").value == "none"
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5, allocation="global").fingerprint


def test_owl_is_there_for_wanda_per_row() -> None:
    at = studio(sparsity="0.5", criterion="wanda", pattern="per-row")
    at.selectbox(key="allocation").select("owl").run()
    calibration = Calibration(TextSpec("preset", "andersen"), seq_len=256)
    asked = Recipe("wanda", "per-row", "owl", 0.5, calibration=calibration)
    assert recipe_shown(fine(at)) == asked.fingerprint


def test_blocks_of_weights_have_a_name_in_a_link_too() -> None:
    at = studio(sparsity="0.5", pattern="block:2:max")
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5, pattern="block:2:max").fingerprint


def test_undo_redo_and_reset() -> None:
    at = studio()
    assert at.button(key="_undo").disabled
    for share in (0.2, 0.6):
        at.slider(key="sparsity").set_value(share).run()
    at.button(key="_undo").click().run()
    assert at.slider(key="sparsity").value == 0.2
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.2).fingerprint
    at.button(key="_undo").click().run()
    assert shown(at)["sparsity"] == 0.0
    assert at.button(key="_undo").disabled
    for _ in range(2):
        at.button(key="_redo").click().run()
    assert at.slider(key="sparsity").value == 0.6
    assert at.button(key="_redo").disabled
    at.button(key="_reset").click().run()
    assert recipe_shown(fine(at)) == Recipe().fingerprint
    at.button(key="_undo").click().run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.6).fingerprint


def test_one_part_can_have_a_sparsity_of_its_own() -> None:
    at = studio(sparsity="0.2")
    at.selectbox(key="_part").select("block:0").run()
    at.slider(key="_part_share").set_value(0.8).run()
    at.button(key="_part_set").click().run()
    expected = Recipe(sparsity=0.2, overrides={"block:0": 0.8})
    assert recipe_shown(fine(at)) == expected.fingerprint
    at.button(key="_clear_block:0").click().run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.2).fingerprint


def test_a_stale_link_says_so_and_shows_the_defaults() -> None:
    at = fine(studio(sparsity="abc", pattern="zzz"))
    message = next(box.value for box in at.info if "could not be used" in box.value)
    assert "sparsity" in message
    assert "pattern" in message
    assert at.slider(key="sparsity").value == 0.0
    assert at.selectbox(key="pattern").value == "per-layer"
    assert recipe_shown(at) == Recipe().fingerprint


@pytest.mark.parametrize("model", ["tiny-t5", "tiny-bert", "tiny-gpt2"])
def test_every_kind_of_model_has_its_gauge(model: str) -> None:
    at = fine(studio(model=model, sparsity="0.5"))
    numbers = shown(at)
    assert numbers["sparsity"] == pytest.approx(0.5, abs=1e-3)
    assert (numbers["metric"] == "similarity") == (model == "tiny-bert")
    # an encoder writes no answers
    assert any(box.label == "Prompt" for box in at.text_input) == (model != "tiny-bert")


def test_a_recipe_file_round_trip() -> None:
    recipe = Recipe(criterion="random", sparsity=0.35, overrides={"role:mlp.down": 0.1})
    at = load_recipe(studio(), recipe.to_json().encode())
    assert recipe_shown(fine(at)) == recipe.fingerprint
    assert at.slider(key="sparsity").value == 0.35
    assert at.selectbox(key="criterion").value == "random"


@pytest.mark.parametrize(
    "content",
    [
        b"\xff\xfe\x00",
        b"not json",
        b"[]",
        b"x" * 200_000,
        json.dumps({**Recipe().to_dict(), "sparsity": 7}).encode(),
        json.dumps({**Recipe().to_dict(), "criterion": "gone"}).encode(),
        b"[" * 90_000,
        b'{"schema": 1, "sparsity": 1' + b"0" * 400 + b"}",
        json.dumps({**Recipe().to_dict(), "criterion": ["magnitude"]}).encode(),
        json.dumps({**Recipe().to_dict(), "criterion_args": "abc"}).encode(),
        json.dumps({**Recipe().to_dict(), "criterion_args": None}).encode(),
        json.dumps({**Recipe().to_dict(), "criterion_args": {"foo": 1}}).encode(),
        json.dumps({**Recipe().to_dict(), "pattern": "nm:1:" + "9" * 5000}).encode(),
    ],
    ids=[
        *("binary", "text", "list", "huge", "sparsity", "criterion", "nested", "many_digits"),
        *("criterion_list", "arguments_text", "arguments_null", "argument", "group_digits"),
    ],
)
def test_a_bad_recipe_is_one_sentence_and_changes_nothing(content: bytes) -> None:
    at = load_recipe(studio(sparsity="0.2"), content)
    assert not at.exception
    assert len(at.error) == 1
    assert "\n" not in at.error[0].value
    assert recipe_shown(at) == Recipe(sparsity=0.2).fingerprint


def test_a_recipe_with_a_byte_order_mark_is_read() -> None:
    recipe = Recipe(sparsity=0.35)
    at = load_recipe(studio(), b"\xef\xbb\xbf" + recipe.to_json().encode())
    assert recipe_shown(fine(at)) == recipe.fingerprint


def test_nothing_is_promised_after_a_failure() -> None:
    elsewhere = Recipe(sparsity=0.4, overrides={"block:99": 0.5})
    at = load_recipe(studio(sparsity="0.2"), elsewhere.to_json().encode())
    assert len(at.error) == 1
    gauges = drawn(at, "gauges")[0]
    assert gauges["state"] == "stale"
    assert gauges["recipe"] == Recipe(sparsity=0.2).fingerprint
    assert gauges["note"] == "Earlier settings; the new measurement failed"

    cold = studio(sparsity="0.2", overrides="block:99=0.5")
    gauges = drawn(cold, "gauges")[0]
    assert gauges["state"] == "empty"
    assert gauges["gauges"][0]["value"] is None
    assert gauges["note"] == "Not measured: the measurement failed"


def test_numbers_and_answers_of_another_model_do_not_stay() -> None:
    at = studio(sparsity="0.2")
    assert drawn(at, "answers")[0]["answers"][0]["pieces"]
    at.session_state["overrides"] = "block:99=0.5"  # so that the other model has no numbers yet
    at.session_state["model"] = "tiny-gpt2"
    at.run()
    assert drawn(at, "gauges")[0]["state"] == "empty"
    answers = drawn(at, "answers")[0]
    assert not answers["stale"]
    assert [side["pieces"] for side in answers["answers"]] == [[], []]


def test_an_old_answer_keeps_its_own_sparsity() -> None:
    at = studio(sparsity="0.3")
    assert drawn(at, "answers")[0]["answers"][1]["note"] == "30 %"
    by_label(at.toggle, "Write after every change").set_value(False)
    at.slider(key="sparsity").set_value(0.6).run()
    answers = drawn(fine(at), "answers")[0]
    assert answers["stale"]
    assert answers["recipe"] == Recipe(sparsity=0.3).fingerprint
    assert [side["note"] for side in answers["answers"]] == [
        "earlier settings",
        "30 % · earlier settings",
    ]
    at.button(key="_write").click().run()
    answers = drawn(fine(at), "answers")[0]
    assert not answers["stale"]
    assert answers["answers"][1]["note"] == "60 %"


def test_a_histogram_that_waits_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    submit = Engine.submit

    def busy(engine: Engine, job: Job, **place: str) -> Ticket:
        if isinstance(job, Histograms):  # another session has the worker
            return Ticket(Computation(job, 1), **place)
        return submit(engine, job, **place)

    monkeypatch.setattr(Engine, "submit", busy)
    at = fine(studio(sparsity="0.2"))
    assert [bar.proto.text for bar in at.get("progress")] == ["Counting the layer's weights"]
    assert len(at.get("plotly_chart")) == 1


def test_a_text_file_is_measured_on() -> None:
    at = studio()
    by_label(at.toggle, "Use my own text").set_value(True).run()
    before = shown(at)["nll_dense"]
    text = "the brown fox jumps over a lazy dog and back again " * 40
    at.file_uploader(key="_own_text_file").upload("a.txt", text.encode(), "text/plain").run()
    numbers = shown(fine(at))
    assert at.text_area(key="_own_text").value == text
    assert numbers["protocol"]["text"] == "inline"
    assert numbers["nll_dense"] != before


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"x" * 200_001], ids=["binary", "long"])
def test_a_text_file_of_no_use_is_one_sentence(content: bytes) -> None:
    at = studio()
    by_label(at.toggle, "Use my own text").set_value(True).run()
    at.file_uploader(key="_own_text_file").upload("a.txt", content, "text/plain").run()
    assert not at.exception
    assert len(at.error) == 1
    assert shown(at)["protocol"]["text"] == "grimm"


@pytest.mark.browser
@pytest.mark.parametrize("present", [False, True])
def test_every_gauge_shows_its_name_and_its_error(present: bool) -> None:
    require_browser()
    at = fine(studio(sparsity="0.5", **({"present": "1"} if present else {})))
    proto = next(
        e.proto for e in at.get("bidi_component") if e.proto.component_name == "prunescope.gauges"
    )
    with chromium() as browser, visitor(browser, 1920, 1080) as tab:
        tab.page.evaluate(
            """async ([html, css, js, data]) => {
            const host = document.body.appendChild(document.createElement("div"));
            const root = host.attachShadow({mode: "open"});
            root.innerHTML = `<style>${css}</style>${html}`;
            const module = await import("data:text/javascript," + encodeURIComponent(js));
            module.default({data: JSON.parse(data), parentElement: root});
            }""",
            [proto.html_content, proto.css_content, proto.js_content, proto.json],
        )
        gauges = tab.page.locator('[data-testid^="gauge-"]')
        assert gauges.count() == len(drawn(at, "gauges")[0]["gauges"]) == 5
        for index in range(gauges.count()):
            gauge = gauges.nth(index)
            assert gauge.locator(".name").is_visible()
            assert gauge.locator(".detail").is_visible()
            if present:
                size = gauge.locator(".value").evaluate("el => getComputedStyle(el).fontSize")
                assert float(size.removesuffix("px")) >= 40
        assert gauges.first.locator(".note").inner_text().startswith("Measured on")
        assert tab.complaints == []


def test_the_commands_and_the_link_name_the_recipe() -> None:
    at = fine(studio(sparsity="0.5", criterion="random"))
    evaluate, generate, link = (block.value for block in at.code)
    assert evaluate.startswith("python -m prune_core evaluate tiny-llama --criterion random")
    assert "--sparsity 0.5 --text grimm --seq-len 64 --windows 2" in evaluate
    assert generate.startswith("python -m prune_core generate tiny-llama")
    assert "sparsity=0.5" in link
    assert "criterion=random" in link


def test_a_threshold_cuts_by_the_value_typed() -> None:
    at = studio()
    at.selectbox(key="criterion").set_value("threshold").run()
    assert shown(fine(at))["sparsity"] == 0.0
    at.number_input(key="_cut_value").set_value(0.05).run()
    recipe = Recipe(criterion="threshold", criterion_args={"value": 0.05})
    assert recipe_shown(fine(at)) == recipe.fingerprint
    assert 0 < shown(at)["sparsity"] < 1
    assert at.query_params["cut"] == "0.05"
    again = fine(studio(criterion="threshold", cut="0.05"))
    assert recipe_shown(again) == recipe.fingerprint
    again.selectbox(key="criterion").set_value("magnitude").run()
    assert recipe_shown(fine(again)) == Recipe().fingerprint


def test_the_calibration_is_chosen_and_stands_in_the_link() -> None:
    at = studio(criterion="wanda", pattern="per-row", sparsity="0.5")
    at.number_input(key="cal_windows").set_value(3).run()
    at.selectbox(key="_cal_seq_len").set_value(64).run()
    at.toggle(key="_cal_drawn").set_value(True).run()
    at.number_input(key="_cal_seed").set_value(7).run()
    expected = Recipe(
        criterion="wanda",
        pattern="per-row",
        sparsity=0.5,
        calibration=Calibration(TextSpec("preset", "andersen"), 3, 64, 7),
    )
    assert recipe_shown(fine(at)) == expected.fingerprint
    link = {key: str(text) for key, text in at.query_params.items()}
    assert recipe_shown(fine(studio(**link))) == expected.fingerprint


def test_the_evaluation_text_is_refused_for_calibration() -> None:
    at = studio(criterion="wanda", pattern="per-row", sparsity="0.5", cal_text="grimm")
    assert not at.exception
    assert "evaluation tokens are in the calibration text" in at.error[0].value


def test_a_pasted_calibration_text() -> None:
    at = studio(criterion="wanda", pattern="per-row", sparsity="0.5", cal_seq_len="32")
    at.toggle(key="_use_own_calibration").set_value(True).run()
    text = "A fox once met a crow in a wood, and they spoke of cheese. " * 40
    at.text_area(key="_own_calibration").set_value(text).run()
    wanted = Calibration(TextSpec("inline", text), seq_len=32)
    expected = Recipe(criterion="wanda", pattern="per-row", sparsity=0.5, calibration=wanted)
    assert recipe_shown(fine(at)) == expected.fingerprint


@pytest.mark.parametrize(
    ("allocation", "shares"), [("per-role", {"mlp.down": 0.5}), ("manual", {"1": 0.0})]
)
def test_shares_by_role_and_by_hand(allocation: str, shares: dict[str, float]) -> None:
    text = ",".join(f"{name}={share!r}" for name, share in shares.items())
    at = fine(studio(allocation=allocation, sparsity="0.4", shares=text))
    expected = Recipe(allocation=allocation, allocation_args=shares, sparsity=0.4)
    assert recipe_shown(at) == expected.fingerprint
    frame = next(x.value for x in at.dataframe if "share" in x.value)
    assert sorted(set(frame["share"])) == sorted({1.0, *shares.values()})
    assert shown(at)["sparsity"] == pytest.approx(0.4, abs=1e-3)
    at.selectbox(key="allocation").set_value("uniform").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.4).fingerprint


def test_a_criterion_s_own_setting() -> None:
    at = studio(criterion="random", sparsity="0.5")
    at.number_input(key="_argument_random_seed").set_value(5).run()
    expected = Recipe(criterion="random", criterion_args={"seed": 5}, sparsity=0.5)
    assert recipe_shown(fine(at)) == expected.fingerprint


def wanda(pattern: str, allocation: str = "uniform") -> Recipe:
    """Half of the tiny model, whose context is 256 tokens, by Wanda."""
    return Recipe("wanda", pattern, allocation, 0.5, calibration=Calibration(seq_len=256))


def notes(at: AppTest) -> list[str]:
    return [c.value for c in at.caption if c.value.startswith(":material/info:")]


def test_a_criterion_brings_its_pattern_and_the_page_says_so() -> None:
    at = fine(studio(sparsity="0.5"))
    assert notes(at) == []
    at.selectbox(key="criterion").select("wanda").run()
    assert recipe_shown(fine(at)) == wanda("per-row").fingerprint
    (note,) = notes(at)
    assert "Wanda" in note and "Per output row" in note
    at.selectbox(key="criterion").select("magnitude").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5).fingerprint
    at.slider(key="sparsity").set_value(0.4).run()
    assert "Per layer" in notes(at)[0]  # it stays until the next choice
    at.selectbox(key="reconstruction").select("sparsegpt").run()
    assert len(notes(at)) == 1 and "SparseGPT" in notes(at)[0]


def test_a_pattern_that_was_chosen_stays_and_the_page_says_so() -> None:
    at = fine(studio(sparsity="0.5"))
    at.selectbox(key="pattern").select("block:4").run()
    at.selectbox(key="criterion").select("wanda").run()
    assert recipe_shown(fine(at)) == wanda("block:4").fingerprint
    (note,) = notes(at)
    assert "4 x 4" in note and "as you chose it" in note
    at.selectbox(key="pattern").select("per-row").run()  # its own: then it follows again
    assert notes(at) == []
    at.selectbox(key="criterion").select("magnitude").run()
    assert recipe_shown(fine(at)) == Recipe(sparsity=0.5).fingerprint


def test_the_pattern_follows_when_global_ranking_goes() -> None:
    at = fine(studio(sparsity="0.5", allocation="global"))
    at.selectbox(key="criterion").select("wanda").run()
    expected = wanda("own", "global")
    assert expected.pattern == "per-layer"
    assert recipe_shown(fine(at)) == expected.fingerprint and notes(at) == []
    at.selectbox(key="allocation").select("uniform").run()
    assert recipe_shown(fine(at)) == wanda("per-row").fingerprint
    assert len(notes(at)) == 1


def test_an_old_link_without_a_pattern_is_per_layer() -> None:
    at = fine(studio(criterion="wanda", sparsity="0.5"))
    assert recipe_shown(at) == wanda("per-layer").fingerprint


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_criterion_has_a_card_in_both_languages(
    language: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in ("session.language", "frame.method_cards"):
        monkeypatch.setattr(f"prune_core.ui.{module}.language", lambda: language)
    for entry in CRITERIA.values():
        card = method_card(entry.name)
        for text in ("title", "measures", "cost", "fails"):
            assert entry.texts[language][text] in card
        assert entry.reference in card


def test_an_answer_without_a_word_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not that nothing has been written yet."""
    drawn: list[Any] = []
    monkeypatch.setattr(
        "prune_core.ui.studio.live.answers", lambda sides, **more: drawn.extend(sides)
    )
    fine(studio(model="tiny-t5"))
    assert drawn[-1]["finished"] and not drawn[-1]["pieces"]
    assert drawn[-1]["empty"] == "The model ended at once, without a word."
