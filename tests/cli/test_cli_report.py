"""``report`` on the command line, and its page in a browser without a network."""

from __future__ import annotations

import io
import json
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from pptx import Presentation

from prune_core.cli.main import main
from prune_core.reporting.build import made
from prune_core.reporting.content import gather
from prune_core.sweeps.store.journal import RunStore
from tests.browser import chromium, require_browser, visitor
from tests.reporting.test_reporting import HOSTILE, example
from tests.reporting_runs import finished, sweep


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Runs of a tiny model with made-up numbers, each saved on its own."""
    path = str(tmp_path / "runs.sqlite")
    kept = RunStore(path)
    # criteria that read no calibration text: its windows would be too long for the tiny model
    for run in sweep(source="tiny-llama", criteria=("magnitude", "random")):
        kept.save_run(run.cell, run.numbers)
    kept.close()
    return path


def test_slides_from_runs_by_one_command(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = tmp_path / "report.pptx"
    asked = ["report", "--store", store, "--to", str(to), "--examples", "1", "--language", "zh"]
    assert main([*asked, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["files"] == {"pptx": str(to)}
    assert (found["examples"], found["runs"]) == (1, 14)
    assert [option["name"] for option in found["options"]] == ["small", "medium", "large"]
    slides = Presentation(str(to)).slides
    assert len(slides) == 6
    assert any(shape.has_chart for shape in slides[1].shapes)
    before = to.read_bytes()
    assert main(asked) == 1
    assert "exists" in capsys.readouterr().err
    assert to.read_bytes() == before
    assert main([*asked, "--overwrite", "--examples", "0"]) == 0
    assert len(Presentation(io.BytesIO(to.read_bytes())).slides) == 5


def test_all_files_into_a_folder_though_the_model_is_gone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    store = RunStore(str(tmp_path / "runs.sqlite"))
    for run in sweep(source=str(tmp_path / "gone")):
        store.save_run(run.cell, run.numbers)
    store.close()
    asked = ["report", "--store", store.name, "--to", str(tmp_path / "all")]
    assert main([*asked, "--audience", "technical", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert sorted(p.name for p in (tmp_path / "all").iterdir()) == [
        *("recipes.zip", "report-technical-en.html", "report-technical-en.pptx", "runs.csv"),
    ]
    assert found["examples"] == 0
    assert any("No example answers" in notice for notice in found["notices"])


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["--sweep", "nosuch"], "no sweep nosuch"),
        (["--sweep", "latest"], "no sweeps yet"),
        (["--runs", "nosuch"], "no run 'nosuch'"),
        (["--runs", ","], "no runs"),
        (["--examples", "99"], "0 to 3 usual examples"),
        (["--to", "nowhere/x.pptx"], "no folder nowhere"),
        (["--to", "x.pptx", "--format", "csv"], "not for csv"),
    ],
)
def test_wrong_questions_end_in_one_sentence(
    store: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    word: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["report", "--store", store, "--to", "a.pptx", *arguments]) == 1
    said = capsys.readouterr().err
    assert word in said and said.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir() if "report" in path.name] == []
    assert not (tmp_path / "a.pptx").exists()


@pytest.mark.parametrize(
    ("trouble", "word"),
    [
        ("damaged", "damaged; it was left as it is"),
        ("newer", "newer version of Prunescope"),
        ("other", "database of another program"),
    ],
)
def test_a_store_that_cannot_be_read_gives_no_report(
    store: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], trouble: str, word: str
) -> None:
    path = Path(store)
    if trouble == "damaged":
        path.write_bytes(b"these are my notes, not a database")
    elif trouble == "newer":
        database = sqlite3.connect(path)
        database.execute("PRAGMA user_version = 99")
        database.close()
    else:
        path.unlink()
        database = sqlite3.connect(path)
        database.execute("CREATE TABLE songs (title TEXT)")
        database.close()
    before = path.read_bytes()
    to = tmp_path / "report.html"
    assert main(["report", "--store", store, "--to", str(to)]) == 1
    told = capsys.readouterr().err
    assert word in told and "Traceback" not in told
    assert path.read_bytes() == before
    assert not to.exists()


def test_only_unfinished_runs_give_no_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from prune_core.sweeps.grid import Grid

    store = RunStore(str(tmp_path / "runs.sqlite"))
    id = store.add_sweep(Grid(models=("tiny-llama",), sparsities=(0.1, 0.2)))
    store.close()
    asked = ["report", "--store", store.name, "--sweep", id, "--to", str(tmp_path / "a.pptx")]
    assert main(asked) == 1
    assert "none of these 2 runs is finished (2 pending)" in capsys.readouterr().err
    assert not (tmp_path / "a.pptx").exists()


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_page_opens_without_errors_or_a_network(tmp_path: Path, scheme: str) -> None:
    require_browser()
    runs = [*sweep(), *sweep(criteria=("ria", "random"))]
    runs.append(finished("wanda", 0.35, 0.1, note=HOSTILE))
    content = replace(gather(runs), examples=(example(HOSTILE, HOSTILE),))
    path = tmp_path / "report.html"
    path.write_bytes(made(content.told_to("technical", "en"), "html"))
    asked: list[str] = []
    with chromium() as browser, visitor(browser, color_scheme=scheme) as tab:
        tab.page.on("request", lambda request: asked.append(request.url))
        tab.page.goto(path.as_uri())
        tab.page.wait_for_selector("#figure .scatterlayer .trace")
        assert tab.page.locator("#figure .scatterlayer .trace").count() >= 4
        assert tab.page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        paper = tab.page.evaluate("getComputedStyle(document.body).backgroundColor")
        assert paper == ("rgb(19, 23, 28)" if scheme == "dark" else "rgb(253, 252, 250)")
        tab.page.locator("#figure .scatterlayer .point").nth(1).hover(force=True)
        tab.page.wait_for_selector("#figure .hoverlayer .hovertext")
        bottom, below = tab.page.evaluate(
            """() => [["#figure .svg-container", "bottom"], [".save", "top"]].map(
            ([name, edge]) => document.querySelector(name).getBoundingClientRect()[edge])"""
        )
        assert bottom <= below + 1  # however many lines the legend takes
        for kind, begins in {"png": b"\x89PNG", "svg": b"<svg"}.items():
            with tab.page.expect_download() as download:
                tab.page.locator(f'.save button[data-format="{kind}"]').click()
            assert download.value.suggested_filename == f"trade-off.{kind}"
            assert download.value.path().read_bytes().startswith(begins)
    assert [url for url in asked if not url.startswith(("file:", "data:", "blob:"))] == []
    assert tab.complaints == []
