"""The real model against figures that were computed elsewhere (../shared/data/peers.json)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

from prune_core.engine.client import Engine
from prune_core.jobs.base import TextSpec
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.exports import Export
from prune_core.models.load import load_model
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe

pytestmark = pytest.mark.real

DATA = Path(__file__).parents[2] / "shared" / "data"
MODEL = "smollm2-135m"
MAGNITUDE_2_4 = 1695.0
"""peers.json, "counting": magnitude 2:4, ties by position, lower index pruned first."""


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    if not (DATA / "wikitext2-test.txt").is_file():
        pytest.skip("the WikiText-2 windows lie beside the checkout, in ../shared/data; not here")
    made = Engine("inline")
    yield made
    made.close()


def measured(engine: Engine, recipe: Recipe) -> dict[str, float]:
    text = TextSpec("file", str(DATA / "wikitext2-test.txt"))
    job = Evaluate(MODEL, recipe, text, 512, 16)
    ticket = engine.submit(job, session="real", panel=recipe.fingerprint)
    assert ticket.state == "done", ticket.error
    assert ticket.result is not None
    return ticket.result


def peers() -> dict[tuple[str, float], float]:
    rows = json.loads((DATA / "peers.json").read_text())["written_out_naively"]
    return {(row["method"], row["sparsity"]): row["perplexity"] for row in rows}


def test_every_digit_is_a_token() -> None:
    """SmolLM's tokenizer.json: digits by themselves, then the byte level with GPT-2's cut."""
    tokenizer = load_model(MODEL).tokenizer
    text = "1841\n\n12345 ships (½ of them new) sailed.\n\n1842\n\n  No. 42: don't!\n\n7\t٣٤"
    ids = tokenizer(text).input_ids
    backend = tokenizer.backend_tokenizer
    byte_level = ByteLevel(add_prefix_space=False)
    backend.pre_tokenizer = Sequence([Digits(individual_digits=True), byte_level])
    assert backend.encode(text).ids == ids
    # the vocabulary has no numbers of two digits, but blank lines before a digit are one token
    backend.pre_tokenizer = byte_level
    assert len(backend.encode(text).ids) > len(ids)


def test_dense(engine: Engine) -> None:
    result = measured(engine, Recipe())
    expected = json.loads((DATA / "peers.json").read_text())["dense"]["perplexity"]
    assert result["perplexity"] == pytest.approx(expected, rel=1e-4)
    assert result["perplexity"] == pytest.approx(result["perplexity_dense"], rel=1e-9)
    assert result["tokens"] == 16 * 511
    assert result["kl"] == pytest.approx(0, abs=1e-6)
    assert result["top1"] == 1.0


@pytest.mark.parametrize("sparsity", [0.3, 0.5])
def test_magnitude_per_layer(engine: Engine, sparsity: float) -> None:
    result = measured(engine, Recipe(sparsity=sparsity))
    expected = peers()["magnitude per layer, exact count", sparsity]
    assert result["perplexity"] == pytest.approx(expected, rel=5e-3)
    assert result["sparsity"] == pytest.approx(sparsity, abs=1e-5)
    # the compact KL says how much it hides: little beside what it says
    assert 0 <= result["kl_error"] < 0.1 * result["kl"]


def test_magnitude_global(engine: Engine) -> None:
    result = measured(engine, Recipe(sparsity=0.5, allocation="global"))
    expected = peers()["magnitude, global, exact count, ties by position", 0.5]
    assert result["perplexity"] == pytest.approx(expected, rel=5e-3)
    assert sum(result["removed"].values()) == 106_168_320 // 2


def test_magnitude_2_4(engine: Engine) -> None:
    result = measured(engine, Recipe().with_pattern("nm:2:4"))
    assert result["perplexity"] == pytest.approx(MAGNITUDE_2_4, rel=5e-3)
    assert result["sparsity"] == 0.5


@pytest.mark.parametrize(
    ("method", "pattern", "sparsity"),
    [
        ("wanda per row, statistics of the dense model", "per-row", 0.3),
        ("wanda per row, statistics of the dense model", "per-row", 0.5),
        ("wanda 2:4, statistics of the dense model", "nm:2:4", 0.5),
    ],
)
def test_wanda(engine: Engine, method: str, pattern: str, sparsity: float) -> None:
    text = TextSpec("file", str(DATA / "wikitext2-valid.txt"))
    recipe = Recipe(
        criterion="wanda", pattern=pattern, sparsity=sparsity, calibration=Calibration(text)
    )
    result = measured(engine, recipe)
    assert result["perplexity"] == pytest.approx(peers()[method, sparsity], rel=5e-3)


@pytest.mark.parametrize(
    ("code", "recipe", "tolerance"),
    [
        (
            "sparsegpt as in the wanda repository",
            {"criterion": "sparsegpt", "reconstruction": "sparsegpt"},
            0.02,
        ),
        (
            "wanda repository, sequential calibration",
            {"criterion": "wanda", "pattern": "per-row"},
            0.01,
        ),
    ],
)
def test_block_after_block(
    engine: Engine, code: str, recipe: dict[str, str], tolerance: float
) -> None:
    rows = json.loads((DATA / "peers.json").read_text())["published_code"]
    method = "sparsegpt" if "reconstruction" in recipe else "wanda per row"
    expected = next(
        row["perplexity"]
        for row in rows
        if (row["code"], row["method"], row["sparsity"]) == (code, method, 0.5)
    )
    text = TextSpec("file", str(DATA / "wikitext2-valid.txt"))
    calibration = Calibration(text, mode="sequential")
    result = measured(engine, Recipe(sparsity=0.5, calibration=calibration, **recipe))
    assert result["perplexity"] == pytest.approx(expected, rel=tolerance)
    assert result["sparsity"] == pytest.approx(0.5, abs=1e-3)


def test_eight_blocks_fewer(engine: Engine, tmp_path: Path) -> None:
    """Removed live, cut out and loaded again by transformers: one perplexity, a smaller file."""
    recipe = Recipe(drop_blocks=tuple(range(20, 28)))
    text = TextSpec("file", str(DATA / "wikitext2-test.txt"))
    on_screen = measured(engine, recipe)
    job = Export(MODEL, recipe, str(tmp_path / "smaller"), "shrunk", False, text, 512, 16)
    ticket = engine.submit(job, session="real", panel="export")
    assert ticket.state == "done", ticket.error
    assert ticket.result is not None
    got = ticket.result
    assert got["exported"]["perplexity"] == pytest.approx(on_screen["perplexity"], rel=1e-3)
    assert got["difference"] < 1e-4
    block = 106_168_320 // 30
    assert got["dense"]["parameters"] - got["exported"]["parameters"] >= 8 * block
    assert got["exported"]["bytes"] < 4 * got["exported"]["parameters"] + 100_000
