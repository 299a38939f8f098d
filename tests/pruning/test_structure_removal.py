"""Heads, neurons, blocks and halves of blocks removed live: against models edited another way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from prune_core.cli.main import main
from prune_core.errors import RecipeError
from prune_core.evaluation.generation import Sampling, next_tokens
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import recipe_options
from prune_core.jobs.evaluate import Evaluate
from prune_core.models.handle import ModelHandle
from prune_core.models.tiny import TINY
from prune_core.pruning.plan import count_removed, layer_mask
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.evaluate import measure
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import work_out

pytestmark = pytest.mark.usefixtures("own_cache")
FAMILIES = sorted(TINY)


@pytest.fixture
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path))


def ids(length: int = 24) -> Tensor:
    return torch.randint(5, 200, (1, length), generator=torch.Generator().manual_seed(1))


def answer(model: Any, handle: ModelHandle) -> Tensor:
    """Logits, or the last hidden state of an encoder without a head."""
    with torch.no_grad():
        if handle.structure.kind == "encoder-decoder":
            tokens = ids()
            found = model(input_ids=tokens[:, :12], decoder_input_ids=tokens[:, 12:])
        else:
            found = model(input_ids=ids())
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def pruned(handle: ModelHandle, recipe: Recipe) -> LoadedModel:
    loaded = LoadedModel(handle)
    loaded.copy.apply(work_out(loaded, recipe))
    return loaded


def silence(model: nn.Module, name: str) -> None:
    """The module's output is zero, bias and all."""
    model.get_submodule(name).register_forward_hook(lambda *a: torch.zeros_like(a[2]))


def output_layer(handle: ModelHandle, block: int, role: str) -> str:
    layers = handle.structure.layers
    return next(n for n in handle.structure.blocks[block].layers if layers[n].role == role)


