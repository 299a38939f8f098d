"""Blocks removed one by one: costs against models from which the block is deleted by hand."""

from __future__ import annotations

import copy
import itertools
import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from prune_core.analysis.blocks.ablation import Ablator, block_costs, layer_costs, writer
from prune_core.analysis.blocks.greedy import Step, candidates, greedy_path
from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import Cancelled, PruneCoreError, RecipeError
from prune_core.jobs.base import TextSpec
from prune_core.jobs.blocks import BlockAblation, BlockImportance, GreedyBlocks
from prune_core.jobs.command_lines import command_line
from prune_core.models.handle import ModelHandle
from prune_core.models.layers import describe
from prune_core.models.tiny import TINY
from prune_core.progress import Progress

FAMILIES = sorted(TINY)
SMALL = TextSpec("inline", "Once upon a time a fisherman lived with his wife by the sea. " * 20)


def texts(count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(4)
    return [torch.randint(5, 200, (24,), generator=generator) for _ in range(count)]


def naive(model: Any, handle: ModelHandle, window: Tensor) -> Tensor:
    """Losses by plain transformers, or the sentence embedding of an encoder."""
    with torch.no_grad():
        if not handle.info.has_language_head:
            base = getattr(model, "base_model", model)
            return base(input_ids=window[None]).last_hidden_state[0].mean(0)
        if handle.structure.kind == "encoder-decoder":
            half = len(window) - len(window) // 2
            found = model(input_ids=window[None, :half], labels=window[None, half:])
            return F.cross_entropy(found.logits[0], window[half:], reduction="none")
        logits = model(input_ids=window[None]).logits[0, :-1]
        return F.cross_entropy(logits, window[1:], reduction="none")


def cost(model: Any, handle: ModelHandle, windows: list[Tensor]) -> float:
    """Mean loss minus the dense one, or 1 - cosine."""
    changes = []
    for window in windows:
        mine, dense = naive(model, handle, window), naive(handle.model, handle, window)
        if handle.info.has_language_head:
            changes += (mine - dense).double().tolist()
        else:
            changes.append(1 - float(torch.cosine_similarity(mine, dense, dim=0)))
    return sum(changes) / len(changes)


def without_blocks(handle: ModelHandle, blocks: tuple[int, ...]) -> nn.Module:
    """Blocks made to hand on what they are given, by a hook of the test's own."""
    model = copy.deepcopy(handle.model)
    for block in blocks:
        name = handle.structure.blocks[block].module

        def hand_on(_m: nn.Module, args: Any, kwargs: Any, output: Any) -> Any:
            given = args[0] if args else kwargs["hidden_states"]
            return given if isinstance(output, Tensor) else (given, *output[1:])

        model.get_submodule(name).register_forward_hook(hand_on, with_kwargs=True)
    return model


def silenced(handle: ModelHandle, name: str) -> nn.Module:
    model = copy.deepcopy(handle.model)
    module: Any = model.get_submodule(name)
    module.weight = nn.Parameter(torch.zeros_like(module.weight))
    if module.bias is not None:
        module.bias = nn.Parameter(torch.zeros_like(module.bias))
    return model


@pytest.mark.parametrize("name", FAMILIES)
def test_ablation_is_the_loss_without_the_block(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    events: list[dict[str, Any]] = []
    found = block_costs(handle, texts(), ("block", "attention", "mlp"), Progress(events.append))
    assert found["metric"] == ("loss" if handle.info.has_language_head else "distance")
    for block in handle.structure.blocks:
        expected = cost(without_blocks(handle, (block.index,)), handle, texts())
        assert found["block"]["mean"][block.index] == pytest.approx(expected, abs=2e-5)
        for part in ("attention", "mlp"):
            output = writer(handle.structure, block, part)
            assert output is not None
            expected = cost(silenced(handle, output), handle, texts())
            assert found[part]["mean"][block.index] == pytest.approx(expected, abs=2e-5)
    # the chart fills while it works, and its clock ends where it said
    assert events[0]["block"]["mean"][0] is not None and events[0]["block"]["mean"][1] is None
    assert found["done"] == pytest.approx(found["total"])
    assert [e["done"] for e in events] == sorted(e["done"] for e in events)
    assert events[0]["seconds_left"] > 0


def test_only_the_blocks_after_the_removed_one_run(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    count, ablator = len(handle.structure.blocks), Ablator(handle)
    window = texts()[0]
    dense = ablator.run(window)
    for block in range(count):
        start = ablator.runner.blocks_run
        ablator.run(window, [block], dense, block)
        assert ablator.runner.blocks_run - start == count - block - 1
    assert not any(m._forward_hooks for m in handle.model.modules())


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2", "tiny-t5", "tiny-bert"])
def test_each_layer_alone(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    found = layer_costs(handle, texts(2))
    for place, layer in enumerate(handle.structure.layers):
        if place % 3 == 0:
            expected = cost(silenced(handle, layer), handle, texts(2))
            assert found["mean"][place] == pytest.approx(expected, abs=2e-5)


@pytest.mark.parametrize("name", FAMILIES)
def test_greedy_takes_the_cheapest_at_every_step(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle, windows = handles[name], texts(2)
    stacks = {b.stack for b in handle.structure.blocks}
    steps = min(2, len(handle.structure.blocks) - len(stacks))
    found = greedy_path(handle, windows, steps, ends=True)
    assert len(found["path"]) == steps
    gone: tuple[int, ...] = ()
    for step in found["path"]:
        costs = {
            b.index: cost(without_blocks(handle, (*gone, b.index)), handle, windows)
            for b in handle.structure.blocks
            if step["costs"][b.index] is not None
        }
        best = min(costs, key=lambda b: costs[b])
        for block, expected in costs.items():
            assert step["costs"][block] == pytest.approx(expected, abs=2e-5)
        assert costs[step["block"]] == pytest.approx(costs[best], abs=2e-5)
        gone = (*gone, step["block"])
        assert step["blocks"] == sorted(gone)
        assert step["delta"] == pytest.approx(costs[step["block"]], abs=2e-5)
        assert step["low"] < step["value"] < step["high"]
    if handle.info.has_language_head:
        model = without_blocks(handle, gone)
        losses = torch.cat([naive(model, handle, w) for w in windows]).double()
        value = found["path"][-1]["value"]
        assert value == pytest.approx(math.exp(float(losses.mean())), rel=1e-4)


def test_greedy_goes_on_from_where_it_was_stopped(handles: Mapping[str, ModelHandle]) -> None:
    handle, windows = handles["tiny-llama"], texts(2)
    whole = greedy_path(handle, windows, 2, ends=True)
    path: list[Step] = []
    calls = itertools.count()
    with pytest.raises(Cancelled):
        greedy_path(
            handle,
            windows,
            2,
            Progress(
                lambda event: next(calls) if event["step"] == 1 else None,
                lambda: next(calls) > 10_000 or len(path) == 1,
            ),
            ends=True,
            path=path,
        )
    assert len(path) == 1
    events: list[dict[str, Any]] = []
    again = greedy_path(handle, windows, 2, Progress(events.append), ends=True, path=path)
    assert again["path"] == whole["path"]
    assert all(event["step"] >= 1 for event in events)
    # fewer steps than are known cost nothing and say no more than asked
    shorter = greedy_path(handle, windows, 1, ends=True, path=path)
    assert shorter["path"] == whole["path"][:1]


def test_dense_outputs_that_do_not_fit_are_computed_again(
    handles: Mapping[str, ModelHandle], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = greedy_path(handles["tiny-t5"], texts(2), 2, ends=True)
    monkeypatch.setattr("prune_core.analysis.blocks.greedy.KEPT_BYTES", 0)
    assert greedy_path(handles["tiny-t5"], texts(2), 2, ends=True)["path"] == kept["path"]


def with_blocks(handle: ModelHandle, count: int) -> ModelHandle:
    from dataclasses import replace

    structure = replace(handle.structure, blocks=handle.structure.blocks[:count])
    return replace(handle, structure=structure)


def test_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("The miller's daughter spun straw into gold by night. " * 40)
    words = ["importance", "tiny-llama", "--text", str(text), "--seq-len", "32", "--windows", "2"]

    def said(*more: str) -> dict[str, Any]:
        assert main([*words, *more, "--json"]) == 0
        found: dict[str, Any] = json.loads(capsys.readouterr().out)
        assert found["shape"] == [len(found["scores"])] and found["seconds"] > 0
        return found

    plain = said("--of", "blocks")
    assert plain["method"] == "block-influence" and plain["scores"] == plain["influence"]
    assert said("--of", "blocks", "--method", "influence")["method"] == "block-influence"
    count = plain["shape"][0]
    angular = said("--of", "blocks", "--method", "angular", "--run", "2")
    row = plain["angular"][0]["distance"][1]
    assert angular["scores"] == row
    least = row.index(min(x for x in row if x is not None))
    assert angular["suggested"] == [least, least + 1]
    ablation = said("--of", "blocks", "--method", "ablation", "--halves")
    assert ablation["scores"] == ablation["block"]["mean"] and ablation["tokens"] == 64
    assert len(ablation["mlp"]["mean"]) == len(ablation["attention"]["mean"]) == count
    greedy = said("--of", "blocks", "--method", "greedy", "--steps", "2", "--ends")
    assert greedy["suggested"] == greedy["path"][1]["blocks"] and len(greedy["suggested"]) == 2
    assert greedy["scores"] == pytest.approx(ablation["scores"], abs=1e-6)
    layers = said("--of", "layers")
    assert layers["method"] == "magnitude" and len(layers["layers"]) == layers["shape"][0]
    assert said("--of", "layers", "--method", "wanda")["scores"] != layers["scores"]
    zeroed = said("--of", "layers", "--method", "ablation")
    assert zeroed["layers"] == layers["layers"] and min(zeroed["stderr"]) >= 0
    for method, shown in (
        ("block-influence", "influence"),
        ("angular", "--drop-blocks"),
        ("ablation", "nats per token"),
        ("greedy", "--drop-blocks"),
    ):
        more = ["--steps", "1", "--ends"] if method == "greedy" else []
        assert main([*words, "--of", "blocks", "--method", method, *more]) == 0
        assert shown in capsys.readouterr().out
    assert main([*words, "--of", "layers"]) == 0
    assert "attn.q" in capsys.readouterr().out
    for more, sentence in (
        (["--of", "blocks", "--method", "gradient"], "unknown method"),
        (["--of", "blocks", "--method", "angular", "--run", "99"], "between 1 and"),
        (["--of", "blocks", "--method", "greedy", "--steps", "99"], "blocks can be removed"),
        (["--of", "layers", "--method", "loudness"], "loudness"),
    ):
        assert main([*words, *more]) == 1
        assert sentence in capsys.readouterr().err


def test_jobs_as_commands() -> None:
    spec = TextSpec("preset", "grimm")
    assert "--method block-influence" in command_line(BlockImportance("m", spec, 32, 2))
    ablation = command_line(BlockAblation("m", spec, 32, 2, ("block", "attention", "mlp")))
    assert "--of blocks --method ablation --halves" in ablation
    greedy = command_line(GreedyBlocks("m", spec, 32, 2, 3, ends=True))
    assert "--method greedy --steps 3 --ends" in greedy


def test_what_cannot_be_is_one_sentence(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    count = len(handle.structure.blocks)
    for blocks, ends, sentence in (
        (0, False, "no blocks"),
        (1, False, "one block only"),
        (1, True, "one block only"),
        (2, False, "first and the last stay"),
    ):
        with pytest.raises(RecipeError, match=sentence):
            candidates(with_blocks(handle, blocks).structure, ends=ends)
    for steps in (0, count, -1):
        with pytest.raises(RecipeError, match=f"between 1 and {count - 1} blocks"):
            greedy_path(handle, texts(1), steps, ends=True)
    with pytest.raises(RecipeError, match="removed by block, attention, mlp"):
        block_costs(handle, texts(1), ("head",))
    for stop_at in range(4):
        calls = itertools.count()
        with pytest.raises(Cancelled):
            block_costs(
                handle,
                texts(1),
                ("block", "mlp"),
                Progress(cancelled=lambda: next(calls) >= stop_at),  # noqa: B023
            )
    assert not any(m._forward_hooks for m in handle.model.modules())


@pytest.mark.parametrize("text", ["", "   ", "a"])
def test_a_text_that_is_too_short_is_said(text: str) -> None:
    core = Core()
    for job in (
        BlockAblation("tiny-llama", TextSpec("inline", text), 32, 1),
        GreedyBlocks("tiny-llama", TextSpec("inline", text), 32, 1, 1),
        BlockImportance("tiny-llama", TextSpec("inline", text), 32, 1),
    ):
        with pytest.raises(PruneCoreError, match=r"token|empty|text"):
            core.run(job)


def test_a_broken_model_is_named(handles: Mapping[str, ModelHandle]) -> None:
    from dataclasses import replace

    handle = handles["tiny-llama"]
    model = copy.deepcopy(handle.model)
    name = handle.structure.blocks[-1].layers[-1]
    weight: Any = model.get_parameter(f"{name}.weight")
    weight.data[0, 0] = float("nan")
    broken = replace(handle, model=model, structure=describe(model))
    with pytest.raises(PruneCoreError, match="not finite"):
        block_costs(broken, texts(1), ("block",))
