"""Every supported family: what is found in it, whose rows are whose, and what is refused."""

from __future__ import annotations

import dataclasses
import os
import pickle
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from prune_core.errors import UnknownArchitectureError
from prune_core.models.checks import check_config
from prune_core.models.clone import clone_shared
from prune_core.models.families import FAMILIES, REFUSED, SUPPORTED
from prune_core.models.layers import describe
from prune_core.models.structure import Attention, Projection, Structure
from prune_core.models.tiny import VOCABULARY, tiny_model

# variants that a family allows beside its plain form
VARIANTS: dict[str, tuple[str, dict[str, Any]]] = {
    **{name: (name, {}) for name in sorted(SUPPORTED)},
    "bert with head": ("bert", {"head": True}),
    "roberta with head": ("roberta", {"head": True}),
    "distilbert with head": ("distilbert", {"head": True}),
    "t5 gated": ("t5", {"feed_forward_proj": "gated-gelu"}),
    "t5 untied": ("t5", {"tie_word_embeddings": False}),
    "opt projected": ("opt", {"word_embed_proj_dim": 24}),
    "neox sequential": ("gpt_neox", {"use_parallel_residual": False}),
    "llama multi-query": ("llama", {"num_key_value_heads": 1}),
    "llama with biases": ("llama", {"attention_bias": True, "mlp_bias": True}),
    "phi normed": ("phi", {"qk_layernorm": True}),
    "gpt2 without head": ("gpt2", {"head": False}),
    "llama without head": ("llama", {"head": False}),
    "bart without head": ("bart", {"head": False}),
    "t5 without head": ("t5", {"head": False}),
    "eager gpt_neox": ("gpt_neox", {"attn_implementation": "eager"}),
    "falcon grouped": ("falcon", {"new_decoder_architecture": True, "num_kv_heads": 2}),
    "falcon multi-head": ("falcon", {"multi_query": False, "alibi": True}),
    "falcon in sequence": ("falcon", {"parallel_attn": False, "bias": True}),
    "gpt_bigcode multi-head": ("gpt_bigcode", {"multi_query": False}),
    "modernbert with head": ("modernbert", {"head": True}),
    "electra with head": ("electra", {"head": True}),
}


@cache
def model_of(variant: str) -> Any:
    model_type, options = VARIANTS[variant]
    return tiny_model(model_type, **options)


@cache
def structure_of(variant: str) -> Structure:
    return describe(model_of(variant))


def run(model: Any) -> Any:
    """One forward pass of two sequences, with other tokens for a decoder with an encoder."""
    generator = torch.Generator().manual_seed(1)
    ids = torch.randint(4, VOCABULARY, (2, 12), generator=generator)
    extra = {}
    if model.config.is_encoder_decoder:
        extra["decoder_input_ids"] = torch.randint(4, VOCABULARY, (2, 9), generator=generator)
    with torch.no_grad():
        return model(input_ids=ids, **extra)


def seen_by(model: Any, name: str) -> tuple[Any, Any]:
    """What goes into a module and what comes out of it, before others change it in place."""
    seen: list[Any] = []

    def look(module: nn.Module, args: tuple[Any, ...], output: Any) -> None:
        seen.append(
            (args[0] if args else None, output.clone() if isinstance(output, Tensor) else output)
        )

    handle = model.get_submodule(name).register_forward_hook(look)
    try:
        run(model)
    finally:
        handle.remove()
    # DeBERTa's queries and keys read the positions as well, after the tokens
    assert len(seen) == 1 or model.config.model_type == "deberta-v2"
    return seen[0]


def attentions(structure: Structure) -> list[Attention]:
    return [a for b in structure.blocks for a in (b.attention, b.cross_attention) if a]


# --- what is found --------------------------------------------------------------------------------

