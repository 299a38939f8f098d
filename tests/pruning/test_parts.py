"""Blocks and neurons: scores against the formulas written out naively on full activations."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from prune_core.analysis.blocks.influence import block_influence
from prune_core.analysis.selection import lowest, lowest_heads
from prune_core.cli.main import main
from prune_core.errors import Cancelled, ModelFileError, RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.blocks import BlockImportance
from prune_core.jobs.command_lines import command_line
from prune_core.jobs.neurons import NeuronImportance
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.models.tiny import TINY
from prune_core.progress import Progress

FAMILIES = sorted(TINY)


def texts() -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(5, 200, (20,), generator=generator) for _ in range(3)]


def forward(model: Any, handle: ModelHandle, window: Tensor) -> None:
    with torch.no_grad():
        if handle.structure.kind == "encoder-decoder":
            half = len(window) - len(window) // 2
            model(input_ids=window[None, :half], labels=window[None, half:])
        else:
            model(input_ids=window[None])


@pytest.mark.parametrize("name", FAMILIES)
def test_block_influence(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    found = block_influence(clone_shared(handle.model), handle.structure, texts())
    seen: dict[int, list[tuple[Tensor, Tensor]]] = {}
    model = clone_shared(handle.model)
    for block in handle.structure.blocks:

        def keep(
            module: Any, args: Any, kwargs: Any, output: Any, index: int = block.index
        ) -> None:
            before = args[0] if args else kwargs["hidden_states"]
            after = output if isinstance(output, Tensor) else output[0]
            seen.setdefault(index, []).append((before[0].double(), after[0].double()))

        model.get_submodule(block.module).register_forward_hook(keep, with_kwargs=True)
    for window in texts():
        forward(model, handle, window)
    for index, pairs in seen.items():
        before, after = (torch.cat([pair[k] for pair in pairs]) for k in (0, 1))
        cosine = (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
        assert found["influence"][index] == pytest.approx(1 - float(cosine.mean()), abs=1e-9)
    for stack in found["angular"]:
        first = stack["blocks"][0]
        angles = []
        for (before, _), (_, after) in zip(seen[first], seen[first + 1], strict=True):
            x, y = before[-1], after[-1]
            angles.append(math.acos(float(x @ y / x.norm() / y.norm())) / math.pi)
        assert stack["distance"][1][0] == pytest.approx(sum(angles) / len(angles), abs=1e-9)
        assert stack["distance"][1][len(stack["blocks"]) - 1] is None


def test_lowest_heads_by_hand() -> None:
    own = {"kind": "self", "blocks": [0, 2], "scores": [[0.4, 0.1], [0.3, 0.9]]}
    cross = {"kind": "cross", "blocks": [2], "scores": [[0.8, 0.2]]}
    assert lowest_heads([own], "gradient", 0.5) == {"drop_heads": ((0, 1), (2, 0))}
    assert lowest_heads([own, cross], "gradient", 0.5) == {
        "drop_heads": ((0, 1), (2, 0)),
        "drop_cross_heads": ((2, 1),),
    }
    # all compete, but none loses its last head
    assert lowest_heads([own, cross], "gradient", 0.34, "global") == {
        "drop_heads": ((0, 1),),
        "drop_cross_heads": ((2, 1),),
    }
    # who looks everywhere alike goes first
    assert lowest_heads([own], "entropy", 0.5) == {"drop_heads": ((0, 0), (2, 1))}


def test_lowest_by_hand() -> None:
    blocks, scores = [2, 5], [[0.3, 0.1, 0.2, 0.1], [0.05, 0.9, 0.8, 0.7]]
    assert lowest(blocks, scores, 0.5) == ((2, 1), (2, 3), (5, 0), (5, 3))
    assert lowest(blocks, scores, 0.5, "global") == ((2, 1), (2, 2), (2, 3), (5, 0))
    # a block keeps its best part, unless all go
    assert lowest(blocks, scores, 0.9, "global") == ((2, 1), (2, 2), (2, 3), (5, 0), (5, 2), (5, 3))
    assert len(lowest(blocks, scores, 1.0, "global")) == 8
    assert lowest(blocks, scores, 0.0) == ()
    for fraction, scope in ((1.1, "block"), (-0.1, "block"), (0.5, "layer")):
        with pytest.raises(RecipeError, match=r"between 0 and 1|unknown scope"):
            lowest(blocks, scores, fraction, scope)


def test_what_cannot_be_is_one_sentence(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    with pytest.raises(Cancelled):
        block_influence(
            clone_shared(handle.model),
            handle.structure,
            texts(),
            progress=Progress(cancelled=lambda: True),
        )
    model = clone_shared(handle.model)
    name = handle.structure.blocks[0].layers[0]
    weight = handle.structure.layers[name].weight(handle.model).clone()
    weight[0, 0] = float("nan")
    model.get_submodule(name).weight = torch.nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ModelFileError, match="Block 0"):
        block_influence(model, handle.structure, texts())


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The miller's daughter spun straw into gold by night. " * 40)
    words = ["importance", "tiny-llama", "--text", str(text), "--seq-len", "32", "--windows", "2"]
    assert main([*words, "--of", "blocks", "--json"]) == 0
    blocks = json.loads(capsys.readouterr().out)
    assert len(blocks["influence"]) >= 2 and blocks["tokens"] == 64
    assert main([*words, "--of", "neurons", "--lowest", "0.1", "--json"]) == 0
    neurons = json.loads(capsys.readouterr().out)
    size = len(neurons["scores"][0])
    assert len(neurons["drop_neurons"]) == len(neurons["scores"]) * round(0.1 * size)
    assert main([*words, "--of", "neurons", "--lowest", "0.1"]) == 0
    assert "--drop-neurons 0:" in capsys.readouterr().out
    assert main([*words, "--of", "blocks", "--method", "gradient"]) == 1
    assert "unknown method" in capsys.readouterr().err
    spec = TextSpec("file", str(text))
    said = command_line(NeuronImportance("tiny-llama", "weighted", spec, 32, 2))
    assert "--of neurons --method weighted" in said
    assert "--of blocks" in command_line(BlockImportance("tiny-llama", spec, 32, 2))
