"""The Report page by Streamlit's own test runner: empty, made, without a model, single runs."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.sweeps.store.journal import RunStore
from tests.reporting_runs import finished, sweep
from tests.ui.apps import app, fine

report = partial(app, "report")


@pytest.fixture(autouse=True)
def place(inline_engine: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PRUNE_STORE", str(tmp_path / "runs.sqlite"))
    return tmp_path / "runs.sqlite"


def fill(place: Path, source: str = "tiny-llama") -> None:
    store = RunStore(str(place))
    for run in sweep(source=source, criteria=("magnitude", "random")):
        store.save_run(run.cell, run.numbers)
    store.close()


def keys(at: AppTest) -> set[str]:
    return {button.key for button in at.get("download_button")}


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_without_runs_it_says_how_to_get_some(lang: str) -> None:
    at = fine(report(lang=lang))
    assert len(at.info) == 1
    assert not keys(at)


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_a_report_is_made_when_it_is_asked_for(place: Path, lang: str) -> None:
    fill(place)
    at = fine(report(lang=lang))
    assert not keys(at)
    at.button(key="_report_make").click().run()
    fine(at)
    names = {"pptx", "html", "csv", "recipes"}
    assert keys(at) == {f"_report_get_{name}" for name in names}
    assert not at.warning
    command = next(block.value for block in at.code if "prune_core report" in block.value)
    assert f"--language {lang}" in command and str(place) in command
    # another reader: nothing is written again, the files are those of the new choice
    at.segmented_control(key="_report_audience").set_value("technical").run()
    assert keys(fine(at)) == {f"_report_get_{name}" for name in names}


def test_a_model_that_is_gone_still_gives_a_report(place: Path, tmp_path: Path) -> None:
    fill(place, str(tmp_path / "gone"))
    at = fine(report())
    at.button(key="_report_make").click().run()
    fine(at)
    assert len(at.warning) == 1
    assert "_report_get_pptx" in keys(at)
    at.toggle(key="_report_examples").set_value(False).run()
    assert not fine(at).warning


def test_runs_chosen_one_by_one_must_be_alike(place: Path) -> None:
    fill(place)
    store = RunStore(str(place))
    other = finished("magnitude", 0.3, 0.1, source="tiny-llama", text="other.txt")
    last = store.save_run(other.cell, other.numbers)
    first = store.runs()[2].id
    store.close()
    at = fine(report())
    at.toggle(key="_report_single").set_value(True).run()
    at.multiselect(key="_report_runs").set_value([first, last]).run()
    fine(at)
    assert "not measured alike" in at.warning[0].value
    at.multiselect(key="_report_runs").set_value([first]).run()
    assert fine(at).button(key="_report_make")
