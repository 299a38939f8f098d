"""What the worker sends is plain values: the web process must load nothing to read it.

A ``torch.__version__`` among them once had every first number wait five seconds for torch.
"""

from __future__ import annotations

import inspect
import pickle
import pickletools
import pydoc
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
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
from prune_core.tasks.answers import all_answers

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


SENTENCES = {"prune_core.sentences.Sentence", "builtins.getattr"}
"""What may cross besides plain data: texts that know their template."""


def test_every_job_is_here() -> None:
    assert {type(job) for job in CASES.values()} == set(all_answers())


def test_a_class_would_be_found() -> None:
    import torch

    assert classes_in({"torch": torch.__version__}) == {"torch.torch_version.TorchVersion"}
    assert classes_in({"plain": [1, 2.5, "x", None, True, (3,)]}) == set()


def words_of(value: object) -> Iterator[str]:
    """Every key and every text of plain values, however deep."""
    if isinstance(value, dict):
        for key, part in value.items():
            yield str(key)
            yield from words_of(part)
    elif isinstance(value, list | tuple):
        for part in value:
            yield from words_of(part)
    elif isinstance(value, str):
        yield value


def marked(text: str) -> set[str]:
    """What stands between double backquotes."""
    return set(re.findall(r"``([^`]+)``", text))


def promised(kind: type[jobs.Job]) -> set[str]:
    """Fields that a job's docstring gives its events and result; remarks in brackets are left out.

    Values stand in brackets, or behind a field's colon as the stages do.
    """
    text, before = re.search(r"\b(Events|Result)\b.*", inspect.getdoc(kind) or "", re.DOTALL), ""
    assert text is not None, f"{kind.__name__} says nothing of its events and result"
    left = text[0]
    while left != before:
        before, left = left, re.sub(r"\([^()]*\)", "", left)
    return {word for word in marked(left) if word.isidentifier() and word != "None"}


def explained(kind: type[jobs.Job]) -> set[str]:
    """The same, brackets and all, with what the docstring refers to for more."""
    texts = [inspect.getdoc(kind) or ""]
    for name in re.findall(r":class:`(\w+)`", texts[0]):
        texts += [inspect.getdoc(other) or "" for other in all_answers() if other.__name__ == name]
    names = set().union(*map(marked, texts))
    for reference in [name for name in names if name.startswith("prune_core.")]:
        thing = pydoc.locate(reference)
        assert thing is not None, f"{kind.__name__} refers to {reference}, which is not there"
        if is_dataclass(thing):
            names |= {field.name for field in fields(thing)}
        names |= marked(inspect.getsource(thing))  # type: ignore[arg-type]
    return names


LONGER: dict[str, list[jobs.Job]] = {
    "Evaluate": [
        Evaluate("tiny-llama", Recipe(**chosen), OTHER, **SMALL)
        for chosen in (
            {"sparsity": 0.4, "allocation": "sensitivity", "calibration": READ},
            {"sparsity": 0.4, "reconstruction": "sparsegpt", "calibration": READ},
        )
    ],
    "BlockDamage": [BlockDamage("tiny-llama", PRUNED, OTHER, **SMALL, measure="loss")],
    "LayerImportance": [LayerImportance("tiny-llama", "ablation", text=OTHER, **SMALL)],
}
"""More of a kind, to see all that it can say."""

NOT_SEEN = {
    "LoadModel": {"stage", "done", "total", "unit"},  # a tiny model is made on the spot
    "MeasureCell": {"strip", "stage", "write", "measure", "done", "total"},  # cost: a minute
    "LayerTable": {"scored"},  # a field of the job, not of its result
    "NeuronDetails": {"text"},  # likewise
    "BlockDamage": {"output", "loss"},  # of the job: which fields there are
}
"""Words of docstrings that no run here can show, and why."""


@pytest.mark.parametrize("name", sorted(CASES))
def test_events_and_results_are_plain_and_as_documented(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    core, kind, seen = Core(), type(CASES[name]), set[str]()
    for job in (CASES[name], *LONGER.get(name, [])):
        sent: list[dict[str, Any]] = []
        result = core.run(job, Progress(sent.append))
        assert result and classes_in(result) <= SENTENCES
        assert classes_in(sent) <= SENTENCES
        keys = set(result) | {key for event in sent for key in event}
        assert keys <= explained(kind), f"not documented: {sorted(keys - explained(kind))}"
        seen |= {*words_of(result), *words_of(sent)}
    lacking = promised(kind) - seen - NOT_SEEN.get(name, set())
    assert not lacking, f"documented but never there: {sorted(lacking)}"
