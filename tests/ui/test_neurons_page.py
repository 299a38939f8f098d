"""The Neurons page by Streamlit's own test runner."""

from __future__ import annotations

import json

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.engine.core import Core
from prune_core.figures.neurons import silent_bars, sorted_scores
from prune_core.figures.theme import Look
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.neurons import NeuronProfile
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.ui.session.keys import KEYS
from prune_core.ui.widgets.passages import readable
from tests.ui.apps import app, fine

CALIBRATION = Calibration(TextSpec("preset", "andersen"), 4, 64)
SMALL = {"cal_windows": "4", "cal_seq_len": "64", "seq_len": "64", "windows": "2"}

pytestmark = pytest.mark.usefixtures("inline_engine")


def neurons(page: str = "neurons", **query: str) -> AppTest:
    return app(page, **{**SMALL, **query})


@pytest.mark.parametrize("lang", ["en", "zh"])
@pytest.mark.parametrize("model", ["tiny-llama", "tiny-gpt2", "tiny-bert", "tiny-t5"])
def test_every_family(model: str, lang: str) -> None:
    at = fine(neurons(model=model, lang=lang))
    assert len(at.get("plotly_chart")) == 2


@pytest.mark.parametrize("method", ["firing", "weighted", "fluctuation"])
@pytest.mark.parametrize("scope", ["block", "global"])
def test_the_slider_is_the_recipe(method: str, scope: str) -> None:
    at = fine(neurons(neuron_method=method, neuron_scope=scope))
    at.slider(key="_share").set_value(0.25).run()
    fine(at)
    perplexity = next(m.value for m in at.metric if m.label == "Perplexity")
    recipe = Recipe(neurons=NeuronShare(0.25, method, scope), calibration=CALIBRATION)
    job = Evaluate("tiny-llama", recipe, TextSpec("preset", "grimm"), 64, 2)
    found = Core().run(job)
    shown = float(perplexity.replace(",", ""))
    assert shown == pytest.approx(found["perplexity"], rel=1e-3)
    assert at.query_params["neuron_share"] == "0.25"


def test_a_share_goes_along_to_the_studio_and_back_to_none() -> None:
    at = fine(neurons("studio", neuron_share="0.3", neuron_scope="global"))
    assert at.slider(key="_neuron_share").value == 0.3
    at.button(key="_keep_all").click().run()
    assert fine(at).session_state["neuron_share"] == 0.0


def test_compensation_only_where_there_is_a_bias() -> None:
    assert [t.key for t in fine(neurons(model="tiny-gpt2")).toggle if t.key == "compensate"]
    at = fine(neurons(model="tiny-t5"))
    assert not [toggle for toggle in at.toggle if toggle.key == "compensate"]
    assert any("no bias" in caption.value for caption in at.caption)


def test_one_neuron_is_chosen_looked_at_and_dropped() -> None:
    at = fine(neurons(neuron="1:3"))
    assert any("neuron 3" in box.value for box in at.subheader)
    at.toggle(key="_drop_neuron_1_3").set_value(True).run()
    assert fine(at).session_state["neurons"] == "1:3"
    at.number_input(key="_neuron_box").set_value(7).run()
    assert fine(at).session_state["neuron"] == "1:7"
    at.toggle(key="_drop_neuron_1_7").set_value(True).run()
    assert fine(at).session_state["neurons"] == "1:3,1:7"


def test_a_neuron_that_the_model_lacks_is_passed_over() -> None:
    fine(neurons(neuron="1:99999"))


def test_links_carry_a_share() -> None:
    assert KEYS["neuron_share"].read("0.5") == 0.5
    for text in ("1.5", "-0.1", "nan", "half"):
        with pytest.raises(ValueError):
            KEYS["neuron_share"].read(text)