ATTENTION = ("attn.q", "attn.k", "attn.v", "attn.o")
CROSS = ("cross.q", "cross.k", "cross.v", "cross.o")
FUSED = ("attn.qkv", "attn.o")
GATED = ("mlp.gate", "mlp.up", "mlp.down")
PLAIN = ("mlp.up", "mlp.down")
LLAMA = [(*ATTENTION, *GATED)] * 2
GATED_UP = ("mlp.gate_up", "mlp.down")
SIMPLE = [(*ATTENTION, *PLAIN)] * 2
FUSED_SIMPLE = [(*FUSED, *PLAIN)] * 2
BOTH = [(*ATTENTION, *PLAIN)] * 2 + [(*ATTENTION, *CROSS, *PLAIN)] * 3
ROLES = {
    "bart": BOTH,
    "bert": SIMPLE,
    "bert with head": SIMPLE,
    "blenderbot": BOTH,
    "bloom": FUSED_SIMPLE,
    "camembert": SIMPLE,
    "codegen": FUSED_SIMPLE,
    "cohere": LLAMA,
    "deberta-v2": SIMPLE,
    "distilbert": SIMPLE,
    "electra": SIMPLE,
    "falcon": FUSED_SIMPLE,
    "falcon grouped": FUSED_SIMPLE,
    "gemma": LLAMA,
    "gemma2": LLAMA,
    "gemma3_text": LLAMA,
    "glm4": [(*ATTENTION, *GATED_UP)] * 2,
    "gpt2": FUSED_SIMPLE,
    "gpt_bigcode": FUSED_SIMPLE,
    "gpt_neo": SIMPLE,
    "gpt_neox": FUSED_SIMPLE,
    "gptj": SIMPLE,
    "granite": LLAMA,
    "led": BOTH,
    "llama": LLAMA,
    "longformer": SIMPLE,
    "m2m_100": BOTH,
    "marian": BOTH,
    "mbart": BOTH,
    "mistral": LLAMA,
    "modernbert": [(*FUSED, *GATED_UP)] * 2,
    "mpnet": SIMPLE,
    "mpt": FUSED_SIMPLE,
    "mt5": [(*ATTENTION, *GATED)] * 2 + [(*ATTENTION, *CROSS, *GATED)] * 3,
    "olmo": LLAMA,
    "olmo2": LLAMA,
    "opt": SIMPLE,
    "opt projected": SIMPLE,
    "pegasus": BOTH,
    "phi": SIMPLE,
    "phi3": [(*FUSED, *GATED_UP)] * 2,
    "qwen2": LLAMA,
    "qwen3": LLAMA,
    "roberta": SIMPLE,
    "smollm3": LLAMA,
    "stablelm": LLAMA,
    "starcoder2": SIMPLE,
    "t5": BOTH,
    "t5 gated": [(*ATTENTION, *GATED)] * 2 + [(*ATTENTION, *CROSS, *GATED)] * 3,
    "umt5": [(*ATTENTION, *GATED)] * 2 + [(*ATTENTION, *CROSS, *GATED)] * 3,
    "xlm-roberta": SIMPLE,
}


def test_every_family_has_an_expectation() -> None:
    assert set(ROLES) >= SUPPORTED


@pytest.mark.parametrize("variant", ROLES)
def test_roles_block_by_block(variant: str) -> None:
    structure = structure_of(variant)
    assert [
        tuple(structure.layers[name].role for name in block.layers) for block in structure.blocks
    ] == ROLES[variant]
    assert [b.index for b in structure.blocks] == list(range(len(structure.blocks)))
    assert all(structure.layers[n].block == b.index for b in structure.blocks for n in b.layers)
    assert list(structure.layers) == [n for b in structure.blocks for n in b.layers]


@pytest.mark.parametrize("variant", ["bart", "marian", "t5"])
def test_encoder_blocks_come_first(variant: str) -> None:
    blocks = structure_of(variant).blocks
    assert [b.stack for b in blocks] == ["encoder"] * 2 + ["decoder"] * 3
    assert [b.number for b in blocks] == [0, 1, 0, 1, 2]
    assert [b.cross_attention is not None for b in blocks] == [False] * 2 + [True] * 3


