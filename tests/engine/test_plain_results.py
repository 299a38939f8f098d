"""What the worker sends is plain values: the web process must load nothing to read it.

A ``torch.__version__`` among them once had every first number wait five seconds for torch.
"""

from __future__ import annotations

import pickle
import pickletools
from pathlib import Path
from typing import Any

import pytest

from prune_core.engine.core import Core
from prune_core.jobs import base as jobs
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks, LayerImportance
from prune_core.jobs.compare import BlockDamage, MaskOverlap
from prune_core.jobs.evaluate import Evaluate, Generate
from prune_core.jobs.exports import Cost, Export
from prune_core.jobs.heads import AttentionPattern, AttentionSteps, HeadImportance
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.jobs.sweeps import Budget, MeasureCell
from prune_core.jobs.weights import Histograms, LayerTable, ScoreHistogram
from prune_core.progress import Progress
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import NeuronShare
from prune_core.recipes.recipe import Recipe

pytestmark = pytest.mark.usefixtures("one_thread")
STORY = jobs.TextSpec("inline", "The miller's daughter spun straw into gold by night. " * 60)
OTHER = jobs.TextSpec("inline", "A fox ran over nine hills, and far away was a king of ice. " * 60)
READ = Calibration(STORY, 2, 32)
PRUNED = Recipe(
    sparsity=0.4,
    criterion="wanda",
    calibration=READ,
    drop_heads=((1, 0), (1, 1)),
    neurons=NeuronShare(0.1),
)
GATE = "model.layers.1.mlp.gate_proj"
SMALL: dict[str, Any] = {"seq_len": 32, "windows": 2}
CASES: dict[str, jobs.Job] = {
    "LoadModel": jobs.LoadModel("tiny-llama"),
    "Evaluate": Evaluate("tiny-llama", PRUNED, OTHER, **SMALL),
    "MeasureCell": MeasureCell("tiny-llama", PRUNED, OTHER, **SMALL),
    "Budget": Budget("tiny-llama", (Recipe(sparsity=0.5),), "50%", OTHER, **SMALL),
    "Generate": Generate("tiny-llama", PRUNED, "Once", 4),
    "LayerTable": LayerTable("tiny-llama", PRUNED, scored=True),
    "Histograms": Histograms("tiny-llama", (GATE,), PRUNED),
    "ScoreHistogram": ScoreHistogram("tiny-llama", GATE, PRUNED),
    "MaskOverlap": MaskOverlap("tiny-llama", PRUNED, Recipe(sparsity=0.3)),
    "BlockDamage": BlockDamage("tiny-llama", PRUNED, OTHER, **SMALL),
    "HeadImportance": HeadImportance("tiny-llama", "ablation", OTHER, **SMALL),
    "BlockImportance": BlockImportance("tiny-llama", OTHER, **SMALL),
    "BlockAblation": BlockAblation("tiny-llama", OTHER, **SMALL),
    "GreedyBlocks": GreedyBlocks("tiny-llama", OTHER, **SMALL, steps=1),
    "LayerImportance": LayerImportance("tiny-llama", text=OTHER, **SMALL),
    "NeuronImportance": NeuronImportance("tiny-llama", text=OTHER, **SMALL),
    "NeuronProfile": NeuronProfile("tiny-llama", READ),
    "NeuronDetails": NeuronDetails("tiny-llama", 1, 7, READ, OTHER, **SMALL),
    "AttentionPattern": AttentionPattern("tiny-llama", "A fox ran."),
    "AttentionSteps": AttentionSteps("tiny-llama", "A fox ran.", token=3),
    "Export": Export("tiny-llama", PRUNED, "out", text=OTHER, **SMALL, repeats=1),
    "Cost": Cost("tiny-llama", PRUNED, repeats=1),
}


def classes_in(value: object) -> set[str]:
    """The classes and functions that whoever reads the pickled value must import."""
    found: set[str] = set()
    strings: list[str] = []
    for code, argument, _ in pickletools.genops(pickle.dumps(value, protocol=4)):
        if code.name == "STACK_GLOBAL":
            found.add(".".join(strings[-2:]))
        elif isinstance(argument, str):
            strings.append(argument)
    return found


def test_every_job_is_here() -> None:
    kinds = {name for name, kind in vars(jobs).items() if isinstance(kind, type)}
    kinds = {name for name in kinds if issubclass(getattr(jobs, name), jobs.Job)}
    assert set(CASES) == kinds - {"Job"}


def test_a_class_would_be_found() -> None:
    import torch

    assert classes_in({"torch": torch.__version__}) == {"torch.torch_version.TorchVersion"}
    assert classes_in({"plain": [1, 2.5, "x", None, True, (3,)]}) == set()


@pytest.mark.parametrize("name", sorted(CASES))
def test_events_and_results_are_plain(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    sent: list[object] = []
    result = Core().run(CASES[name], Progress(sent.append))
    assert result and classes_in(result) == set()
    assert classes_in(sent) == set()
