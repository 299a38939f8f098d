"""What a new metric costs: two files of a copy of the project, and it is everywhere."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from prune_core.paths import PROJECT_ROOT

ROW = """
    Metric(
        "top5",
        {
            "en": {
                "title": "Still in the top five",
                "help": "Share of positions whose dense top token is among the pruned top five.",
            },
            "zh": {"title": "仍在前五", "help": "稠密首选词元仍在剪枝模型前五之内的比例。"},
        },
        LANGUAGE,
        more_is_better=True,
        unchanged=1.0,
        percent=True,
        error="top5_stderr",
    ),
"""

FUNCTION = '''

@measures("top5")
def top5(answer: Answer) -> Tensor:
    """1 where the dense model's most likely token is among the pruned model's five."""
    best = answer.logits.topk(5, dim=-1).indices.cpu()
    return (best == answer.dense_top1[:, None]).any(-1)
'''

BEFORE = '    Metric(\n        "similarity",\n'

DRIVER = """
import contextlib, io, json, os, sys
from pathlib import Path

def command(*arguments):
    from prune_core.cli.main import main
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(arguments))
    assert code == 0, (arguments, out.getvalue())
    return out.getvalue()

def page(name, **query):
    import streamlit as st
    from streamlit.testing.v1 import AppTest
    st.cache_resource.clear()
    at = AppTest.from_file(str(Path("pages", f"{name}.py").resolve()), default_timeout=120)
    at.query_params.update({"model": "tiny-llama", "seq_len": "64", "windows": "2", **query})
    at.run()
    assert not at.exception, at.exception
    return at

def drawn(at, name):
    parts = [e.proto for e in at.get("bidi_component")]
    return [json.loads(p.json) for p in parts if p.component_name == f"prunescope.{name}"]

def recipes():
    from prune_core.recipes.recipe import Recipe
    return {"A": Recipe("magnitude", sparsity=0.3), "B": Recipe("random", sparsity=0.5)}

def main():
    said = {}
    small = ("--sparsity", "0.5", "--seq-len", "64", "--windows", "3")
    said["words"] = command("evaluate", "tiny-llama", *small)
    said["json"] = json.loads(command("evaluate", "tiny-llama", *small, "--json"))
    from prune_core.recipes.packing import pack
    slots = pack(recipes())
    compared = ("compare", "tiny-llama", "--slots", slots, "--seq-len", "64", "--windows", "3")
    said["compare"] = command(*compared)
    os.environ["PRUNE_ENGINE"] = "inline"
    for language in ("en", "zh"):
        said[f"gauges_{language}"] = drawn(page("studio", sparsity="0.5", lang=language), "gauges")
    said["cards"] = drawn(page("compare", slots=slots), "card")
    Path("grid.yaml").write_text(
        "models: [tiny-llama]\\ntexts: [grimm]\\nseq_len: 64\\nwindows: 3\\n"
        "criteria: [magnitude, random]\\nsparsities: [0.1, 0.3, 0.5]\\n"
    )
    command("sweep", "grid.yaml", "--store", "runs.sqlite")
    asked = ("--store", "runs.sqlite")
    said["front"] = json.loads(command("frontier", *asked, "--quality", "top5", "--json"))
    said["runs"] = json.loads(command("runs", *asked, "--json"))
    command("report", *asked, "--to", "report", "--examples", "0")
    said["csv"] = Path("report", "runs.csv").read_text(encoding="utf-8-sig")
    said["html"] = next(Path("report").glob("*.html")).read_text(encoding="utf-8")
    os.environ["PRUNE_STORE"] = "runs.sqlite"
    at = page("tradeoff", quality="top5")
    said["axes"] = [list(box.options) for box in at.selectbox]
    said["axes"] += [list(box.options) for box in at.get("button_group")]
    Path("said.json").write_text(json.dumps(said, default=str), encoding="utf-8")

if __name__ == "__main__":
    main()