@pytest.mark.parametrize("variant", VARIANTS)
def test_layers_are_all_linear_maps_inside_blocks_and_no_others(variant: str) -> None:
    """Oracle: a list of the linear modules by the paths of the lists that hold the blocks."""
    model, structure = model_of(variant), structure_of(variant)
    places = (".layers.", ".layer.", ".h.", ".block.", ".blocks.")
    inside = {
        name
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear | Conv1D) and any(p in f".{name}" for p in places)
        if not name.endswith("_global")  # Longformer's, for tokens that no window here has
    }
    assert set(structure.layers) == inside
    table = model.get_input_embeddings().weight
    assert not [n for n, x in structure.layers.items() if x.weight(model) is table]


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_layer_maps_its_input_by_out_times_in(variant: str) -> None:
    """Oracle: what really flows in and out of the module."""
    model = model_of(variant)
    for layer in structure_of(variant).layers.values():
        entering, leaving = seen_by(model, layer.name)
        weight = layer.weight(model)
        assert weight.shape == (layer.out_features, layer.in_features)
        bias = model.get_submodule(layer.name).bias
        expected = entering @ weight.T + (0 if bias is None else bias)
        torch.testing.assert_close(leaving, expected)
        assert layer.numel == weight.numel()
        stored = layer.stored_weight(model)
        assert torch.equal(layer.to_stored(weight), stored) and stored.shape == (
            layer.to_stored(weight).shape
        )
        assert torch.equal(layer.from_stored(stored), weight)


@pytest.mark.parametrize("variant", VARIANTS)
def test_head_is_found_and_plain_only_if_it_is(variant: str) -> None:
    """Oracle: the logits, against the head applied to the last hidden state."""
    model, structure = model_of(variant), structure_of(variant)
    head = model.get_output_embeddings()
    if head is None:
        assert structure.head_module is None and not structure.plain_head
        return
    assert model.get_submodule(structure.head_module) is head
    assert structure.head_module not in structure.layers
    logits = run(model).logits
    if model.base_model is model:  # T5 keeps its stacks beside the head
        states = seen_by(model, "decoder")[1].last_hidden_state
    else:
        states = run(model.base_model).last_hidden_state
    with torch.no_grad():
        same = head.in_features == states.shape[-1]  # not so in ELECTRA: its embedding is narrower
        same = same and torch.allclose(head(states), logits, atol=1e-5)
    if variant == "t5 untied":  # never called plain; T5 decides by a configuration flag
        assert same and not structure.plain_head
    else:
        assert structure.plain_head == same


@pytest.mark.parametrize("variant", [name for name in ROLES if "mlp.gate" in ROLES[name][0]])
def test_gate_passes_through_the_activation_and_up_does_not(variant: str) -> None:
    """Oracle: the input of the down projection is linear in up and not in gate."""
    model, structure = model_of(variant), structure_of(variant)
    for block in structure.blocks:
        by_role = {structure.layers[name].role: name for name in block.layers}
        before, _ = seen_by(model, by_role["mlp.down"])
        for role, linear in (("mlp.up", True), ("mlp.gate", False)):
            clone = clone_shared(model)
            module = clone.get_submodule(by_role[role])
            module.weight = nn.Parameter(2 * module.weight)
            after, _ = seen_by(clone, by_role["mlp.down"])
            assert torch.equal(after, 2 * before) == linear


def test_both_kinds_of_head_occur() -> None:
    plain = Counter(structure_of(name).plain_head for name in SUPPORTED)
    assert plain[True] >= 10 and plain[False] >= 7


