"""The Studio's drawers for cost and export, by Streamlit's own test runner."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from streamlit.testing.v1 import AppTest

from prune_core.exporting import formats
from prune_core.jobs.exports import Cost, Export
from prune_core.recipes.recipe import Recipe
from tests.ui.apps import app, fine

pytestmark = pytest.mark.usefixtures("inline_engine")


def studio(*, opened: bool = False, **query: str) -> AppTest:
    """The Studio by itself, its drawer of costs opened or closed."""
    session = {"_cost_open": True} if opened else {}
    query = {"seq_len": "64", "windows": "1", **query}
    return fine(app("studio", alone=True, session=session, **query))


def export(at: AppTest, folder: Path, form: str = "masked") -> AppTest:
    """Fill in the drawer, untimed, and click."""
    at.radio(key="export_format").set_value(form)
    at.toggle(key="_export_timed").set_value(False)
    at.text_input(key="_export_folder").set_value(str(folder)).run()
    at.button(key="_export").click().run()
    return at


def tables(at: AppTest) -> list[dict[str, list[str]]]:
    return [table.value.reset_index().to_dict("list") for table in at.table]


@pytest.mark.parametrize("lang", ["en", "zh"])
def test_costs_are_counted_when_the_drawer_opens(lang: str) -> None:
    assert not tables(studio(lang=lang, sparsity="0.5", drop_blocks="1"))
    at = studio(opened=True, lang=lang, sparsity="0.5", drop_blocks="1")
    (table,) = tables(at)
    columns = list(table)
    assert len(columns) == 4  # measure, dense, zeros in place, parts cut out
    assert table[columns[1]][0] == table[columns[2]][0] == "66,080"
    assert int(table[columns[3]][0].replace(",", "")) < 66_080
    assert at.button(key="_cost_measure")


def test_what_cannot_be_cut_out_is_said(tmp_path: Path) -> None:
    at = studio(opened=True, drop_mlp="1")
    assert len(list(tables(at)[0])) == 3
    assert any("without its attention or its MLP" in text.value for text in at.markdown)
    at.radio(key="export_format").set_value("shrunk")
    at.text_input(key="_export_folder").set_value(str(tmp_path / "out")).run()
    assert at.button(key="_export").disabled
    assert any("without its attention" in box.value for box in at.warning)
    at.button(key="_export_instead").click().run()
    assert at.radio(key="export_format").value == "masked"
    assert not fine(at).button(key="_export").disabled


def test_a_measurement_belongs_to_its_recipe() -> None:
    at = studio(opened=True, sparsity="0.5")
    at.session_state["_cost_job"] = Cost("tiny-llama", Recipe(sparsity=0.5), 1)
    fine(at.run())
    words = [row for table in tables(at) for row in next(iter(table.values()))]
    assert any("Decode" in word for word in words)
    at.slider(key="sparsity").set_value(0.3).run()
    assert "_cost_job" not in fine(at).session_state
    words = [row for table in tables(at) for row in next(iter(table.values()))]
    assert not any("Decode" in word for word in words)


def test_an_export_from_the_page(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    at = studio(drop_blocks="1")
    assert at.button(key="_export").disabled  # no folder yet
    fine(export(at, folder, "shrunk"))
    assert (folder / "model.safetensors").is_file() and (folder / "recipe.json").is_file()
    (table,) = tables(at)
    assert any("66,080" in text for column in table.values() for text in column)
    assert any(str(folder) in code.value for code in at.code)
    measured = json.loads((folder / "measured.json").read_text())
    shown = at.session_state["_studio_shown"]["numbers"]["perplexity"]
    assert measured["exported"]["perplexity"] == pytest.approx(shown, rel=1e-3)
    # the recipe moves on, and what was written says whose it is
    at.slider(key="sparsity").set_value(0.3).run()
    old = Recipe(drop_blocks=(1,)).fingerprint
    assert any(old in text.value for text in fine(at).caption)


def test_a_second_click_writes_again(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    at = fine(export(studio(sparsity="0.5"), folder))
    at.button(key="_export").click().run()
    assert ["exists; choose another" in box.value for box in at.error] == [True]
    (folder / "README.md").unlink()
    at.toggle(key="_export_overwrite").set_value(True).run()
    at.button(key="_export").click().run()
    assert (folder / "README.md").is_file() and not list(tmp_path.glob(".*"))
    fine(at)


def test_a_failure_is_a_sentence_and_can_be_tried_again(tmp_path: Path) -> None:
    at = export(studio(sparsity="0.5"), tmp_path / "no" / "such" / "place")
    assert len(at.error) == 1 and "no folder" in at.error[0].value and not at.exception
    (tmp_path / "no" / "such").mkdir(parents=True)
    at.button(key="_retry_studio_export").click().run()
    assert (tmp_path / "no" / "such" / "place" / "README.md").is_file()
    fine(at)


def test_without_the_library_compressed_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(formats, "LIBRARY", "compressed-tensors-that-is-not-there")
    at = studio(sparsity="0.5")
    at.radio(key="export_format").set_value("compressed")
    at.text_input(key="_export_folder").set_value(str(tmp_path / "out")).run()
    assert fine(at).button(key="_export").disabled
    assert any("requirements" in box.value for box in at.warning)


def test_a_server_writes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_MODE", "team")
    at = studio(sparsity="0.5")
    assert not [button for button in at.button if button.key == "_export"]
    assert any("export tiny-llama" in code.value for code in at.code)


def test_a_link_cannot_write(tmp_path: Path) -> None:
    at = studio(export_format="shrunk", _export_folder=str(tmp_path / "out"), _export="true")
    assert "_export_job" not in at.session_state and not list(tmp_path.iterdir())
    assert isinstance(Export("tiny-llama").asked, str)


def test_refusals_are_in_the_language_of_the_page() -> None:
    at = studio(lang="zh", drop_mlp="1", export_format="shrunk")
    assert ["改用掩码格式导出" in box.value for box in at.warning] == [True]
