"""``frontier`` on the command line, on a tiny model."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import TextError
from prune_core.jobs.base import Job
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.questions import held_out_job
from prune_core.jobs.sweeps import MeasureCell
from prune_core.recipes.calibration import TextSpec
from prune_core.recipes.recipe import Recipe
from prune_core.sweeps.records import Cell
from prune_core.sweeps.store.journal import RunStore

TEXT = "Once upon a time there was a king who had three daughters and a garden. " * 400


@pytest.fixture
def text(tmp_path: Path) -> str:
    path = tmp_path / "text.txt"
    path.write_text(TEXT, encoding="utf-8")
    return str(path)


def test_a_budget_is_solved_and_confirmed(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    code = main(
        ["frontier", "tiny-llama", "--budget", "2%", "--criteria", "magnitude,random", "--text",
         text, "--seq-len", "32", "--windows", "4", "--json"]
    )  # fmt: skip
    assert code == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["method"][0] for row in found["answers"]] == ["magnitude", "random"]
    best = found["best"]
    assert best["worse"] <= 0.02
    assert best["held_out"]["worse"] is not None
    assert best["verdict"] in ("kept", "unclear", "broken")
    assert all(row["evaluations"] <= 8 for row in found["answers"])
    assert Recipe.from_dict(best["recipe"]).fingerprint == best["fingerprint"]


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        (["tiny-llama", "--budget", "lots"], "5%"),
        (["--budget", "5%"], "name the model"),
        (["tiny-llama", "--budget", "5%", "--criteria", "wandaa"], "wanda"),
    ],
)
def test_bad_budgets_are_one_sentence(
    arguments: list[str], word: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["frontier", *arguments]) == 1
    said = capsys.readouterr().err.strip()
    assert word in said
    assert "\n" not in said


def test_the_front_of_a_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    url = str(tmp_path / "runs.sqlite")
    assert main(["frontier", "--store", url]) == 1
    assert "no finished runs" in capsys.readouterr().err
    store = RunStore(url)
    for criterion, loss in (("wanda", 0.1), ("magnitude", 0.3)):
        numbers = {
            "perplexity": 20 * math.exp(loss), "perplexity_low": 20 * math.exp(loss - 0.01),
            "perplexity_high": 20 * math.exp(loss + 0.01), "perplexity_dense": 20.0,
            "delta_nll": loss, "delta_nll_stderr": 0.005, "sparsity": 0.5, "nonzero": 500,
            "parameters": 1000,
        }  # fmt: skip
        store.save_run(Cell("tiny-llama", Recipe(criterion=criterion, sparsity=0.5)), numbers)
    store.close()
    assert main(["frontier", "--store", url, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["method"][0] if row["method"] else "dense" for row in found["front"]] == [
        "wanda",
        "dense",
    ]
    assert found["dominated"] == [
        {"method": ["magnitude", "per-layer"], "by": [["wanda", "per-row"]]}
    ]
    assert main(["frontier", "--store", url]) == 0
    assert "beaten everywhere" in capsys.readouterr().out


def test_held_out_windows_are_those_not_seen() -> None:
    question = Cell("tiny-llama", windows=2, seq_len=32)
    recipe = Recipe(sparsity=0.3)
    core = Core()

    def ask(job: Job) -> dict[str, Any]:
        return core.run(job)

    found = ask(held_out_job(question, recipe))
    whole = ask(Evaluate("tiny-llama", recipe, question.text, 32, 4))
    assert found["window_nll"] == whole["window_nll"][2:]
    assert found["window_nll_dense"] == whole["window_nll_dense"][2:]
    assert found["protocol"]["windows"] == 2
    text = TextSpec("inline", "the cat sat on the mat and the dog barked " * 12)
    with pytest.raises(TextError, match="no windows after the first"):
        ask(MeasureCell("tiny-llama", recipe, text, 32, 2, start=500))