@pytest.mark.parametrize("name", FAMILIES)
def test_a_dropped_block_is_one_that_was_never_there(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    last = len(handle.structure.blocks) - 1
    loaded = pruned(handle, Recipe(drop_blocks=(last,)))
    naive = copy.deepcopy(handle.model)
    container, _, index = handle.structure.blocks[last].module.rpartition(".")
    del naive.get_submodule(container)[int(index)]
    torch.testing.assert_close(
        answer(loaded.copy.model, handle), answer(naive, handle), atol=1e-5, rtol=1e-5
    )
    dense = answer(handle.model, handle)
    assert not torch.allclose(answer(naive, handle), dense, atol=1e-4)
    loaded.copy.apply(work_out(loaded, Recipe()))
    assert torch.equal(answer(loaded.copy.model, handle), dense)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize(
    ("field", "role"), [("drop_attention", "attn.o"), ("drop_mlp", "mlp.down")]
)
def test_half_a_block(name: str, field: str, role: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    parts: dict[str, Any] = {field: (1,)}
    loaded = pruned(handle, Recipe(**parts))
    naive = copy.deepcopy(handle.model)
    silence(naive, output_layer(handle, 1, role))
    torch.testing.assert_close(
        answer(loaded.copy.model, handle), answer(naive, handle), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", FAMILIES)
def test_neurons_and_heads(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    recipe = Recipe(drop_neurons=((0, 3), (1, 0), (1, 7)), drop_heads=((1, 1),))
    loaded = pruned(handle, recipe)
    naive = copy.deepcopy(handle.model)

    def without(columns: list[int]) -> Callable[..., Any]:
        def hook(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            kept = arguments[0].clone()
            kept[..., columns] = 0
            return (kept, *arguments[1:])

        return hook

    attention = handle.structure.blocks[1].attention
    assert attention is not None
    width = attention.head_dim
    for layer, columns in (
        (output_layer(handle, 0, "mlp.down"), [3]),
        (output_layer(handle, 1, "mlp.down"), [0, 7]),
        (attention.o, list(range(width, 2 * width))),
    ):
        naive.get_submodule(layer).register_forward_pre_hook(without(columns))
    torch.testing.assert_close(
        answer(loaded.copy.model, handle), answer(naive, handle), atol=1e-5, rtol=1e-5
    )


@pytest.mark.parametrize("name", ["tiny-llama", "tiny-gpt2", "tiny-t5", "tiny-bert"])
def test_every_removed_weight_counts_once(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    recipe = Recipe(
        sparsity=0.3, drop_neurons=((0, 3), (0, 5)), drop_heads=((0, 1),), drop_attention=(1,)
    )
    loaded = LoadedModel(handle)
    plan = work_out(loaded, recipe)
    applied = loaded.copy.apply(plan)
    for layer_name, layer in handle.structure.layers.items():
        mask = layer_mask(plan, handle.structure, layer_name)
        weight = layer.weight(loaded.copy.model)
        assert count_removed(plan, handle.structure)[layer_name] == int((~mask).sum())
        assert torch.equal(weight != 0, mask & (layer.weight(handle.model) != 0))
    total = sum(layer.numel for layer in handle.structure.layers.values())
    assert applied.sparsity == pytest.approx(sum(applied.removed.values()) / total)


@pytest.mark.parametrize("dropped", [(0,), (1,)])
def test_writing_without_a_block(dropped: tuple[int], handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    loaded = pruned(handle, Recipe(drop_blocks=dropped))
    ours = list(
        next_tokens(
            loaded.copy.model,
            handle.structure,
            ids(12),
            Sampling(),
            ends=frozenset(),
            max_new_tokens=8,
        )
    )
    naive: Any = copy.deepcopy(handle.model)
    del naive.model.layers[dropped[0]]
    tokens = ids(12)
    with torch.no_grad():
        for _ in range(8):
            following = naive(input_ids=tokens, use_cache=False).logits[0, -1].argmax()
            tokens = torch.cat([tokens, following.reshape(1, 1)], dim=1)
    assert ours == tokens[0, 12:].tolist()


def test_the_prefix_cache_sees_a_dropped_block(handles: Mapping[str, ModelHandle]) -> None:
    text = TextSpec("inline", "The fox ran over the hill and far away from here. " * 30)
    together, results = LoadedModel(handles["tiny-llama"]), []
    recipes = [Recipe(), Recipe(drop_blocks=(1,)), Recipe(drop_attention=(1,), drop_mlp=(1,))]
    for recipe in recipes:
        job = Evaluate("tiny-llama", recipe, text, 32, 3)
        once = measure(together, job)
        alone = measure(LoadedModel(handles["tiny-llama"]), job)
        assert once["nll"] == pytest.approx(alone["nll"], rel=1e-6)
        results.append(once["nll"])
    assert results[0] != results[1]
    # in a pre-norm family a block without both halves passes on what it is given
    assert results[1] == pytest.approx(results[2], rel=1e-6)


@pytest.mark.parametrize(
    ("recipe", "sentence"),
    [
        (Recipe(drop_blocks=(0, 1, 2, 3)), "every block"),
        (Recipe(drop_blocks=(99,)), "no block 99"),
        (Recipe(drop_attention=(99,)), "no attention in block 99"),
        (Recipe(drop_mlp=(99,)), "no MLP in block 99"),
        (Recipe(drop_neurons=((0, 99_999),)), "no neuron 99999 in block 0"),
        (Recipe(drop_neurons=((99, 0),)), "no neuron 0 in block 99"),
    ],
)
def test_what_cannot_go_is_one_sentence(
    recipe: Recipe, sentence: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles["tiny-llama"]
    blocks = len(handle.structure.blocks)
    if "every block" in sentence:
        recipe = Recipe(drop_blocks=tuple(range(blocks)))
    with pytest.raises(RecipeError, match=sentence):
        work_out(LoadedModel(handle), recipe)


@pytest.mark.parametrize(
    "given",
    [
        {"drop_blocks": (-1,)},
        {"drop_blocks": (True,)},
        {"drop_mlp": ("1",)},
        {"drop_neurons": ((0,),)},
        {"drop_neurons": 3},
    ],
)
def test_parts_are_named_by_whole_numbers(given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError, match="whole number"):
        Recipe(**given)


def test_a_recipe_with_structure_comes_back_from_its_file_and_from_options() -> None:
    recipe = Recipe(
        sparsity=0.2,
        drop_heads=((2, 1),),
        drop_neurons=((1, 5), (0, 7), (1, 5)),
        drop_blocks=(3, 1, 3),
        drop_attention=(0,),
        drop_mlp=(2,),
    )
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.drop_blocks == (1, 3) and recipe.drop_neurons == ((0, 7), (1, 5))
    assert not recipe.is_dense and not Recipe(drop_mlp=(0,)).is_dense
    options = recipe_options(recipe)
    for flag, text in (
        ("--drop-blocks", "1,3"),
        ("--drop-attention", "0"),
        ("--drop-mlp", "2"),
        ("--drop-neurons", "0:7,1:5"),
    ):
        assert options[options.index(flag) + 1] == text
    # recipes without structure keep the fingerprint that they had
    assert "drop_blocks" not in Recipe(sparsity=0.5).to_json()


def test_the_command_line_drops_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "text.txt"
    text.write_text("A king had a daughter who was fair beyond all measure. " * 30)
    words = ["evaluate", "tiny-llama", "--text", str(text), "--seq-len", "32", "--windows", "2"]
    assert main([*words, "--drop-blocks", "1", "--drop-mlp", "0", "--drop-neurons", "0:1"]) == 0
    assert "of the prunable weights = " in capsys.readouterr().out
    assert main([*words, "--drop-blocks", "one"]) == 1
    assert "indices of blocks" in capsys.readouterr().err
