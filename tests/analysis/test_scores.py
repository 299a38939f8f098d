"""Scores of a layer in bins and numbers, and the overlap of two masks, counted another way."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch

from prune_core.analysis.weights.scores import jaccard, overlap, score_bins, score_row
from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import RecipeError
from prune_core.jobs.base import Job, TextSpec
from prune_core.jobs.compare import MaskOverlap
from prune_core.jobs.weights import LayerTable, ScoreHistogram
from prune_core.pruning.plan import layer_mask
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.planning import prepare, work_out

CALIBRATION = Calibration(
    TextSpec("inline", "Once there was a miller who had three sons. " * 60), 4, 32
)
WANDA = Recipe(criterion="wanda", pattern="per-row", sparsity=0.4, calibration=CALIBRATION)


@pytest.fixture(scope="module")
def core(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Core]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PRUNE_CACHE_DIR", str(tmp_path_factory.mktemp("cache")))
        yield Core()


@pytest.fixture(scope="module")
def run(core: Core) -> Callable[[Job], dict]:
    return lambda job: core.run(job)


def test_every_score_is_in_one_bin_or_zero() -> None:
    generator = torch.Generator().manual_seed(3)
    scores = torch.rand(40, 50, generator=generator) ** 6
    scores[::7] = 0
    mask = scores >= 0.01
    found = score_bins(scores, mask, 32)
    values, keep = scores.double().numpy().ravel(), mask.numpy().ravel()
    edges = np.array(found["edges"])
    assert np.allclose(edges[1:] / edges[:-1], edges[1] / edges[0], rtol=1e-6)
    for counts, part in ((found["counts"], values > 0), (found["removed_counts"], ~keep)):
        chosen = values[part & (values > 0)]
        slots = np.clip(np.searchsorted(edges, chosen, "right") - 1, 0, 31)
        assert counts == np.bincount(slots, minlength=32).tolist()
    assert found["zeros"] == found["removed_zeros"] == int((values == 0).sum())
    assert found["cut"] == values[~keep].max()
    assert sum(found["removed_counts"]) + found["removed_zeros"] == found["removed"]


@pytest.mark.parametrize("scores", [torch.zeros(3, 4), torch.full((3, 4), 2.0)])
def test_scores_that_are_all_equal_still_give_bins(scores: torch.Tensor) -> None:
    found = score_bins(scores, None, 8)
    assert sum(found["counts"]) + found["zeros"] == 12 and found["cut"] is None
    assert all(a < b for a, b in zip(found["edges"], found["edges"][1:], strict=False))


@pytest.mark.parametrize("bins", [0, 1025])
def test_bins_out_of_range(bins: int) -> None:
    with pytest.raises(RecipeError, match="1 to 1024"):
        score_bins(torch.ones(2, 3), None, bins)


def test_a_layer_in_numbers() -> None:
    scores = torch.arange(101.0)[torch.randperm(101, generator=torch.Generator().manual_seed(0))]
    row = score_row(scores)
    assert (row["score_q01"], row["score_q50"], row["score_max"]) == (1.0, 50.0, 100.0)
    assert row["score_mean"] == pytest.approx(50) and row["score_zeros"] == 1
    assert row["score_std"] == pytest.approx(np.arange(101).std())


def test_overlap_by_hand() -> None:
    ours = torch.tensor([[True, False, False], [True, True, False]])
    theirs = torch.tensor([[False, False, True], [True, True, False]])
    assert overlap(ours, theirs) == {"ours": 3, "theirs": 3, "both": 2, "either": 4}
    assert jaccard(2, 4) == 0.5 and jaccard(0, 0) is None


def test_a_score_histogram_is_the_criterion_s(core: Core, run: Callable[[Job], dict]) -> None:
    loaded = core.loaded("tiny-gpt2")
    name = next(n for n in loaded.handle.structure.layers if n.endswith("c_fc"))
    got = run(ScoreHistogram("tiny-gpt2", name, WANDA, 64))
    statistics = prepare(loaded, WANDA).statistics
    assert statistics is not None
    norm = statistics.layers[name].input_norm
    assert norm is not None
    weight = loaded.handle.structure.layers[name].weight(loaded.handle.model)
    scores = (weight.abs() * norm).double().numpy()
    assert got["numel"] == scores.size and got["criterion"] == "wanda"
    assert got["edges"][-1] == pytest.approx(scores.max(), rel=1e-6)
    lowest = np.sort(scores, axis=1)[:, : round(0.4 * scores.shape[1])]
    assert got["removed"] == lowest.size and got["cut"] == pytest.approx(lowest.max(), rel=1e-6)


def test_scores_are_there_before_anything_is_removed(run: Callable[[Job], dict]) -> None:
    dense = replace(WANDA, sparsity=0.0)
    name = "model.layers.0.mlp.down_proj"
    got = run(ScoreHistogram("tiny-llama", name, dense, 64))
    assert got["removed"] == 0 and got["cut"] is None and sum(got["counts"]) > 0
    rows = run(LayerTable("tiny-llama", dense, scored=True))["rows"]
    assert all(row["removed"] == 0 and row["score_max"] > 0 for row in rows)


def test_masks_of_two_recipes(core: Core, run: Callable[[Job], dict]) -> None:
    other = replace(WANDA, criterion="magnitude", drop_heads=((1, 0),))
    got = run(MaskOverlap("tiny-llama", WANDA, other))
    loaded = core.loaded("tiny-llama")
    structure = loaded.handle.structure
    plans = [work_out(loaded, WANDA), work_out(loaded, other)]
    both = either = 0
    for row in got["layers"]:
        gone = [~layer_mask(plan, structure, row["name"]).numpy() for plan in plans]
        assert row["both"] == (gone[0] & gone[1]).sum()
        assert row["either"] == (gone[0] | gone[1]).sum()
        both, either = both + row["both"], either + row["either"]
    assert got["total"]["jaccard"] == pytest.approx(both / either)
    assert 0 < got["by_chance"] < got["total"]["jaccard"] < 1


def test_a_recipe_overlaps_itself_wholly_and_chance_not(run: Callable[[Job], dict]) -> None:
    assert run(MaskOverlap("tiny-llama", WANDA, WANDA))["total"]["jaccard"] == 1.0
    chance = [Recipe(criterion="random", sparsity=0.5, criterion_args={"seed": s}) for s in (1, 2)]
    got = run(MaskOverlap("tiny-llama", *chance))
    assert got["by_chance"] == pytest.approx(1 / 3, abs=0.01)
    assert got["total"]["jaccard"] == pytest.approx(1 / 3, abs=0.05)
    nothing = run(MaskOverlap("tiny-llama", Recipe(), Recipe()))
    assert nothing["total"]["jaccard"] is None and nothing["by_chance"] is None


def test_a_layer_that_is_not_there(run: Callable[[Job], dict]) -> None:
    with pytest.raises(RecipeError, match="no layer nowhere"):
        run(ScoreHistogram("tiny-llama", "nowhere", WANDA))


def test_inspect_with_scores(
    core: Core, tmp_path_factory: pytest.TempPathFactory, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path_factory.mktemp("text") / "calibration.txt"
    path.write_text(CALIBRATION.text.value, encoding="utf-8")
    words = ["inspect", "tiny-llama", "--scores", "wanda", "--calibration", str(path)]
    words += ["--calibration-windows", "4", "--calibration-seq-len", "32"]
    assert main([*words, "--json"]) == 0
    got = json.loads(capsys.readouterr().out)
    loaded = core.loaded("tiny-llama")
    statistics = prepare(loaded, WANDA).statistics
    assert statistics is not None
    for row in got["rows"]:
        layer = loaded.handle.structure.layers[row["name"]]
        norm = statistics.layers[row["name"]].input_norm
        assert norm is not None
        scores = layer.weight(loaded.handle.model).abs() * norm
        assert row["score_mean"] == pytest.approx(float(scores.mean()), rel=1e-4)
    assert main(words) == 0
    assert "mean score" in capsys.readouterr().out


def test_inspect_with_scores_of_an_unknown_criterion(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["inspect", "tiny-llama", "--scores", "wandda"]) == 1
    assert "Did you mean 'wanda'?" in capsys.readouterr().err
