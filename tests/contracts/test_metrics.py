"""What every row of ``prune_core/evaluation/metrics.py`` must hold; a new one is covered too."""

from __future__ import annotations

import json
import math
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
import torch
import transformers

from prune_core.cli.evaluate import measurement_lines
from prune_core.evaluation.agreement import AGREEMENT, measures
from prune_core.evaluation.evaluation import PLAIN_FIELDS, PROTOCOL, SHARES, Evaluation
from prune_core.evaluation.metrics import (
    ENGLISH_ONLY,
    FALLBACK,
    KINDS,
    LANGUAGE,
    METRICS,
    Metric,
    all_fields,
    headline_of,
    kept_fields,
    kind_of,
    metrics_of,
    qualities,
)
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.load import load_model
from prune_core.models.tiny import tiny_model, tiny_tokenizer
from prune_core.paths import PROJECT_ROOT
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.axes import MORE_IS_BETTER, QUALITIES, quality_value
from prune_core.sweeps.frontier import DOMINATED, FRONT, frontier
from prune_core.sweeps.records import Cell, Run
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.words.catalogue import LANGUAGES
from prune_core.words.numbers import MOST_DECIMALS

PLACES = ("title", "help", *FALLBACK, "after")
SHOWN_PLACES = [place for place in PLACES if place not in ENGLISH_ONLY]
MODELS = {"decoder": "tiny-llama", "encoder": "tiny-bert", "encoder-decoder": "tiny-t5"}
TEXT = TextSpec("inline", "The wolf went to the well, and the stones fell in. " * 40)
PRUNED = Recipe(sparsity=0.5)

ALL = pytest.mark.parametrize("row", METRICS.values(), ids=lambda row: row.name)
COMPARED = pytest.mark.parametrize("row", [METRICS[x] for x in qualities()], ids=lambda x: x.name)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, LoadedModel]:
    """A tiny model of each kind."""
    folder = tmp_path_factory.mktemp("classifier")
    config = tiny_model("bert").config
    config.num_labels = 4
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        classifier = transformers.AutoModelForSequenceClassification.from_config(config)
    classifier.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    sources = {**MODELS, "classifier": str(folder)}
    return {kind: LoadedModel(load_model(source)) for kind, source in sources.items()}


@pytest.fixture(scope="module")
def results(models: dict[str, LoadedModel]) -> dict[str, dict[str, Any]]:
    """Of each kind of model: the result of a recipe as plain data."""
    return {kind: result_of(model, PRUNED) for kind, model in models.items()}


def result_of(
    model: LoadedModel, recipe: Recipe, events: list[Any] | None = None
) -> dict[str, Any]:
    job = Evaluate(model.handle.info.source, recipe, TEXT, seq_len=32, windows=3)
    return measure(model, job, Progress((events if events is not None else []).append))


# ---- rows ------------------------------------------------------------------------------------


@ALL
def test_a_row_says_the_same_things_in_both_languages(row: Metric) -> None:
    assert set(row.texts) == set(LANGUAGES)
    for language, texts in row.texts.items():
        assert texts["title"].strip() and texts["help"].strip()
        known = {name.removesuffix("_classes") for name in texts}
        assert known <= {*PLACES}, f"{language}: no page reads {known - {*PLACES}}"
        assert language == "en" or not known & ENGLISH_ONLY
    for place in SHOWN_PLACES:
        for classes in (False, True):
            english, chinese = (row.phrase(place, x, classes=classes) for x in ("en", "zh"))
            assert bool(english) == bool(chinese), place
            if chinese and (english != chinese or len(english.split()) > 1):
                assert re.search(r"[\u4e00-\u9fff]", chinese), f"{place}: {chinese}"
            assert placeholders(english) == placeholders(chinese) <= {"error"}, place
    assert row.bias or not any(
        placeholders(x) for texts in row.texts.values() for x in texts.values()
    )


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(text) if name is not None}


@ALL
def test_a_row_is_whole(row: Metric) -> None:
    assert row.name == next(name for name, other in METRICS.items() if other is row)
    assert row.kinds and row.kinds <= KINDS
    assert 0 <= row.digits <= MOST_DECIMALS
    assert bool(row.low) == bool(row.high), "an interval has two ends"
    assert not (row.low and row.error), "an interval of its own or a standard error, not both"
    assert row.role == "share" or row.low or row.error, "what is measured has an error"
    assert row.unchanged is None or row.needs_dense or row.role == "share"
    assert (row.role == "headline") == bool(row.paired)
    texts = (row.written(0.25, 0.01), row.error_written(0.25, 0.01), row.written(0.25))
    assert all(text.endswith("%") == row.percent for text in texts)
    assert row.written(None, absent="none") == "none" and row.error_written(0.5, None) == ""
    assert row.written(0.25, 0.01).startswith("25.0" if row.percent else "0.250")


