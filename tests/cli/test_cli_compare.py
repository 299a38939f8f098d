"""``compare`` on the command line: its numbers are those of ``evaluate``, its refusals one line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from prune_core.cli import main as cli
from prune_core.evaluation.paired import compare_pairs
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.recipe import Recipe

Run = Callable[..., tuple[int, str, str]]
WORDS = "The king had a daughter who could not be made to laugh, and whoever made her laugh. " * 30
SMALL = ("--seq-len", "32", "--windows", "6")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    Path("text.txt").write_text(WORDS, encoding="utf-8")
    recipes = [
        Recipe(sparsity=0.3),
        Recipe(sparsity=0.6),
        Recipe(criterion="random", sparsity=0.6),
        Recipe(drop_blocks=(1,)),
    ]
    for name, recipe in zip("ABCD", recipes, strict=True):
        Path(f"{name}.json").write_text(recipe.to_json())
    return tmp_path


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], folder: Path) -> Run:
    def call(*arguments: str) -> tuple[int, str, str]:
        try:
            code = cli.main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        out, err = capsys.readouterr()
        return code, out, err

    return call


def compared(run: Run, *arguments: str, model: str = "tiny-llama") -> dict:
    code, out, err = run("compare", model, *arguments, "--text", "text.txt", *SMALL, "--json")
    assert (code, err) == (0, "")
    assert out.count("\n") == 1
    return json.loads(out)


def test_four_recipes_give_the_numbers_of_evaluate_and_six_pairs(run: Run) -> None:
    files = [f"{name}.json" for name in "ABCD"]
    found = compared(run, "--recipes", *files, "--blocks", "output")
    assert [row["name"] for row in found["recipes"]] == list("ABCD")
    for row in found["recipes"]:
        _, out, _ = run(
            *("evaluate", "tiny-llama", "--recipe", row["file"], "--text", "text.txt"),
            *(*SMALL, "--json"),
        )
        alone = json.loads(out)
        for field in ("perplexity", "perplexity_low", "kl", "top1", "sparsity", "window_nll"):
            assert row[field] == alone[field], field
        assert row["recipe"] == alone["recipe"]
        assert len(row["blocks"]["own"]["mean"]) == len(row["blocks"]["accumulated"]["mean"])
    losses = {row["name"]: row["window_nll"] for row in found["recipes"]}
    for pair, expected in zip(found["pairs"], compare_pairs(losses), strict=True):
        assert (pair["first"], pair["second"]) == (expected.first, expected.second)
        assert pair["mean"] == expected.difference.mean
        assert pair["p_holm"] == expected.p_holm
    assert len(found["overlap"]) == 6
    # smaller cuts of the same ranks lie inside larger ones: Jaccard is the ratio of the sizes
    assert found["overlap"][0]["jaccard"] == pytest.approx(0.5, abs=0.01)
    # magnitude against random at 60 %: what chance gives
    random = next(o for o in found["overlap"] if (o["first"], o["second"]) == ("B", "C"))
    assert random["jaccard"] == pytest.approx(random["by_chance"], abs=0.02)


def test_an_encoder_is_compared_by_similarity(run: Run) -> None:
    found = compared(run, "--recipes", "A.json", "B.json", model="tiny-bert")
    assert found["metric"] == "similarity"
    first, second = (row["window_similarity"] for row in found["recipes"])
    assert len(first) == 6
    expected = sum(a - b for a, b in zip(first, second, strict=True)) / 6
    assert found["pairs"][0]["mean"] == pytest.approx(expected)
    assert found["pairs"][0]["mean"] > 0  # less is removed, so it is nearer to dense


def test_people_are_told(run: Run) -> None:
    for model, word in (("tiny-llama", "perplexity"), ("tiny-bert", "similarity")):
        code, out, err = run(
            *("compare", model, "--recipes", "A.json", "B.json", "--blocks", "output"),
            *("--text", "text.txt", *SMALL),
        )
        assert (code, err) == (0, "")
        assert word in out and "A - B" in out and "A and B" in out
        assert "accumulated damage by block" in out


def test_equal_recipes_differ_by_nothing(run: Run) -> None:
    pair = compared(run, "--recipes", "A.json", "A.json")["pairs"][0]
    assert (pair["mean"], pair["p"], pair["p_holm"]) == (0.0, 1.0, 1.0)


@pytest.mark.parametrize("files", [["A.json"], ["A.json"] * 5])
def test_fewer_than_two_and_more_than_four_are_refused(run: Run, files: list[str]) -> None:
    code, out, err = run("compare", "tiny-llama", "--recipes", *files, "--text", "text.txt")
    assert (code, out) == (1, "")
    assert err == f"Compare takes two to four recipes, got {len(files)}.\n"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"\xff\xfe", "not UTF-8"),
        (b'{"schema": 9}', "schema"),
        (b'{"schema": 1, "criterion": "wnada"}', "wanda"),
        (Recipe(drop_blocks=(77,)).to_json().encode(), "77"),
        (Recipe(overrides={"block:99": 0.5}).to_json().encode(), "made for another"),
        (
            Recipe("wanda", sparsity=0.5, calibration=Calibration(TextSpec("file", "gone")))
            .to_json()
            .encode(),
            "gone",
        ),
    ],
)
def test_a_recipe_of_no_use_is_one_sentence(run: Run, content: bytes, said: str) -> None:
    Path("bad.json").write_bytes(content)
    code, out, err = run(
        *("compare", "tiny-llama", "--recipes", "A.json", "bad.json", "--text", "text.txt", *SMALL)
    )
    assert (code, out) == (1, "")
    assert said in err and err.count("\n") == 1
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (("--blocks", "loss", "--block-windows", "99999999"), "1 to 4096 windows"),
        (("--blocks", "loss", "--block-windows", "0"), "1 to 4096 windows"),
        (("--windows", "99999"), "1 to 4096 windows"),
        (("--block-windows", "3"), "--block-windows belongs to --blocks"),
    ],
)
def test_windows_have_a_bound(run: Run, more: tuple[str, ...], said: str) -> None:
    code, out, err = run("compare", "tiny-llama", "--recipes", "A.json", "B.json", *more)
    assert (code, out) == (1, "") and said in err and err.count("\n") == 1


def test_a_recipe_file_that_is_gone(run: Run) -> None:
    code, _, err = run("compare", "tiny-llama", "--recipes", "A.json", "none.json")
    assert code == 1
    assert "none.json" in err and err.count("\n") == 1