@pytest.mark.parametrize("variant", VARIANTS)
def test_structure_is_pure_data(variant: str) -> None:
    structure = structure_of(variant)

    def leaves(value: Any) -> Any:
        if isinstance(value, dict):
            for key, child in value.items():
                yield from (key, *leaves(child))
        elif isinstance(value, list | tuple):
            for child in value:
                yield from leaves(child)
        else:
            yield value

    assert all(
        x is None or type(x) in (str, int, bool) for x in leaves(dataclasses.asdict(structure))
    )
    assert pickle.loads(pickle.dumps(structure)) == structure
    assert structure.kind == FAMILIES[structure.family].kind


@pytest.mark.parametrize("model_type", ["gpt2", "llama", "bert"])
def test_no_blocks(model_type: str) -> None:
    key = "n_layer" if model_type == "gpt2" else "num_hidden_layers"
    structure = describe(tiny_model(model_type, **{key: 0}))
    assert structure.blocks == () and structure.layers == {}


# --- heads ----------------------------------------------------------------------------------------


def zero_rows(model: Any, structure: Structure, rows: Projection, head: int) -> Any:
    """A clone in which one head's rows of a projection are 0."""
    clone, layer = clone_shared(model), structure.layers[rows.layer]
    weight = layer.weight(model).clone()
    weight[slice(*rows.rows[head])] = 0
    clone.get_submodule(layer.name).weight = nn.Parameter(layer.to_stored(weight))
    return clone


def changed_columns(before: Tensor, after: Tensor) -> set[int]:
    # Longformer's heads share sums of chunks: what another head gives changes in the last digits
    changed = ((before - after).abs() > 1e-5).flatten(0, 1).any(0)
    return set(changed.nonzero().flatten().tolist())


def columns_of(attention: Attention, heads: Any) -> set[int]:
    return {c for h in heads for c in range(*attention.columns(h).indices(10**6))}