def test_the_map_marks_what_goes_and_what_is_chosen() -> None:
    job = NeuronProfile("tiny-llama", CALIBRATION, bins=10)
    found = Core().run(job)
    rows = found["methods"]["weighted"]
    words = dict.fromkeys(("title", "x", "y", "score", "block", "neuron", "gone"), "w")
    chosen = (found["blocks"][1], rows["neurons"][1][4])
    figure = sorted_scores(
        rows["scores"],
        rows["neurons"],
        found["blocks"],
        [0.25] * len(found["blocks"]),
        Look(),
        selection=chosen,
        words=words,
    )
    heat, points, gone, ring = figure.data
    assert len(heat.z) == len(found["blocks"])
    assert all(list(row) == sorted(row) for row in heat.z)  # least important first
    assert list(points.customdata[10 + 4]) == list(chosen)
    assert set(gone.x) == {25.0}
    assert (ring.x[0], ring.y[0]) == (45.0, 1)
    assert ring.cliponaxis is False  # whole at the right end too
    assert len(heat.colorbar.tickvals) >= 3
    bars = silent_bars([1, 0], [2, 4], [10, 20], [0, 1], Look(), words=dict.fromkeys(
        ("title", "x", "y", "dead", "rare"), "w"))  # fmt: skip
    assert [list(bar.y) for bar in bars.data] == [[10.0, 0.0], [20.0, 20.0]]


@pytest.mark.parametrize(
    ("below", "place"), [(0.0, 5.0), (0.33, 35.0), (0.999, 95.0), (None, None)]
)
def test_a_neuron_between_the_middles_is_marked_by_its_rank(
    below: float | None, place: float | None
) -> None:
    words = dict.fromkeys(("title", "x", "y", "score", "block", "neuron", "gone"), "w")
    figure = sorted_scores(
        [[float(x) for x in range(1, 11)]],
        [list(range(5, 105, 10))],
        [3],
        [0.0],
        Look(),
        selection=(3, 7),
        below=below,
        words=words,
    )
    rings = [trace for trace in figure.data[2:] if trace.mode == "markers"]
    assert [ring.x[0] for ring in rings] == ([] if place is None else [place])


@pytest.mark.parametrize(("dead", "rare"), [([0, 0], [0, 0]), ([3, 0], [0, 1])])
def test_no_share_of_silent_neurons_is_below_zero(dead: list[int], rare: list[int]) -> None:
    words = dict.fromkeys(("title", "x", "y", "dead", "rare"), "w")
    low, high = silent_bars(dead, rare, [10, 10], [0, 1], Look(), words=words).layout.yaxis.range
    assert low == 0
    assert high > 10 * max(map(sum, zip(dead, rare, strict=True)))


def test_word_pieces_read_as_words() -> None:
    tokens = ["to", "earn", "his", "bread", ",", "some", "##time", "##s", "that", "\u2019", "s"]
    assert "".join(*readable([tokens])) == "to earn his bread, sometimes that\u2019s"
    assert readable([["he", "said", ":", "\u2018", "oh", "(", "no", ")"]]) == [
        ["he", " said", ":", " \u2018", "oh", " (", "no", ")"]
    ]


@pytest.mark.parametrize(
    "tokens",
    [
        [" he", " answered", ":", " \u2018", "Oh", "##x"],
        list("was smart"),
        list("smart"),
        ["\u6c34", "\u4e16\u754c", "\uff0c", "\u4f60\u597d"],
    ],
)
def test_other_tokens_stay_as_they_are(tokens: list[str]) -> None:
    assert readable([tokens]) == [tokens]


def test_the_mark_is_that_of_the_details() -> None:
    """A neuron typed in lies in no bin's middle."""
    at = fine(neurons(neuron="1:3", neuron_method="weighted"))
    heat = json.loads(at.get("plotly_chart")[0].proto.spec)
    ring = heat["data"][-1]
    assert ring["marker"]["symbol"] == "circle-open"
    assert ring["y"] == [1]


@pytest.mark.parametrize(
    ("dropped", "said"), [("1:3", "One neuron is removed."), ("1:3,1:4", "2 neurons are removed.")]
)
def test_the_studio_counts_dropped_neurons(dropped: str, said: str) -> None:
    at = fine(neurons("studio", neurons=dropped))
    assert said in [caption.value for caption in at.caption]