def test_fields_belong_to_one_row_and_each_kind_has_one_headline() -> None:
    assert len(set(all_fields())) == len(all_fields())
    assert not set(all_fields()) & (PLAIN_FIELDS | set(SHARES))
    assert set(kept_fields()) < set(all_fields())
    for kind in KINDS:
        assert metrics_of("headline", kinds={kind}) == [headline_of({kind})]


def test_a_phrase_falls_back_and_classifiers_have_their_own() -> None:
    texts = {"en": {"title": "One", "title_classes": "Class", "help": "h {error}"}}
    row = Metric("x", texts, LANGUAGE, more_is_better=True)
    assert row.phrase("unit") == row.phrase("card") == "One"
    assert row.phrase("fact", classes=True) == "Class"
    assert row.phrase("help", error="0.1") == "h 0.1" and row.phrase("after") == ""


def test_rows_are_read_without_torch_and_streamlit() -> None:
    code = (
        "import sys, prune_core.evaluation.metrics, prune_core.evaluation.evaluation as e; "
        "e.Evaluation.from_dict({}); print(sorted({'torch', 'streamlit'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=PROJECT_ROOT, check=True
    )
    assert done.stdout.strip() == "[]"


# ---- what is measured ------------------------------------------------------------------------


def test_every_field_has_a_row_or_is_declared(models: dict[str, LoadedModel]) -> None:
    for kind, model in models.items():
        events: list[dict[str, Any]] = []
        result = result_of(model, PRUNED, events)
        windows = {"window_nll", "window_nll_dense", "window_similarity"}
        assert set(result) == {*all_fields(), *SHARES, *PLAIN_FIELDS, *windows}, kind
        assert set(result["protocol"]) == set(PROTOCOL)
        for event in (event for event in events if event.get("stage") == "evaluate"):
            assert set(event) == set(result) - windows - {"strip", "protocol"}


def test_each_kind_of_model_has_the_numbers_that_its_rows_promise(
    models: dict[str, LoadedModel], results: dict[str, dict[str, Any]]
) -> None:
    assert set(results) == KINDS
    for kind, result in results.items():
        info = models[kind].handle.info
        assert kind_of(info.kind, info.has_language_head, info.classes) == kind
        evaluation = Evaluation.from_dict(result)
        assert kind in evaluation.kinds and evaluation.of_classes == (kind == "classifier")
        assert evaluation.headline is headline_of({kind})
        for row in METRICS.values():
            fields = [x for x in row.fields if kind != "classifier" or x != row.bias]
            known = [result[field] is not None for field in fields]
            assert all(known) if kind in row.kinds else not any(known), (kind, row.name)


def test_what_stands_beside_a_headline_has_a_function() -> None:
    assert set(AGREEMENT) == {row.name for row in metrics_of("beside")}
    with pytest.raises(ValueError, match="needs a row"):
        measures("nosuch")
    with pytest.raises(ValueError, match="needs a row"):
        measures("sparsity")  # counted: there is no error to write
    with pytest.raises(ValueError, match="measured already"):
        measures("kl")


def test_the_dense_model_is_unchanged(models: dict[str, LoadedModel]) -> None:
    for kind, model in models.items():
        evaluation = Evaluation.from_dict(result_of(model, Recipe()))
        for row in METRICS.values():
            if kind in row.kinds and row.unchanged is not None:
                value = evaluation.value(row).value
                assert value == pytest.approx(row.unchanged, abs=1e-6), (kind, row.name)


# ---- the object ------------------------------------------------------------------------------


def test_plain_data_and_object_are_the_same(results: dict[str, dict[str, Any]]) -> None:
    for result in results.values():
        evaluation = Evaluation.from_dict(result)
        assert evaluation.to_dict() == result
        assert json.loads(json.dumps(evaluation.to_dict())) == json.loads(json.dumps(result))
        assert evaluation.perplexity == result["perplexity"]
        assert evaluation.added == result["added"] and evaluation.sparsity == result["sparsity"]
        more = {**result, "decode": {"median": 3.0}, "warnings": ["w"]}
        assert Evaluation.from_dict(more).to_dict() == more
    with pytest.raises(AttributeError, match="no 'nosuch'"):
        _ = Evaluation().nosuch


