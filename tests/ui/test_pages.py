"""The pages by Streamlit's own test runner: alone, through app.py, cold, stale, and in a hurry."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from prune_core.models.tiny import TINY
from prune_core.recipes.recipe import Recipe
from tests.ui.apps import app, by_label, charts, fine

PAGES = ["overview", "weights", "attention", "layers"]


pytestmark = pytest.mark.usefixtures("inline_engine")


def test_the_app_opens_on_the_overview() -> None:
    at = fine(app())
    assert at.title[0].value == "Overview"
    assert charts(at) == 1
    assert {m.label for m in at.metric} == {"Parameters", "Memory", "Context (tokens)", "Blocks"}


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("lang", ["en", "zh"])
def test_each_page_stands_alone(page: str, lang: str) -> None:
    at = fine(app(page, lang=lang))
    assert charts(at) >= 1
    assert at.sidebar.selectbox[0].value == "tiny-llama"


@pytest.mark.parametrize("page", PAGES)
def test_each_page_runs_as_its_own_script(page: str) -> None:
    fine(app(page, alone=True))


@pytest.mark.parametrize("model", ["tiny-gpt2", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-t5"])
@pytest.mark.parametrize("page", PAGES)
def test_every_family_can_be_shown(page: str, model: str) -> None:
    at = fine(app(page, model=model, sparsity="0.5"))
    assert charts(at) >= (4 if model == "tiny-t5" and page == "attention" else 1)


@pytest.mark.parametrize("page", PAGES)
def test_a_stale_link_says_so_and_works(page: str) -> None:
    at = fine(app(page, sparsity="7", layer="gone", head="self:99:99", heads="77:7", role="x"))
    assert any("sparsity" in box.value for box in at.info)
    assert charts(at) >= 1
    assert at.session_state["heads"] == ""


@pytest.mark.parametrize("page", PAGES)
def test_presentation_has_no_side_bar(page: str) -> None:
    at = fine(app(page, present="1"))
    assert not at.sidebar.selectbox
    by_label(at.button, "End presentation").click().run()
    assert fine(at).sidebar.selectbox


def test_an_unknown_model_is_one_sentence_and_a_way_out() -> None:
    at = app("overview", model="smolm2-135m")
    assert not at.exception
    assert len(at.error) == 1
    assert "did you mean smollm2" in at.error[0].value.replace("\\", "")
    assert at.button(key="_use_default").label.startswith("Use SmolLM2")


def test_a_model_that_fails_leaves_the_one_before(tmp_path: Path) -> None:
    at = app("overview")
    at.text_input(key="_typed_model").input(str(tmp_path))
    by_label(at.button, "Load").click().run()
    assert not at.exception
    assert len(at.error) == 1
    assert charts(at) == 1
    at.button(key="_keep_previous").click().run()
    assert fine(at).session_state["model"] == "tiny-llama"


def test_choosing_a_preset_and_typing_a_name() -> None:
    at = app()
    at.button(key="_use_tiny-bert").click().run()
    assert fine(at).session_state["model"] == "tiny-bert"
    at.text_input(key="_typed_model").input("../../etc/passwd")
    by_label(at.button, "Load").click().run()
    assert not at.exception
    assert len(at.error) == 1
    assert at.session_state["model"] == "tiny-bert"
    at.text_input(key="_typed_model").input("tiny-gpt2")
    by_label(at.button, "Load").click().run()
    assert fine(at).session_state["model"] == "tiny-gpt2"


def test_a_new_model_forgets_the_heads_of_the_old() -> None:
    at = app("attention", heads="1:1", head="self:1:1")
    assert at.session_state["heads"] == "1:1"
    at.sidebar.selectbox[0].select("tiny-gpt2").run()
    assert fine(at).session_state["heads"] == ""


def test_weights_two_changes_in_a_row_both_count() -> None:
    at = app("weights", sparsity="0.5")
    by_label(at.segmented_control, "Role").set_value("mlp.up").run()
    by_label(at.segmented_control, "Counts").set_value("log").run()
    fine(at)
    assert by_label(at.segmented_control, "Role").value == "mlp.up"
    assert by_label(at.segmented_control, "Counts").value == "log"
    assert "mlp" in at.selectbox(key="_block_mlp.up").value
    options = at.selectbox(key="_block_mlp.up").options
    at.selectbox(key="_block_mlp.up").select_index(len(options) - 1).run()
    last = at.selectbox(key="_block_mlp.up").value
    assert fine(at).session_state["layer"] == last
    by_label(at.segmented_control, "Role").set_value("attn.q").run()
    # another role stays in the block
    assert fine(at).session_state["layer"] == f"{last.partition('.mlp')[0]}.self_attn.q_proj"


def test_weights_table_counts_what_the_recipe_removes() -> None:
    at = app("weights", sparsity="0.5")
    frame = at.dataframe[0].value
    # uniform per layer: half of every layer, exactly
    assert (frame["removed"] * 2 == frame["rows"] * frame["columns"]).all()
    assert (app("weights").dataframe[0].value["removed"] == 0).all()


def test_attention_strongest_head_first_then_the_users() -> None:
    at = app("attention")
    place = [c.value for c in at.caption if c.value.startswith("Rank")]
    assert place == ["Rank 1 of {}".format(place[0].rsplit(" ", 1)[1])]
    options = at.selectbox(key="_head").options
    other = next(name for name in options if name != at.selectbox(key="_head").value)
    at.selectbox(key="_head").select(other).run()
    assert fine(at).selectbox(key="_head").value == other


def test_attention_dropping_heads_changes_the_recipe() -> None:
    at = app("attention")
    total = at.slider(key="_drop_count").max
    at.slider(key="_drop_count").set_value(3).run()
    assert len(at.session_state["heads"].split(",")) == 3
    assert by_label(at.toggle, "Drop this head").value is False  # the strongest is the last to go
    by_label(at.toggle, "Drop this head").set_value(True).run()
    fine(at)
    assert len(at.session_state["heads"].split(",")) == 4
    assert at.slider(key="_drop_count").value == 4
    assert any(f"{int(total) - 4} of {int(total)}" in c.value for c in at.caption)
    by_label(at.toggle, "Drop this head").set_value(False).run()
    assert len(fine(at).session_state["heads"].split(",")) == 3


def test_another_model_shows_nothing_of_the_model_before() -> None:
    at = fine(app("attention", head_method="gradient"))
    assert charts(at) == 2
    at.sidebar.selectbox[0].select("tiny-bert").run()
    assert charts(fine(at)) == 2
    assert "cosine" in next(m.label for m in at.metric if m.label.startswith("Importance"))


def test_attention_methods_and_sentence() -> None:
    at = app("attention")
    by_label(at.segmented_control, "Importance by").set_value("gradient").run()
    at.text_input(key="sentence").input("Once upon a time").run()
    fine(at)
    assert at.session_state["head_method"] == "gradient"
    assert at.session_state["sentence"] == "Once upon a time"


def test_choices_survive_a_page_change() -> None:
    at = app("attention", sparsity="0.3")
    at.slider(key="_drop_count").set_value(2).run()
    at.text_input(key="sentence").input("Once upon a time").run()
    at.switch_page("pages/weights.py").run()
    by_label(at.segmented_control, "Counts").set_value("log").run()
    at.switch_page("pages/overview.py").run()
    at.switch_page("pages/attention.py").run()
    fine(at)
    assert at.slider(key="_drop_count").value == 2
    assert at.text_input(key="sentence").value == "Once upon a time"
    assert at.session_state["sparsity"] == 0.3
    at.switch_page("pages/weights.py").run()
    assert by_label(fine(at).segmented_control, "Counts").value == "log"


def test_the_language_changes_everything_and_keeps_the_choice() -> None:
    at = app("weights")
    by_label(at.segmented_control, "Counts").set_value("log").run()
    at.sidebar.segmented_control[0].set_value("zh").run()
    assert fine(at).title[0].value == "权重"
    assert by_label(at.segmented_control, "计数").value == "log"


def test_a_fault_in_a_page_is_one_box_with_an_id(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ZeroDivisionError("secret path /home/someone")

    monkeypatch.setattr("prune_core.figures.weights.ridges", broken)
    with caplog.at_level(logging.ERROR, logger="prune_core.ui"):
        at = app("weights")
    assert not at.exception
    assert len(at.error) == 1
    assert "secret" not in at.error[0].value
    fault = at.error[0].value.split("(id ")[1][:8]
    assert any(fault in record.getMessage() for record in caplog.records)
    fine(at.switch_page("pages/overview.py").run())


def test_the_reproduce_drawer_names_the_recipe() -> None:
    at = fine(app("overview", sparsity="0.5"))
    assert at.code[0].value == "python -m prune_core inspect tiny-llama"
    assert Recipe().is_dense


def test_scores_and_overlap_of_another_criterion() -> None:
    at = fine(app("weights", sparsity="0.5", other="wanda"))
    assert any("Independent masks" in caption.value for caption in at.caption)
    at.selectbox(key="other").set_value("magnitude").run()
    assert any("same" in box.value for box in fine(at).info)
    at.number_input(key="_cut_value").set_value(0.04).run()
    assert fine(at).query_params["criterion"] == "threshold"


def test_blocks_of_least_influence_go_but_the_first_and_last_stay() -> None:
    at = fine(app("layers"))
    slider = at.slider(key="_drop_least_blocks")
    blocks = int(slider.max) + 2
    slider.set_value(int(slider.max)).run()
    assert fine(at).query_params["drop_blocks"] == ",".join(str(b) for b in range(1, blocks - 1))
    at.slider(key="_drop_least_blocks").set_value(0).run()
    assert "drop_blocks" not in fine(at).query_params


def test_blocks_are_measured_by_ablation_and_removed_greedily() -> None:
    at = fine(app("layers", block_method="ablation", seq_len="64", block_windows="1"))
    slider = at.slider(key="_drop_least_blocks")
    slider.set_value(1).run()
    assert "drop_blocks" in fine(at).query_params
    at = fine(
        app("layers", block_method="greedy", seq_len="64", block_windows="1", block_steps="1")
    )
    at.button(key="_take_path").click().run()
    assert fine(at).query_params["drop_blocks"].isdecimal()


def test_the_run_of_the_least_angle_goes_by_its_button() -> None:
    at = fine(app("layers", block_method="angular"))
    at.number_input(key="_run_length_decoder").set_value(2).run()
    at.button(key="_take_run_decoder").click().run()
    assert fine(at).query_params["drop_blocks"] == "1,2"  # of four, the two that are no ends


def test_half_a_block_goes_by_its_switch() -> None:
    at = fine(app("layers"))
    at.multiselect(key="_layers_drop_mlp").set_value([1]).run()
    assert fine(at).query_params["drop_mlp"] == "1"


def test_what_a_link_chose_is_also_the_widgets_default() -> None:
    # a browser that draws a box late knows only its default, and would send that back as chosen
    at = fine(app("studio", lang="zh", criterion="wanda", allocation="owl", cal_mode="sequential"))
    for key in ("model", "criterion", "allocation", "cal_mode"):
        box = at.selectbox(key=key)
        assert box.proto.set_value
        assert box.proto.options[box.proto.default] == box.proto.raw_value != box.proto.options[0]
    control = next(c for c in at.get("button_group") if "-lang" in c.proto.id)
    assert [control.proto.options[i].content for i in control.proto.default] == ["中文"]


@pytest.mark.parametrize("method", ["ablation", "confidence", "entropy", "gradient"])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-bert", "tiny-t5"])
def test_heads_by_every_method(method: str, model: str) -> None:
    at = fine(app("attention", model=model, head_method=method))
    assert charts(at) == (4 if model == "tiny-t5" else 2)


@pytest.mark.parametrize(("model", "heads"), [("tiny-llama", 16), ("tiny-t5", 32)])
def test_methods_that_were_asked_are_compared(model: str, heads: int) -> None:
    at = fine(app("attention", model=model))
    assert any("second method" in caption.value for caption in at.caption)
    before = charts(at)
    at.session_state["head_method"] = "ablation"
    at.run()
    assert charts(fine(at)) == before + 1
    scores = at.session_state["_head_scores"]
    first, second = scores["of weight-norm"], scores["of ablation"]
    assert len(first) == len(second) == heads
    places = [[sorted(of.values()).index(of[head]) for head in first] for of in (first, second)]
    cube = heads * (heads**2 - 1)
    rho = 1 - 6 * sum((a - b) ** 2 for a, b in zip(*places, strict=True)) / cube
    shown = json.loads(at.get("plotly_chart")[-1].proto.spec)["data"][0]
    assert rho == pytest.approx(shown["z"][0][1], abs=1e-9)


def test_cross_attention_heads_are_dropped_too() -> None:
    at = fine(app("attention", model="tiny-t5", head="cross:2:1", heads="0:1"))
    at.toggle(key="_drop_cross_2_1").set_value(True).run()
    fine(at)
    assert (at.session_state["heads"], at.session_state["cross_heads"]) == ("0:1", "2:1")
    assert any("30 of 32 heads kept" in caption.value for caption in at.caption)
    total = int(at.slider(key="_drop_count").max)
    at.slider(key="_drop_count").set_value(total).run()
    fine(at)
    dropped = [at.session_state[key].split(",") for key in ("heads", "cross_heads")]
    assert [len(pairs) for pairs in dropped] == [20, 12]
    at.slider(key="_drop_count").set_value(0).run()
    assert at.session_state["heads"] == at.session_state["cross_heads"] == ""


def test_a_whole_group_of_heads_is_dropped() -> None:
    at = fine(app("attention", head="self:1:2"))
    at.toggle(key="_drop_group_self_1_2").set_value(True).run()
    fine(at)
    assert at.session_state["heads"] == "1:2,1:3"
    at.toggle(key="_drop_group_self_1_2").set_value(False).run()
    assert at.session_state["heads"] == ""


def test_the_least_heads_by_entropy_are_the_most_spread_out() -> None:
    at = fine(app("attention", head_method="entropy"))
    at.slider(key="_drop_count").set_value(3).run()
    assert any(metric.label == "Entropy (nats)" for metric in at.metric)
    dropped = set(fine(at).session_state["heads"].split(","))
    kept = at.session_state["_head_scores"]["of entropy"]
    least = sorted(kept, key=lambda head: (kept[head], head))[:3]
    assert dropped == {f"{block}:{head}" for _, block, head in least}
    assert min(-kept[head] for head in least) >= max(
        -score for head, score in kept.items() if head not in least
    )


# Streamlit's runner cannot run Weights twice: it takes a placeholder for a choice
@pytest.mark.parametrize("page", ["overview", "attention", "layers"])
def test_what_loading_gave_to_say_stands_on_every_page(page: str, tmp_path: Path) -> None:
    model, tokenizer = TINY["tiny-llama"]()
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    config = tmp_path / "config.json"
    fields = json.loads(config.read_text())
    config.write_text(json.dumps(fields | {"num_hidden_layers": fields["num_hidden_layers"] - 1}))
    for lang, part in (("en", "not part of the model"), ("zh", "不属于此模型")):
        at = fine(fine(app(page, model=str(tmp_path), lang=lang)).run())
        said = [caption.value for caption in at.sidebar.caption]
        assert sum(part in caption for caption in said) == 1
        assert not any("check it before sharing" in caption for caption in said)