@pytest.mark.parametrize("part", ["q", "k", "v"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_of_a_head_reach_its_columns_of_o_and_no_others(variant: str, part: str) -> None:
    """Oracle: the input of the output projection when the rows of one head are zeroed."""
    model, structure = model_of(variant), structure_of(variant)
    checked = 0
    for attention in attentions(structure):
        assert structure.layers[attention.o].in_features == (
            attention.num_heads * attention.head_dim
        )
        before, _ = seen_by(model, attention.o)
        rows: Projection = getattr(attention, part)
        assert len(rows.rows) == (attention.num_heads if part == "q" else attention.num_kv_heads)
        if attention.joint_norm and part in "qk":
            continue  # they reach every head: test_a_joint_norm_reaches_every_head
        for head in range(len(rows.rows)):
            after, _ = seen_by(zero_rows(model, structure, rows, head), attention.o)
            size = 1 if part == "q" else attention.group_size
            users = range(head * size, (head + 1) * size)
            assert changed_columns(before, after) == columns_of(attention, users)
            checked += 1
    assert checked or model_of(variant).config.model_type == "olmo2"


@pytest.mark.parametrize("part", ["q", "k"])
def test_a_joint_norm_reaches_every_head(part: str) -> None:
    """Oracle: with the rows of one head zeroed all others answer otherwise in OLMo 2."""
    model, structure = model_of("olmo2"), structure_of("olmo2")
    for attention in attentions(structure):
        before, _ = seen_by(model, attention.o)
        rows: Projection = getattr(attention, part)
        after, _ = seen_by(zero_rows(model, structure, rows, 0), attention.o)
        assert changed_columns(before, after) == columns_of(attention, range(attention.num_heads))


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_head_without_values_writes_nothing(variant: str) -> None:
    """Tells values from keys and queries: only without values (and their bias) is the output 0."""
    model, structure = model_of(variant), structure_of(variant)
    for attention in attentions(structure):
        for part in ("q", "k", "v"):
            rows: Projection = getattr(attention, part)
            clone = zero_rows(model, structure, rows, len(rows.rows) - 1)
            module = clone.get_submodule(rows.layer)
            if module.bias is not None:
                bias = module.bias.clone()
                bias[slice(*rows.rows[-1])] = 0
                module.bias = nn.Parameter(bias)
            entering, _ = seen_by(clone, attention.o)
            written = entering[..., attention.columns(attention.num_heads - 1)]
            assert bool((written == 0).all()) == (part == "v")


@pytest.mark.parametrize(
    "variant", ["bart", "bert", "distilbert", "gpt2", "gpt_neox", "marian", "opt", "phi", "roberta"]
)
def test_keys_are_told_from_queries_by_their_bias(variant: str) -> None:
    """A constant added to every key moves all scores of a query alike, which softmax ignores.

    The last feature of a head is not rotated in GPT-NeoX and Phi, and nothing is in the others.
    """
    model, structure = model_of(variant), structure_of(variant)
    for attention in attentions(structure):
        before, _ = seen_by(model, attention.o)
        for part in ("q", "k"):
            rows: Projection = getattr(attention, part)
            for _, stop in rows.rows:
                clone = clone_shared(model)
                module = clone.get_submodule(rows.layer)
                bias = module.bias.clone()
                bias[stop - 1] += 3
                module.bias = nn.Parameter(bias)
                after, _ = seen_by(clone, attention.o)
                assert torch.allclose(after, before, atol=1e-4) == (part == "k")


@pytest.mark.parametrize("variant", sorted(SUPPORTED))
def test_head_counts_are_those_of_the_configuration(variant: str) -> None:
    grouped = {name for name, f in FAMILIES.items() if f.stacks[0].kv_heads}
    bart_like = {"bart", "blenderbot", "led", "m2m_100", "marian", "mbart", "pegasus"}
    for block in structure_of(variant).blocks:
        assert block.attention is not None
        half = block.stack == "decoder" and variant in bart_like
        many = 8 if variant == "codegen" else 4
        assert block.attention.num_heads == (2 if half else many)
        shared = 4 if variant in ("falcon", "gpt_bigcode") else 2 if variant in grouped else 1
        assert block.attention.group_size == shared
        wide = 4 * 32 if variant in ("bloom", "mpt") else 80
        assert block.intermediate_size == (48 if half else wide)


@pytest.mark.parametrize("variant", VARIANTS)
def test_rows_tile_the_projections(variant: str) -> None:
    structure = structure_of(variant)
    for attention in attentions(structure):
        used: dict[str, list[int]] = {}
        for projection in (attention.q, attention.k, attention.v):
            for rows in projection.rows:
                used.setdefault(projection.layer, []).extend(range(*rows))
        for name, rows in used.items():
            assert sorted(rows) == list(range(structure.layers[name].out_features))


# --- what is refused ------------------------------------------------------------------------------


def refused(model: nn.Module) -> str:
    with pytest.raises(UnknownArchitectureError) as caught:
        describe(model)
    text = str(caught.value)
    assert text.endswith(".") and "\n" not in text
    return text


@pytest.mark.parametrize(
    "extra",
    [
        lambda: nn.Linear(4, 5),
        lambda: Conv1D(5, 4),
        lambda: nn.ParameterList([nn.Parameter(torch.ones(2, 3, 4))]),
        lambda: nn.Embedding(3, 4),
    ],
    ids=["Linear", "Conv1D", "experts", "Embedding"],
)
@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_anything_extra_in_the_last_block_is_named(
    model_type: str, extra: Callable[[], nn.Module]
) -> None:
    model = clone_shared(model_of(model_type))
    last = describe(model).blocks[-1].module
    model.get_submodule(last).add_module("adapter", extra())
    assert f"{last}.adapter" in refused(model)


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_every_missing_or_renamed_layer_is_named(model_type: str) -> None:
    for name in structure_of(model_type).layers:
        model = clone_shared(model_of(model_type))
        parent, _, child = name.rpartition(".")
        owner = model.get_submodule(parent)
        owner.add_module("renamed", owner._modules.pop(child))
        assert f"{name} is missing" in refused(model)


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_wrong_shapes_and_kinds_are_named(model_type: str) -> None:
    for name, layer in structure_of(model_type).layers.items():
        for wrong in (
            nn.Linear(layer.in_features + 1, layer.out_features),
            nn.Linear(layer.in_features, layer.out_features + 1),
            nn.Bilinear(layer.in_features, layer.in_features, layer.out_features),
            nn.Sequential(nn.Linear(layer.in_features, layer.out_features)),
        ):
            model = clone_shared(model_of(model_type))
            model.set_submodule(name, wrong)
            # of two layers that disagree on the number of neurons, either may be named
            assert name.rpartition(".mlp.")[0] in refused(model)
            if "mlp" not in layer.role:
                assert f"{name} " in refused(model)


@pytest.mark.parametrize("model_type", sorted(SUPPORTED))
def test_heads_that_do_not_fit_the_weights_are_refused(model_type: str) -> None:
    for stack in FAMILIES[model_type].stacks:
        for factor in (0.5, 2):
            model = clone_shared(model_of(model_type))
            heads = getattr(model.config, stack.heads)
            setattr(model.config, stack.heads, int(heads * factor))
            refused(model)


def test_what_cannot_be_pruned_is_refused_with_the_reason() -> None:
    """Oracle: transformers knows every one of them by that name, and the table has none."""
    assert set(transformers.CONFIG_MAPPING) >= set(REFUSED)
    assert not SUPPORTED & set(REFUSED)
    for model_type, reason in REFUSED.items():
        with pytest.raises(UnknownArchitectureError) as caught:
            check_config({"model_type": model_type})
        assert model_type in str(caught.value) and reason in str(caught.value)
    assert "state spaces" in str(REFUSED["mamba"]) and "linear" in str(REFUSED["qwen3_5"])


def test_another_model_type_is_refused_by_name() -> None:
    model = clone_shared(model_of("llama"))
    model.config.model_type = "blip"
    text = refused(model)
    assert "Architecture blip" in text and "gpt_neox" in text
    assert "Architecture none" in refused(nn.Linear(2, 2))
    model.config.model_type = "gpt2"
    assert "h is missing" in refused(model)


def test_layers_that_share_a_weight_are_refused() -> None:
    model = clone_shared(model_of("llama"))
    first, second = (model.model.layers[i].mlp.up_proj for i in (0, 1))
    second.weight = first.weight
    assert "model.layers.1.mlp.up_proj.weight" in refused(model)


def test_other_arrangements_of_known_families_are_refused() -> None:
    def made(model_class: Any, like: str, **changes: Any) -> Any:
        config = clone_shared(model_of(like)).config
        for key, value in changes.items():
            setattr(config, key, value)
        return model_class(config)

    assert "decoder.block is missing" in refused(made(transformers.T5EncoderModel, "t5"))
    assert "encoder.layers is missing" in refused(made(transformers.BartForCausalLM, "bart"))
    assert "crossattention" in refused(
        made(transformers.GPT2LMHeadModel, "gpt2", add_cross_attention=True)
    )
    assert "is_decoder" in refused(made(transformers.BertLMHeadModel, "bert", is_decoder=True))


def test_packed_weights_are_refused() -> None:
    model = clone_shared(model_of("llama"))
    module = model.model.layers[1].mlp.up_proj
    module.weight = nn.Parameter(module.weight.to(torch.int8), requires_grad=False)
    assert "model.layers.1.mlp.up_proj" in refused(model)


# --- the table itself -----------------------------------------------------------------------------


def test_the_table_needs_no_torch() -> None:
    program = (
        "import sys; from prune_core.models.families import FAMILIES, SUPPORTED; "
        "assert SUPPORTED == set(FAMILIES); "
        "assert not {'torch', 'transformers', 'numpy'} & set(sys.modules)"
    )
    project = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-c", program], check=True, cwd=project, env=dict(os.environ))


def test_every_supported_type_is_known_to_transformers() -> None:
    assert set(transformers.CONFIG_MAPPING) >= SUPPORTED