def test_an_evaluation_of_an_earlier_version_opens() -> None:
    old = {"metric": "perplexity", "perplexity": 20.0, "kl": 0.5, "kl_stderr": 0.1, "sparsity": 0.5}
    evaluation = Evaluation.from_dict(old)
    assert old.items() <= evaluation.to_dict().items()
    assert evaluation.counts is None and evaluation.protocol is None and evaluation.top1 is None
    kl = evaluation.value(METRICS["kl"])
    assert (kl.low, kl.high) == pytest.approx((0.5 - 0.195996, 0.5 + 0.195996), abs=1e-6)
    assert evaluation.value(METRICS["perplexity"]).low is None
    # a file that somebody wrote
    assert Evaluation.from_dict({"metric": "nosuch"}).headline.name == "perplexity"


def test_the_command_line_says_each_metric(results: dict[str, dict[str, Any]]) -> None:
    for kind, result in results.items():
        lines = measurement_lines(Evaluation.from_dict(result))
        for row in metrics_of("headline", "detail", "beside", kinds={kind}):
            label = row.phrase("line", classes=kind == "classifier")
            assert sum(line.startswith(f"{label} ") for line in lines) == 1, (kind, lines)
        assert not any("{" in line or line.endswith(" ") for line in lines)


# ---- fronts ----------------------------------------------------------------------------------


def run_of(name: str, row: Metric, value: float, nonzero: int) -> Run:
    numbers = {"metric": "perplexity", row.name: value, "nonzero": nonzero, "sparsity": 0.5}
    if row.low:
        numbers |= {row.low: value * 0.999, row.high: value * 1.001}
    else:
        numbers |= {row.error: 1e-4}
    return Run(name, "s", Cell("tiny", Recipe(name, sparsity=0.5)), "done", numbers)


@COMPARED
def test_a_front_knows_which_way_is_better(row: Metric) -> None:
    low, high = run_of("magnitude", row, 0.5, 100), run_of("random", row, 0.75, 100)
    states = {point.run: point.state for point in frontier([low, high], "nonzero", row.name).points}
    better, worse = ("random", "magnitude") if row.more_is_better else ("magnitude", "random")
    assert states == {better: FRONT, worse: DOMINATED}
    assert (row.name in MORE_IS_BETTER) == row.more_is_better
    placed = quality_value(low, row.name)
    assert placed is not None and placed.value == 0.5 and placed.low < 0.5 < placed.high


@COMPARED
def test_a_front_knows_the_dense_model(row: Metric) -> None:
    pruned = run_of("magnitude", row, 0.5, 100)
    numbers = {"perplexity_dense": 20.0, "window_nll_dense": [math.log(20.0)], "nonzero_dense": 200}
    found = frontier([replace(pruned, numbers={**pruned.numbers, **numbers})], "nonzero", row.name)
    if row.unchanged is not None or row.paired == "nll":
        assert found.dense is not None and found.dense.cost.value == 200
        wanted = 20.0 if row.paired == "nll" else row.unchanged
        assert found.dense.quality.value == pytest.approx(wanted)
    else:
        assert found.dense is None  # only measuring tells, and nobody has


def test_a_dense_value_that_nobody_measured_is_not_made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    row = replace(METRICS["kl"], name="spread", unchanged=None, error="spread_stderr")
    monkeypatch.setitem(METRICS, "spread", row)
    test_a_front_knows_the_dense_model(row)


def test_which_way_is_better_is_what_the_words_mean() -> None:
    better = {"perplexity": False, "kl": False, "top1": True, "similarity": True}
    assert better.items() <= {name: METRICS[name].more_is_better for name in QUALITIES}.items()
    assert qualities() == QUALITIES and set(QUALITIES) >= set(better)
    assert all(math.isfinite(METRICS[name].unchanged or 0.0) for name in QUALITIES)


def test_no_table_of_metrics_is_written_by_hand() -> None:
    """The name of a metric stands beside its row, its function and nowhere else."""
    metrics = ("metrics.py", "agreement.py", "evaluation.py")
    for path in sorted(Path(PROJECT_ROOT, "prune_core").rglob("*.py")):
        if path.parent.name != "evaluation" or path.name not in metrics:
            assert "top1_stderr" not in path.read_text(encoding="utf-8"), path
            assert '"top1"' not in path.read_text(encoding="utf-8"), path
