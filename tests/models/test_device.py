"""The same numbers on an accelerator as on the CPU; skips where there is none."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from prune_core.engine.core import Core
from prune_core.jobs.base import Job
from prune_core.jobs.blocks import BlockAblation, BlockImportance
from prune_core.jobs.compare import BlockDamage
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.heads import AttentionPattern, AttentionSteps, HeadImportance
from prune_core.jobs.neurons import NeuronProfile
from prune_core.jobs.sweeps import MeasureCell
from prune_core.jobs.weights import LayerTable
from prune_core.models.tiny import TINY
from prune_core.recipes.calibration import Calibration, TextSpec
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe


def accelerator() -> str:
    """``cuda``, ``mps`` or nothing."""
    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else ""


pytestmark = pytest.mark.skipif(not accelerator(), reason="This machine has no accelerator.")

TEXT = TextSpec("inline", "Once upon a time there was a king who had three daughters. " * 60)
OTHER = TextSpec("inline", "The lighthouse keeper wrote to his sister about the winter. " * 60)
CALIBRATION = Calibration(OTHER, 4, 32)
RECIPES = {
    "dense": Recipe(),
    "magnitude": Recipe(sparsity=0.5),
    "global": Recipe(sparsity=0.5, allocation="global"),
    "wanda": Recipe(criterion="wanda", pattern="per-row", sparsity=0.5, calibration=CALIBRATION),
    "2:4": Recipe(criterion="ria", calibration=CALIBRATION).with_pattern("nm:2:4"),
    "taylor": Recipe(criterion="taylor", sparsity=0.3, calibration=CALIBRATION),
    "sparsegpt": Recipe(
        criterion="sparsegpt", reconstruction="sparsegpt", sparsity=0.5, calibration=CALIBRATION
    ),
    "parts": Recipe(sparsity=0.2, drop_heads=((0, 1),), drop_blocks=(1,), drop_neurons=((0, 3),)),
    "neurons": Recipe(neurons=NeuronShare(0.25, "fluctuation"), calibration=CALIBRATION),
}


@pytest.fixture(scope="module")
def cores() -> tuple[Core, Core]:
    return Core("cpu"), Core(accelerator())


def both(cores: tuple[Core, Core], job: Job) -> tuple[dict[str, Any], dict[str, Any]]:
    first, second = (core.run(job) for core in cores)
    return first, second


def flat(value: Any) -> list[float]:
    """All numbers of a result, in order, without times."""
    if isinstance(value, dict):
        left = {k: v for k, v in value.items() if k not in ("seconds", "protocol", "seconds_left")}
        return [x for key in sorted(left) for x in flat(left[key])]
    if isinstance(value, list | tuple):
        return [x for part in value for x in flat(part)]
    return [float(value)] if isinstance(value, int | float) else []


@pytest.mark.parametrize("recipe", RECIPES.values(), ids=RECIPES)
@pytest.mark.parametrize("name", sorted(TINY))
def test_recipes_measure_the_same(name: str, recipe: Recipe, cores: tuple[Core, Core]) -> None:
    ours, theirs = both(cores, Evaluate(name, recipe, TEXT, 32, 3))
    assert theirs["sparsity"] == ours["sparsity"]
    for key in ("perplexity", "nll", "similarity"):
        if ours[key] is not None:
            assert theirs[key] == pytest.approx(ours[key], rel=2e-3)
    assert theirs["protocol"]["device"].startswith(accelerator())


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-bert", "tiny-t5"])
@pytest.mark.parametrize(
    "kind",
    ["ablation", "gradient", "confidence", "entropy", "weight-norm", "blocks", "influence",
     "neurons", "pattern", "steps", "damage", "layers", "cell"],
)  # fmt: skip
def test_analyses_are_the_same(name: str, kind: str, cores: tuple[Core, Core]) -> None:
    pruned = RECIPES["magnitude"]
    jobs: dict[str, Job] = {
        "blocks": BlockAblation(name, TEXT, 32, 2, ("block", "attention", "mlp")),
        "influence": BlockImportance(name, TEXT, 32, 2),
        "neurons": NeuronProfile(name, CALIBRATION, 10),
        "pattern": AttentionPattern(name, "a cat sat on a mat", 1, "self", pruned),
        "steps": AttentionSteps(name, "a cat sat on a mat", 1, 0, 2, "self", pruned),
        "damage": BlockDamage(name, pruned, TEXT, 32, 2),
        "layers": LayerTable(name, RECIPES["wanda"], True),
        "cell": MeasureCell(name, pruned, TEXT, 32, 2),
    }
    job = jobs.get(kind) or HeadImportance(name, kind, TEXT, 32, 2)
    ours, theirs = both(cores, job)
    if kind == "neurons":  # near ties may change places: the scores themselves are compared
        ours, theirs = (
            {m: x["methods"][m]["scores"] for m in x["methods"]} for x in (ours, theirs)
        )
    if kind == "cell":
        kept = ("nll", "nonzero", "bytes_sparse")
        ours, theirs = ({k: x[k] for k in kept if x[k]} for x in (ours, theirs))
    assert flat(theirs) == pytest.approx(flat(ours), rel=5e-3, abs=2e-3)


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-t5"])
def test_writing_works(name: str, cores: tuple[Core, Core]) -> None:
    ours, theirs = both(cores, Generate(name, RECIPES["magnitude"], "Once upon", 8))
    assert len(theirs["pruned"]["ids"]) == len(ours["pruned"]["ids"])