"""


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the project in which two files know one metric more."""
    copy = tmp_path_factory.mktemp("project")
    skipped = shutil.ignore_patterns("__pycache__", "*.pyc")
    for name in ("prune_core", "pages", "assets", "tests"):
        shutil.copytree(PROJECT_ROOT / name, copy / name, ignore=skipped)
    for name in ("app.py", "pyproject.toml"):
        shutil.copy(PROJECT_ROOT / name, copy / name)
    folder = copy / "prune_core" / "evaluation"
    metrics, agreement = folder / "metrics.py", folder / "agreement.py"
    text = metrics.read_text(encoding="utf-8")
    assert text.count(BEFORE) == 1
    metrics.write_text(text.replace(BEFORE, ROW.lstrip("\n") + BEFORE), encoding="utf-8")
    agreement.write_text(agreement.read_text(encoding="utf-8") + FUNCTION, encoding="utf-8")
    changed = [
        path.relative_to(PROJECT_ROOT)
        for path in sorted(PROJECT_ROOT.glob("prune_core/**/*.py"))
        if path.read_bytes() != (copy / path.relative_to(PROJECT_ROOT)).read_bytes()
    ]
    assert len(changed) <= 4, changed
    return copy


def in_project(project: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(project), "PRUNE_CACHE_DIR": str(project / "c")}
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=project,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def said(project: Path) -> dict[str, Any]:
    """What commands and pages of the copy say."""
    (project / "driver.py").write_text(DRIVER, encoding="utf-8")
    done = in_project(project, "driver.py")
    assert done.returncode == 0, done.stderr[-3000:]
    answers: dict[str, Any] = json.loads((project / "said.json").read_text(encoding="utf-8"))
    return answers


def test_the_command_line_says_it(said: dict[str, Any]) -> None:
    value, error = said["json"]["top5"], said["json"]["top5_stderr"]
    # a token that is still the first is one of the first five
    assert said["json"]["top1"] <= value <= 1 and error > 0
    assert re.search(r"^Still in the top five +0\.\d+ ± 0\.\d+$", said["words"], re.MULTILINE)
    assert "Still in the top five" in said["compare"].splitlines()[0]


def test_the_studio_has_a_gauge_of_it(said: dict[str, Any]) -> None:
    for language, title in (("en", "Still in the top five"), ("zh", "仍在前五")):
        (gauges,) = said[f"gauges_{language}"]
        gauge = next(gauge for gauge in gauges["gauges"] if gauge["id"] == "top5")
        assert gauge["name"] == title and gauge["text"].endswith("%") and gauge["help"]
        assert 0 < gauge["value"] <= 1


def test_compare_has_a_line_of_it(said: dict[str, Any]) -> None:
    assert len(said["cards"]) == 2
    for card in said["cards"]:
        (row,) = [row for row in card["rows"] if row[0] == "Still in the top five"]
        assert row[1].endswith("%") and row[2].startswith("±")


def test_it_is_an_axis_of_a_front(said: dict[str, Any]) -> None:
    runs = {run["id"]: run["top5"] for run in said["runs"]["runs"]}
    assert len(runs) == 6 and all(0 < value <= 1 for value in runs.values())
    front = said["front"]
    assert front["quality"] == "top5"
    assert any("Still in the top five" in options for options in said["axes"])


def test_a_report_has_a_column_of_it(said: dict[str, Any]) -> None:
    head, *rows = said["csv"].splitlines()
    names = head.split(",")
    assert {"top5", "top5_stderr"} <= set(names)
    assert len(rows) == 6 and all(float(row.split(",")[names.index("top5")]) > 0 for row in rows)
    assert "Still in the top five" in said["html"]


def test_it_keeps_the_contract(project: Path) -> None:
    done = in_project(
        project,
        *("-m", "pytest", "-n", "0", "-p", "no:cacheprovider"),
        "tests/contracts/test_metrics.py",
    )
    assert done.returncode == 0, done.stdout[-3000:]
