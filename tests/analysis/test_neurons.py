"""Neurons: statistics against formulas on full activations, shares, compensation, one neuron."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from prune_core.analysis.neurons.details import strongest
from prune_core.analysis.neurons.profile import neuron_profile
from prune_core.analysis.neurons.statistics import (
    RARE,
    NeuronStatistics,
    competing,
    gather_neurons,
    mlp_layers,
    neuron_statistics,
)
from prune_core.analysis.selection import lowest
from prune_core.cli.main import main
from prune_core.engine.core import Core
from prune_core.errors import Cancelled, ModelFileError, PruneCoreError, RecipeError, TextError
from prune_core.exporting.bias import allow_biases, fill_biases
from prune_core.exporting.shrink import shrink
from prune_core.jobs.base import TextSpec
from prune_core.jobs.command_lines import command_line, recipe_options
from prune_core.jobs.evaluate import Evaluate
from prune_core.jobs.neurons import NeuronDetails, NeuronImportance, NeuronProfile
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle, build_handle
from prune_core.models.layers import describe
from prune_core.models.structure import Structure
from prune_core.models.tiny import TINY, tiny_model, tiny_tokenizer
from prune_core.progress import Progress
from prune_core.recipes.calibration import Calibration
from prune_core.recipes.parts import NEURON_METHODS, NeuronShare
from prune_core.recipes.recipe import Recipe
from prune_core.tasks.loaded import LoadedModel
from prune_core.tasks.planning import named_neurons, work_out

pytestmark = pytest.mark.usefixtures("own_cache")
FAMILIES = sorted(TINY)
SOME = ("llama", "gpt2", "opt", "gpt_neox", "bert", "t5", "phi3", "bart", "gemma2", "t5-gated")
STORY = TextSpec("inline", "The miller's daughter spun straw into gold by night. " * 60)
OTHER = TextSpec("inline", "A fox ran over nine hills, and far away was a king of ice. " * 60)
READ = Calibration(STORY, 3, 32)


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


def windows() -> Tensor:
    return torch.randint(5, 200, (3, 20), generator=torch.Generator().manual_seed(4))


def model_of(family: str) -> tuple[Any, Structure]:
    name, _, gated = family.partition("-")
    extra = {"feed_forward_proj": "gated-gelu"} if gated else {}
    model = tiny_model(name, **extra)
    return model, describe(model)


def made(family: str, **extra: Any) -> ModelHandle:
    model = tiny_model(family, **extra)
    return build_handle(
        model, tiny_tokenizer(), source=family, title=family, fingerprint=f"{family}{extra}"
    )


def forward(model: Any, structure: Structure, tokens: Tensor) -> Tensor:
    """Logits, or the last hidden state of an encoder without a head; plain transformers."""
    with torch.no_grad():
        if structure.kind == "encoder-decoder":
            half = tokens.shape[1] - tokens.shape[1] // 2
            found = model(input_ids=tokens[:, :half], labels=tokens[:, half:])
        else:
            found = model(input_ids=tokens)
    return found.logits if hasattr(found, "logits") else found.last_hidden_state


def activations(model: Any, structure: Structure, text: Tensor) -> dict[int, tuple[Tensor, Tensor]]:
    """By block: every activation, and what opens or shuts its neuron; (tokens, neurons)."""
    work = clone_shared(model)
    seen: dict[int, list[Tensor]] = {}
    opened: dict[int, list[Tensor]] = {}
    for index, name in mlp_layers(structure, "mlp.down").items():

        def keep(module: Any, args: Any, index: int = index) -> None:
            seen.setdefault(index, []).append(args[0].reshape(-1, args[0].shape[-1]).double())

        work.get_submodule(name).register_forward_pre_hook(keep)
    for index, name in mlp_layers(structure, "mlp.gate", "mlp.gate_up").items():

        def gate(module: Any, args: Any, output: Tensor, index: int = index) -> None:
            size = structure.blocks[index].intermediate_size
            flat = output.reshape(-1, output.shape[-1]).double()
            opened.setdefault(index, []).append(flat[:, :size])

        work.get_submodule(name).register_forward_hook(gate)
    for window in text:
        forward(work, structure, window[None])
    return {i: (torch.cat(seen[i]), torch.cat(opened.get(i, seen[i]))) for i in seen}


@pytest.mark.parametrize("family", SOME)
def test_statistics_are_the_formulas(family: str) -> None:
    model, structure = model_of(family)
    found = neuron_statistics(model, structure, family, windows())
    exact = activations(model, structure, windows())
    assert list(found.blocks) == sorted(exact) and found.tokens == 60
    for index, (a, gate) in exact.items():
        name = mlp_layers(structure, "mlp.down")[index]
        norm = structure.layers[name].weight(model).double().norm(dim=0)
        for method, expected in {
            "mean-activation": a.abs().mean(0),
            "activation": a.abs().mean(0),
            "firing": (a > 0).double().mean(0),
            "weighted": a.abs().mean(0) * norm,
            "fluctuation": a.var(0, correction=0) * norm**2,
        }.items():
            torch.testing.assert_close(found.scores(method)[index], expected, rtol=2e-5, atol=1e-10)
        torch.testing.assert_close(found.row("mean")[index], a.mean(0), rtol=1e-4, atol=1e-6)
        share = (gate > 0).double().mean(0)
        dead = (share == 0) | (a == 0).all(0)
        assert torch.equal(found.dead[index], dead)
        assert torch.equal(found.rare[index], ~dead & (share < RARE))


def test_dead_and_rare_neurons_are_counted() -> None:
    handle = made("gpt2", activation_function="relu", n_layer=1)
    up = mlp_layers(handle.structure, "mlp.up")[0]
    bias = handle.model.get_submodule(up).bias
    bias[:3] = -1e6  # never above 0, and 0 after ReLU
    text = torch.randint(5, 200, (30, 20), generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        reach: list[Tensor] = []
        hook = handle.model.get_submodule(up).register_forward_hook(
            lambda *a: reach.append(a[2][0, :, 5])
        )
        for window in text:
            handle.model(input_ids=window[None])
        hook.remove()
        bias[5] -= torch.cat(reach).sort().values[-4]  # it fires on 3 of 600 tokens
    found = neuron_statistics(handle.model, handle.structure, "x", text)
    assert found.dead[0].nonzero().flatten().tolist()[:3] == [0, 1, 2]
    assert bool(found.rare[0][5]) and not bool(found.dead[0][5])
    assert float(found.row("open")[0][5]) == pytest.approx(3 / 600)


def test_variance_survives_a_large_mean() -> None:
    handle = made("gpt2", n_layer=1)
    handle.model.get_submodule(mlp_layers(handle.structure, "mlp.up")[0]).bias[:] += 1000.0
    text = torch.randint(5, 200, (90, 32), generator=torch.Generator().manual_seed(4))
    found = gather_neurons(clone_shared(handle.model), handle.structure, text)[0]
    exact = activations(handle.model, handle.structure, text)[0][0]
    torch.testing.assert_close(found[2], exact.var(0, correction=0), rtol=1e-3, atol=1e-6)


def test_statistics_are_kept_on_disk_and_a_damaged_file_is_made_again(tmp_path: Path) -> None:
    model, structure = model_of("llama")
    first = neuron_statistics(model, structure, "m", windows(), folder=tmp_path)
    (path,) = tmp_path.glob("*.cache")

    def never() -> bool:
        raise AssertionError("the text was read again")

    again = neuron_statistics(
        model, structure, "m", windows(), folder=tmp_path, progress=Progress(cancelled=never)
    )
    for block in first.blocks:
        assert torch.equal(first.values[block], again.values[block])
    path.write_bytes(path.read_bytes()[:200])
    mended = neuron_statistics(model, structure, "m", windows(), folder=tmp_path)
    assert torch.equal(first.values[0], mended.values[0])
    assert len(list(tmp_path.iterdir())) == 1
    other = neuron_statistics(model, structure, "m2", windows(), folder=tmp_path)
    assert other.fingerprint != first.fingerprint


def test_values_that_are_not_finite_are_named_by_block() -> None:
    model, structure = model_of("llama")
    work = clone_shared(model)
    name = mlp_layers(structure, "mlp.up")[1]
    weight = structure.layers[name].weight(model).clone()
    weight[0, 0] = float("nan")
    work.get_submodule(name).weight = nn.Parameter(weight, requires_grad=False)
    with pytest.raises(ModelFileError, match="block 1"):
        gather_neurons(work, structure, windows())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in work.modules())


def test_cancel_leaves_no_hook_and_no_file(tmp_path: Path) -> None:
    model, structure = model_of("llama")
    work = clone_shared(model)
    with pytest.raises(Cancelled):
        gather_neurons(work, structure, windows(), progress=Progress(cancelled=lambda: True))
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in work.modules())
    with pytest.raises(Cancelled):
        neuron_statistics(
            model,
            structure,
            "m",
            windows(),
            folder=tmp_path,
            progress=Progress(cancelled=lambda: True),
        )
    assert not list(tmp_path.iterdir())


# ---- a share in the recipe -------------------------------------------------------------------


def naive_share(handle: ModelHandle, share: NeuronShare) -> set[tuple[int, int]]:
    loaded = LoadedModel(handle)
    exact = activations(handle.model, handle.structure, loaded.calibration(READ))
    scores: dict[tuple[int, int], float] = {}
    for index, (a, _) in exact.items():
        norm = handle.structure.layers[mlp_layers(handle.structure, "mlp.down")[index]]
        row = a.abs().mean(0) * norm.weight(handle.model).double().norm(dim=0)
        if share.scope == "global":
            row = (row - row.mean()) / row.var(correction=0).sqrt()
        scores |= {(index, k): float(value) for k, value in enumerate(row)}
    if share.scope == "global":
        ordered = sorted(scores, key=lambda pair: (scores[pair], pair))
        return set(ordered[: round(share.fraction * len(ordered))])
    found: set[tuple[int, int]] = set()
    for index in exact:
        mine = sorted((p for p in scores if p[0] == index), key=lambda p: (scores[p], p))
        found |= set(mine[: round(share.fraction * len(mine))])
    return found


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("scope", ["block", "global"])
def test_a_share_is_what_sorting_gives(
    name: str, scope: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle, share = handles[name], NeuronShare(0.3, "weighted", scope)
    recipe = Recipe(neurons=share, calibration=READ)
    resolved = named_neurons(LoadedModel(handle), recipe)
    assert resolved.neurons is None and set(resolved.drop_neurons) == naive_share(handle, share)
    more = replace(recipe, drop_neurons=((1, 0), (1, 1)))
    both = named_neurons(LoadedModel(handle), more)
    assert set(both.drop_neurons) == naive_share(handle, share) | {(1, 0), (1, 1)}


def test_blocks_compete_whatever_the_size_of_their_activations() -> None:
    row = torch.rand(50, dtype=torch.float64)
    scores = {0: row, 1: 300 * row + 7, 2: torch.full((50,), 0.1, dtype=torch.float64)}
    found = competing("weighted", scores)
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=1e-9)
    assert found[0].mean().abs() < 1e-9 and found[0].std(correction=0) == pytest.approx(1)
    assert found[2].tolist() == [0.0] * 50, "equal ones are all average"
    assert competing("firing", scores) == scores, "a share of the tokens is comparable as it is"


@pytest.mark.parametrize("method", NEURON_METHODS)
@pytest.mark.parametrize("scope", ["block", "global"])
def test_the_command_names_the_neurons_that_a_recipe_drops(
    scope: str, method: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    text = tmp_path / "story.txt"
    text.write_text(STORY.value)
    size = ("--text", str(text), "--seq-len", "32", "--windows", "3")
    asked = ("--of", "neurons", "--method", method, "--lowest", "0.3", "--scope", scope)
    assert main(["importance", "tiny-llama", *size, *asked, "--json"]) == 0
    named = json.loads(capsys.readouterr().out)["drop_neurons"]
    loaded = Core().loaded("tiny-llama")
    share = Recipe(neurons=NeuronShare(0.3, method, scope), calibration=READ)
    assert [tuple(pair) for pair in named] == list(named_neurons(loaded, share).drop_neurons)


@pytest.mark.parametrize("name", FAMILIES)
def test_masking_a_share_equals_cutting_it_out(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    loaded = LoadedModel(handle)
    for method in NEURON_METHODS:
        recipe = Recipe(neurons=NeuronShare(0.25, method), calibration=READ)
        loaded.copy.apply(work_out(loaded, recipe))
        small = shrink(loaded.copy.model, handle.structure, named_neurons(loaded, recipe))
        ours = forward(loaded.copy.model, handle.structure, windows()[:1])
        theirs = forward(small, handle.structure, windows()[:1])
        assert float((ours - theirs).abs().max()) < 1e-4
        dense = sum(p.numel() for p in handle.model.parameters())
        assert sum(p.numel() for p in small.parameters()) < dense
        assert not torch.allclose(ours, forward(handle.model, handle.structure, windows()[:1]))


def test_all_neurons_may_be_masked_but_not_cut_out(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    loaded = LoadedModel(handle)
    everything = Recipe(neurons=NeuronShare(1.0), calibration=READ)
    plan = work_out(loaded, everything)
    applied = loaded.copy.apply(plan)
    assert bool(forward(loaded.copy.model, handle.structure, windows()[:1]).isfinite().all())
    mlp = sum(x.numel for x in handle.structure.layers.values() if x.role.startswith("mlp."))
    assert sum(applied.removed.values()) == mlp
    with pytest.raises(RecipeError, match=r"no neuron would be left.*masked"):
        shrink(loaded.copy.model, handle.structure, named_neurons(loaded, everything))
    job = Evaluate("tiny-llama", everything, OTHER, 32, 2)
    result = Core().run(job)
    assert result["emptied"] == {"heads": [], "neurons": [0, 1, 2, 3]}
    assert math.isfinite(result["perplexity"]) and result["perplexity"] > 1
    one = tuple((2, k) for k in range(handle.structure.blocks[2].intermediate_size))
    result = Core().run(replace(job, recipe=Recipe(drop_neurons=one)))
    assert result["emptied"]["neurons"] == [2]


def test_a_share_combines_with_weights_and_counts_once(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-gpt2"]
    loaded = LoadedModel(handle)
    recipe = Recipe(sparsity=0.4, neurons=NeuronShare(0.5, "firing"), calibration=READ)
    applied = loaded.copy.apply(work_out(loaded, recipe))
    for name, layer in handle.structure.layers.items():
        zeros = int((layer.weight(loaded.copy.model) == 0).sum())
        assert applied.removed[name] == zeros
    alone = replace(recipe, sparsity=0.0)
    applied = loaded.copy.apply(work_out(loaded, alone))
    for name, layer in handle.structure.layers.items():
        assert applied.removed[name] == int((layer.weight(loaded.copy.model) == 0).sum())
        half = layer.numel // 2 if layer.role.startswith("mlp.") else 0
        assert applied.removed[name] == half


def test_recipes_carry_a_share_compactly() -> None:
    recipe = Recipe(neurons=NeuronShare(0.3, "fluctuation", "global"), compensate=True)
    assert Recipe.from_json(recipe.to_json()) == recipe
    assert recipe.to_dict()["neurons"] == {
        "fraction": 0.3,
        "method": "fluctuation",
        "scope": "global",
    }
    assert not recipe.is_dense and recipe.removes_structure and recipe.reads_neurons
    # what removes nothing leaves no trace: fingerprints stay what they were
    assert Recipe(neurons=NeuronShare(0.0), compensate=True) == Recipe()
    assert "neurons" not in Recipe().to_dict() and "compensate" not in Recipe().to_dict()
    options = recipe_options(replace(recipe, drop_neurons=((0, 3),)))
    assert options[options.index("--drop-neurons") + 1] == "0.3,0:3"
    at = options.index("--neuron-method")
    assert options[at:] == [
        *("--neuron-method", "fluctuation", "--neuron-scope", "global"),
        *("--compensate", "--calibration", "andersen"),
    ]


@pytest.mark.parametrize("bad", [1.1, -0.1, float("nan"), float("inf"), True, "0.3", None])
def test_a_fraction_lies_between_0_and_1(bad: Any) -> None:
    with pytest.raises(RecipeError, match=r"fraction of neurons must .* (between|from) 0"):
        NeuronShare(bad)


@pytest.mark.parametrize(
    "given",
    [
        {"neurons": {"fraction": 0.1, "method": "loudness"}},
        {"neurons": {"fraction": 0.1, "scope": "layer"}},
        {"neurons": {"share": 0.1}},
        {"neurons": 0.3},
        {"compensate": 1},
    ],
)
def test_a_damaged_share_is_one_sentence(given: dict[str, Any]) -> None:
    with pytest.raises(RecipeError) as caught:
        Recipe.from_dict({"schema": 1, **given})
    assert "\n" not in str(caught.value)


# ---- compensation ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-llama"])
def test_compensation_is_the_formula(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    before = {key: value.clone() for key, value in handle.model.state_dict().items()}
    loaded = LoadedModel(handle)
    recipe = Recipe(neurons=NeuronShare(0.4, "weighted"), compensate=True, calibration=READ)
    loaded.copy.apply(work_out(loaded, recipe))
    exact = activations(handle.model, handle.structure, loaded.calibration(recipe.calibration))
    naive = copy.deepcopy(handle.model)
    for index, down in mlp_layers(handle.structure, "mlp.down").items():
        gone = [k for block, k in named_neurons(loaded, recipe).drop_neurons if block == index]
        mean = exact[index][0].mean(0)

        def replaced(
            module: Any, args: Any, gone: list[int] = gone, mean: Tensor = mean
        ) -> tuple[Tensor]:
            values = args[0].clone()
            values[..., gone] = mean[gone].float()  # always what it gave on average
            return (values,)

        naive.get_submodule(down).register_forward_pre_hook(replaced)
    ours = forward(loaded.copy.model, handle.structure, windows()[:1])
    theirs = forward(naive, handle.structure, windows()[:1])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    plain = replace(recipe, compensate=False)
    loaded.copy.apply(work_out(loaded, plain))
    assert (
        float((forward(loaded.copy.model, handle.structure, windows()[:1]) - ours).abs().max())
        > 1e-3
    )
    loaded.copy.apply(work_out(loaded, Recipe()))
    dense = forward(handle.model, handle.structure, windows()[:1])
    assert torch.equal(forward(loaded.copy.model, handle.structure, windows()[:1]), dense)
    # the dense model's tensors were never written, and it has no tensor more
    assert handle.model.state_dict().keys() == before.keys()
    for key, value in handle.model.state_dict().items():
        assert torch.equal(value, before[key])


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-opt", "tiny-neox", "tiny-bert", "tiny-llama"])
def test_compensation_goes_into_files(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    loaded = LoadedModel(handle)
    recipe = Recipe(neurons=NeuronShare(0.25), compensate=True, calibration=READ)
    loaded.copy.apply(work_out(loaded, recipe))
    ours = forward(loaded.copy.model, handle.structure, windows()[:1])
    small = shrink(loaded.copy.model, handle.structure, named_neurons(loaded, recipe))
    theirs = forward(small, handle.structure, windows()[:1])
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)
    source: Any = handle.model
    config, state = copy.deepcopy(source.config), dict(loaded.copy.model.state_dict())
    allow_biases(config, state)
    masked = type(source)(config).eval()
    fill_biases(masked, state)
    masked.load_state_dict(state, strict=True)
    masked.tie_weights()
    torch.testing.assert_close(forward(masked, handle.structure, windows()[:1]), ours)
    assert bool(getattr(config, "mlp_bias", False)) == (name == "tiny-llama")


def test_a_block_that_lost_its_mlp_gets_no_bias(handles: Mapping[str, ModelHandle]) -> None:
    loaded = LoadedModel(handles["tiny-gpt2"])
    recipe = Recipe(neurons=NeuronShare(0.5), drop_mlp=(0,), compensate=True, calibration=READ)
    plan = work_out(loaded, recipe)
    assert list(plan.biases) == list(mlp_layers(loaded.handle.structure, "mlp.down").values())[1:]


@pytest.mark.parametrize("family", ["t5", "qwen2", "mistral", "gemma", "phi3"])
def test_a_model_without_a_place_for_a_bias_says_so(family: str) -> None:
    loaded = LoadedModel(made(family))
    recipe = Recipe(drop_neurons=((0, 0),), compensate=True, calibration=READ)
    with pytest.raises(RecipeError, match=f"{family} model has no bias in its MLPs"):
        work_out(loaded, recipe)
    work_out(loaded, replace(recipe, compensate=False))


# ---- one neuron, and all at a glance ---------------------------------------------------------


@pytest.mark.parametrize("name", FAMILIES)
def test_what_a_neuron_writes_and_where_it_fires(
    name: str, handles: Mapping[str, ModelHandle]
) -> None:
    handle = handles[name]
    structure, model = handle.structure, handle.model
    block, k = len(structure.blocks) - 1, 7
    job = NeuronDetails(name, block, k, READ, OTHER, 32, 3)
    found = Core().run(job)
    exact = activations(model, structure, LoadedModel(handle).calibration(READ))
    row = exact[block][0].abs().mean(0)
    assert found["scores"]["mean-activation"] == pytest.approx(float(row[k]), rel=1e-5)
    assert found["places"]["mean-activation"] == int((row < row[k]).sum())
    text = torch.stack(LoadedModel(handle).windows(OTHER, 32, 3))
    a = activations(model, structure, text)[block][0][:, k]
    best = found["passages"][0]
    assert abs(best["activation"]) == pytest.approx(float(a.abs().max()), rel=1e-5)
    assert best["activations"][best["at"]] == best["activation"]
    width = len(a) // 3
    flat = best["window"] * width + best["position"]
    assert float(a[flat]) == pytest.approx(best["activation"], rel=1e-5)
    if structure.kind == "decoder":
        token = int(text[best["window"], best["position"]])
        assert best["tokens"][best["at"]] == handle.tokenizer.decode([token])
    strengths = [abs(p["activation"]) for p in found["passages"]]
    assert strengths == sorted(strengths, reverse=True)
    if name == "tiny-bert":
        assert found["reason"] == "no-head" and not found["raised"]
        return
    # plain transformers: a little more of the neuron's column in the last hidden state
    down = mlp_layers(structure, "mlp.down")[block]
    column = structure.layers[down].weight(model)[:, k]
    head = model.get_submodule(structure.head_module or "")
    norm = {
        "tiny-gpt2": "transformer.ln_f", "tiny-llama": "model.norm",
        "tiny-opt": "model.decoder.final_layer_norm", "tiny-neox": "gpt_neox.final_layer_norm",
        "tiny-t5": "decoder.final_layer_norm",
    }[name]  # fmt: skip
    module = model.get_submodule(norm)
    if isinstance(module, nn.LayerNorm):
        column = column - column.mean()
    change = head.weight @ (column * module.weight)
    assert found["raised"][0][1] == pytest.approx(float(change.max()), rel=1e-4)
    assert found["lowered"][0][1] == pytest.approx(float(change.min()), rel=1e-4)
    best_token = handle.tokenizer.decode([int(change.argmax())])
    assert found["raised"][0][0] == best_token


def test_an_encoder_of_two_stacks_writes_no_tokens(handles: Mapping[str, ModelHandle]) -> None:
    job = NeuronDetails("tiny-t5", 0, 3, READ, OTHER, 32, 2)
    found = Core().run(job)
    assert found["reason"] == "encoder" and found["raised"] == [] and found["passages"]


def test_passages_keep_apart() -> None:
    values = torch.zeros(2, 50)
    values[0, 10], values[0, 12], values[0, 40], values[1, 11] = 5.0, -4.0, -3.0, 2.0
    assert strongest(values, 6, 16) == [(0, 10), (0, 40), (1, 11)]
    assert strongest(values, 2, 1) == [(0, 10), (0, 12)]


def test_a_profile_agrees_with_the_scores() -> None:
    handle = made("llama", num_hidden_layers=3)
    found = neuron_statistics(handle.model, handle.structure, "x", windows())
    profile = neuron_profile(found, 10)
    assert profile["blocks"] == [0, 1, 2] and profile["sizes"] == [80, 80, 80]
    for method in NEURON_METHODS:
        shown = profile["methods"][method]
        for place, block in enumerate(found.blocks):
            row = found.scores(method)[block].numpy()
            ordered = np.sort(row)
            assert (
                shown["scores"][place] == ordered[[4, 12, 20, 28, 36, 44, 52, 60, 68, 76]].tolist()
            )
            assert [row[n] for n in shown["neurons"][place]] == shown["scores"][place]
            assert row[shown["least"][place][0]] == row.min()
            assert row[shown["most"][place][0]] == row.max()
        for percent in (0, 1, 37, 99, 100):
            rows = [r.numpy() for r in found.compared(method, "global").values()]
            gone = lowest(found.blocks, rows, percent / 100, "global")
            assert shown["gone"][percent] == [sum(b == i for b, _ in gone) for i in range(3)]
    for bins in (1, 257):
        with pytest.raises(RecipeError, match="bins"):
            neuron_profile(found, bins)
    with pytest.raises(Cancelled):
        neuron_profile(found, 10, Progress(cancelled=lambda: True))
    small = NeuronProfile("tiny-llama", READ)
    result = Core().run(small)
    assert result["gated"] and result["bias"] and len(json.dumps(result)) < 300_000


# ---- the command line ------------------------------------------------------------------------


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    for name, spec in (("text.txt", OTHER), ("calibration.txt", STORY)):
        (tmp_path / name).write_text(spec.value)
    return [
        *("tiny-llama", "--text", str(tmp_path / "text.txt"), "--seq-len", "32"),
        *("--windows", "2"),
    ]


@pytest.mark.parametrize("method", NEURON_METHODS)
def test_importance(method: str, words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["importance", *words, "--of", "neurons", "--method", method, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["method"] == method and found["shape"] == [4, 80]
    assert [len(row) for row in found["scores"]] == [80] * 4
    assert len(found["dead"]) == len(found["rare"]) == 4 and found["seconds"] >= 0
    assert main(["importance", *words, "--of", "neurons", "--method", method]) == 0
    assert f"neurons by {method}" in capsys.readouterr().out


def test_one_neuron(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["importance", *words, "--of", "neurons", "--neuron", "1:7"]) == 0
    said = capsys.readouterr().out
    assert "neuron 7 of block 1" in said and "raised" in said and "[[" in said
    assert main(["importance", *words, "--of", "neurons", "--neuron", "1:7", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["passages"]
    for given in ("7", "1:800", "9:0", "a:b"):
        assert main(["importance", *words, "--of", "neurons", "--neuron", given]) == 1
        assert capsys.readouterr().err.count("\n") == 1


def test_evaluate_drops_a_share(
    words: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    read = ["--calibration", str(tmp_path / "calibration.txt")]
    read += ["--calibration-windows", "3", "--calibration-seq-len", "32"]
    given = ["evaluate", *words, *read, "--drop-neurons", "0.25", "--neuron-method", "weighted"]
    assert main([*given, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    share = {"fraction": 0.25, "method": "weighted", "scope": "block"}
    assert found["recipe"]["neurons"] == share and found["emptied"]["neurons"] == []
    assert {n for n, count in found["removed"].items() if count} == {
        name for name in found["removed"] if ".mlp." in name
    }
    assert main([*given, "--compensate", "--json"]) == 0
    again = json.loads(capsys.readouterr().out)
    assert again["nll"] != found["nll"] and again["sparsity"] == found["sparsity"]
    # the printed command line gives the recipe back
    recipe = Recipe.from_dict(again["recipe"])
    assert "--drop-neurons 0.25 --neuron-method weighted" in command_line(Evaluate("m", recipe))
    assert main(["evaluate", *words, *read, "--drop-neurons", "1"]) == 0
    said = capsys.readouterr()
    assert "no neurons left in block 0, 1, 2, 3" in said.err and "perplexity" in said.out


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (["--drop-neurons", "1.5"], "a share from 0 to 1"),
        (["--drop-neurons=-0.1"], "a share from 0 to 1"),
        (["--drop-neurons", "nan"], "a share from 0 to 1"),
        (["--drop-neurons", "many"], "a share from 0 to 1"),
        (["--drop-neurons", "0:x"], "a share from 0 to 1"),
        (["--drop-neurons", "0.1,0.2"], "one share"),
        (["--drop-neurons", "0.1", "--neuron-method", "loudness"], "--neuron-method takes mean"),
        (["--drop-neurons", "0.1", "--neuron-scope", "layer"], "--neuron-scope takes block,"),
        (["--drop-neurons", "0:99999"], "made for another one"),
        (["--drop-neurons", "0.1", "--calibration", "/nowhere/text.txt"], "text.txt"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    given: list[str], sentence: str, words: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["evaluate", *words, *given]) == 1
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1 and "Traceback" not in said


def test_texts_that_teach_nothing(handles: Mapping[str, ModelHandle]) -> None:
    core = Core()

    def run(job: Any) -> dict[str, Any]:
        return core.run(job)

    share = NeuronShare(0.1)
    for text in (TextSpec("inline", ""), TextSpec("inline", "   "), TextSpec("inline", "a")):
        read = Calibration(text, 2, 16)
        for job in (
            Evaluate("tiny-llama", Recipe(neurons=share, calibration=read), OTHER, 32, 2),
            NeuronImportance("tiny-llama", "firing", text, 16, 2),
            NeuronProfile("tiny-llama", read),
            NeuronDetails("tiny-llama", 0, 0, read, OTHER, 32, 2),
        ):
            with pytest.raises(TextError) as caught:
                run(job)
            assert "\n" not in str(caught.value)
    # a text must not be calibrated on and judged by
    shared = Recipe(neurons=share, calibration=Calibration(OTHER, 2, 32))
    with pytest.raises(TextError, match="calibration text too"):
        run(Evaluate("tiny-llama", shared, OTHER, 32, 2))
    with pytest.raises(PruneCoreError, match="unknown method"):
        run(NeuronImportance("tiny-llama", "loudness", OTHER, 32, 2))


def test_a_model_without_mlp_has_no_neurons(handles: Mapping[str, ModelHandle]) -> None:
    handle = handles["tiny-llama"]
    bare = replace(
        handle.structure,
        blocks=tuple(
            replace(
                b,
                layers=tuple(n for n in b.layers if ".mlp." not in n),
                intermediate_size=0,
            )
            for b in handle.structure.blocks
        ),
        layers={n: x for n, x in handle.structure.layers.items() if ".mlp." not in n},
    )
    with pytest.raises(RecipeError, match="has no MLP"):
        gather_neurons(clone_shared(handle.model), bare, windows())
    loaded = LoadedModel(replace(handle, structure=bare))
    with pytest.raises(RecipeError, match="has no MLP"):
        work_out(loaded, Recipe(neurons=NeuronShare(0.1), calibration=READ))
    with pytest.raises(RecipeError, match="made for another one"):
        work_out(loaded, Recipe(drop_neurons=((0, 0),)))


def test_statistics_know_their_methods() -> None:
    empty = NeuronStatistics("x", 0, (), {}, {})
    assert empty.scores("activation") == {}
    with pytest.raises(RecipeError, match="unknown method"):
        empty.scores("loudness")
