"""Weights that lie as small numbers beside scales: multiplied out or refused, never read raw."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

from prune_core.errors import ModelFileError
from prune_core.models.load import load_model
from prune_core.models.tiny import tiny_tokenizer
from prune_core.texts.windows import token_windows

State = dict[str, Tensor]
LAYERS = (".q_proj.", ".k_proj.", ".v_proj.", ".o_proj.", ".gate_proj.", ".up_proj.", ".down_proj.")
FLOAT8 = torch.float8_e4m3fn


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PRUNE_CACHE_DIR", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    torch.manual_seed(5)
    tokenizer = tiny_tokenizer()
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=80,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=64,
        tie_word_embeddings=False,
        initializer_range=0.3,
    )
    place = tmp_path / "model"
    LlamaForCausalLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


def state_of(folder: Path) -> State:
    return load_file(folder / "model.safetensors")


def linear(state: State) -> list[str]:
    return [name for name in state if any(part in name for part in LAYERS)]


def change_config(folder: Path, **fields: Any) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def rewrite(folder: Path, change: Callable[[str, Tensor], State]) -> None:
    """Replace every linear weight by what ``change`` makes of it, under names after its layer's."""
    state = state_of(folder)
    for name in linear(state):
        base = name.removesuffix(".weight")
        weight = state.pop(name)
        state |= {f"{base}.{end}": value for end, value in change(name, weight).items()}
    save_file({k: v.clone().contiguous() for k, v in state.items()}, folder / "model.safetensors")


def answer(folder: Path, state: State) -> Tensor:
    """Plain transformers on plain weights."""
    fields = json.loads((folder / "config.json").read_text())
    fields.pop("quantization_config", None)
    model = LlamaForCausalLM(LlamaConfig(**fields))
    model.load_state_dict(state)
    with torch.no_grad():
        logits: Tensor = model(TOKENS).logits
    return logits


TOKENS = token_windows(tiny_tokenizer(), "The harbour lay still. " * 9, seq_len=24, windows=2)


def check(folder: Path, weights: Callable[[str, Tensor], Tensor], before: State) -> None:
    """The folder answers as the model whose linear weights are ``weights`` of the first ones."""
    right = {k: weights(k, v) if k in linear(before) else v for k, v in before.items()}
    handle = load_model(str(folder))
    with torch.no_grad():
        ours = handle.model(TOKENS).logits
    torch.testing.assert_close(ours, answer(folder, right), rtol=0, atol=1e-5)
    raw = answer(folder, before)
    assert (ours - raw).abs().max() > 1e-3  # what was stored is not what there was before
    assert any("scales" in warning for warning in handle.info.warnings)


def refused(folder: Path) -> str:
    with pytest.raises(ModelFileError) as caught:
        load_model(str(folder))
    return str(caught.value)


# ---- multiplied out --------------------------------------------------------------------------


def whole_scale(weight: Tensor) -> Tensor:
    return weight.abs().max() / 448


def row_scale(weight: Tensor) -> Tensor:
    return weight.abs().amax(1, keepdim=True) / 448


@pytest.mark.parametrize("end", ["weight_scale", "weight_scale_inv", "scale_weight"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
@pytest.mark.parametrize("dtype", [torch.float8_e4m3fn, torch.float8_e5m2])
def test_float8_with_one_scale(
    folder: Path, end: str, shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    before = state_of(folder)

    def stored(name: str, w: Tensor) -> State:
        return {"weight": (w / whole_scale(w)).to(dtype), end: whole_scale(w).reshape(shape)}

    rewrite(folder, stored)
    check(folder, lambda _, w: (w / whole_scale(w)).to(dtype).float() * whole_scale(w), before)


@pytest.mark.parametrize("columns", [(), (1,)])
@pytest.mark.parametrize("scale_dtype", [torch.float32, torch.bfloat16])
def test_float8_with_a_scale_for_each_row(
    folder: Path, columns: tuple[int, ...], scale_dtype: torch.dtype
) -> None:
    before = state_of(folder)

    def scale(w: Tensor) -> Tensor:
        return row_scale(w).to(scale_dtype)

    def stored(name: str, w: Tensor) -> State:
        small = (w / scale(w).float()).to(FLOAT8)
        return {"weight": small, "weight_scale": scale(w).reshape(len(w), *columns)}

    rewrite(folder, stored)
    change_config(
        folder,
        quantization_config={
            "quant_method": "compressed-tensors",
            "format": "float-quantized",
            "config_groups": {"group_0": {"weights": {"num_bits": 8, "strategy": "channel"}}},
        },
    )
    check(folder, lambda _, w: (w / scale(w).float()).to(FLOAT8).float() * scale(w).float(), before)


def blocks(w: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Scales by block, and the same spread over the weight, written out naively."""
    rows, columns = -(-w.shape[0] // size), -(-w.shape[1] // size)
    scale, spread = torch.zeros(rows, columns), torch.zeros_like(w)
    for i in range(rows):
        for j in range(columns):
            place = (slice(i * size, (i + 1) * size), slice(j * size, (j + 1) * size))
            scale[i, j] = w[place].abs().max() / 448
            spread[place] = scale[i, j]
    return scale, spread


@pytest.mark.parametrize(("size", "said"), [(16, False), (32, False), (24, True), (128, True)])
def test_float8_by_blocks_as_deepseek_stores_it(folder: Path, size: int, said: bool) -> None:
    before = state_of(folder)

    def stored(name: str, w: Tensor) -> State:
        scale, spread = blocks(w, size)
        return {"weight": (w / spread).to(FLOAT8), "weight_scale_inv": scale}

    rewrite(folder, stored)
    fields = {"quant_method": "fp8", "weight_block_size": [size, size]}
    if said:
        change_config(folder, quantization_config=fields)
    check(
        folder,
        lambda _, w: (w / blocks(w, size)[1]).to(FLOAT8).float() * blocks(w, size)[1],
        before,
    )


def test_blocks_whose_size_cannot_be_told_are_refused(folder: Path) -> None:
    rewrite(folder, lambda _, w: {"weight": w.to(FLOAT8), "weight_scale": torch.ones(2, 2)})
    assert "share a scale" in refused(folder)


def test_whole_numbers_with_scale_and_zero_point(folder: Path) -> None:
    before = state_of(folder)

    def parts(w: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        low, high = w.amin(1, keepdim=True), w.amax(1, keepdim=True)
        scale = (high - low) / 255
        zero = (-128 - low / scale).round()
        return (w / scale + zero).round().clamp(-128, 127), scale, zero

    def stored(name: str, w: Tensor) -> State:
        small, scale, zero = parts(w)
        return {
            "weight": small.to(torch.int8),
            "weight_scale": scale,
            "weight_zero_point": zero.to(torch.int8),
        }

    rewrite(folder, stored)

    def right(name: str, w: Tensor) -> Tensor:
        small, scale, zero = parts(w)
        return (small - zero) * scale

    check(folder, right, before)


def test_whole_numbers_by_groups(folder: Path) -> None:
    before = state_of(folder)

    def parts(w: Tensor) -> tuple[Tensor, Tensor]:
        grouped = w.reshape(len(w), -1, 16)
        scale = grouped.abs().amax(-1, keepdim=True) / 127
        return (grouped / scale).round(), scale

    def stored(name: str, w: Tensor) -> State:
        small, scale = parts(w)
        return {"weight": small.reshape(w.shape).to(torch.int8), "weight_scale": scale[..., 0]}

    rewrite(folder, stored)
    check(folder, lambda _, w: (parts(w)[0] * parts(w)[1]).reshape(w.shape), before)


def test_bitsandbytes_8_bits(folder: Path) -> None:
    before = state_of(folder)

    def small(w: Tensor) -> Tensor:
        return (w * 127 / w.abs().amax(1, keepdim=True)).round()

    def stored(name: str, w: Tensor) -> State:
        return {
            "weight": small(w).to(torch.int8),
            "SCB": w.abs().amax(1),
            "weight_format": torch.tensor(0, dtype=torch.uint8),
        }

    rewrite(folder, stored)
    fields = {"quant_method": "bitsandbytes", "load_in_8bit": True, "load_in_4bit": False}
    change_config(folder, quantization_config=fields)
    check(folder, lambda _, w: small(w) * w.abs().amax(1, keepdim=True) / 127, before)


def test_scales_of_activations_say_nothing_about_weights(folder: Path) -> None:
    before = state_of(folder)
    rewrite(folder, lambda _, w: {"weight": w, "input_scale": torch.ones(1)})
    change_config(
        folder, quantization_config={"quant_method": None, "kv_cache_scheme": {"num_bits": 8}}
    )
    handle = load_model(str(folder))
    with torch.no_grad():
        ours = handle.model(TOKENS).logits
    assert torch.equal(ours, answer(folder, before))


def test_what_was_read_raw_before_is_another_model_for_the_caches(folder: Path) -> None:
    plain = load_model(str(folder)).fingerprint
    rewrite(folder, lambda _, w: {"weight": w.to(FLOAT8), "weight_scale": torch.tensor([2.0])})
    assert load_model(str(folder)).fingerprint != plain


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_products_are_rounded_once(folder: Path, dtype: str) -> None:
    before = state_of(folder)
    name = next(iter(linear(before)))
    scale = torch.tensor([0.37])
    rewrite(folder, lambda _, w: {"weight": w.to(FLOAT8), "weight_scale": scale})
    model = load_model(str(folder), dtype=dtype).model
    right = (before[name].to(FLOAT8).float() * scale).to(getattr(torch, dtype))
    assert torch.equal(model.state_dict()[name], right)


# ---- refused ---------------------------------------------------------------------------------

REFUSED: dict[str, tuple[str, Callable[[str, Tensor], State]]] = {
    "gptq": ("GPTQ", lambda _, w: {"qweight": w.int(), "g_idx": torch.zeros(len(w)).int()}),
    "awq": ("AWQ", lambda _, w: {"qweight": w.int(), "qzeros": w.int(), "scales": w[:, :1]}),
    "packed": ("compressed-tensors", lambda _, w: {"weight_packed": w.int(), "weight_scale": w}),
    "sparse": ("compressed-tensors", lambda _, w: {"compressed": w, "bitmask": w.byte()}),
    "mlx": ("MLX", lambda _, w: {"weight": w.to(torch.uint32), "scales": w, "biases": w}),
    "bnb4": (
        "bitsandbytes",
        lambda _, w: {"weight": w.byte().reshape(-1, 1), "weight.absmax": w.flatten()[:8]},
    ),
    "nvfp4": (
        "NVFP4",
        lambda _, w: {"weight": w.byte(), "weight_scale": w, "weight_scale_2": w[:1, 0]},
    ),
    "hqq": ("HQQ", lambda _, w: {"W_q": w.byte(), "scale": w[:, :1]}),
    "quanto": ("quanto", lambda _, w: {"weight._data": w.char(), "weight._scale": w[:, :1]}),
    "torchao": ("torchao", lambda _, w: {"_weight_qdata": w.char(), "_weight_scale": w[:, :1]}),
    "float with a scale": (
        "multiplied in already",
        lambda _, w: {"weight": w.half(), "weight_scale": torch.ones(1)},
    ),
    "other name": ("_proj.scales", lambda _, w: {"weight": w.to(FLOAT8), "scales": w[:, :1]}),
    "scale_inv": ("scale_inv", lambda _, w: {"weight": w.to(FLOAT8), "scale_inv": w[:1, 0]}),
    "scale of whole numbers": (
        "weight_scale",
        lambda _, w: {"weight": w.to(FLOAT8), "weight_scale": w[:, :1].byte()},
    ),
    "whole without scale": ("I8", lambda _, w: {"weight": w.char()}),
    "bytes": ("U8", lambda _, w: {"weight": w.byte(), "weight_scale": w[:, :1]}),
    "scales of fused parts": (
        "share a scale",
        lambda _, w: {"weight": w.to(FLOAT8), "weight_scale": torch.ones(3)},
    ),
    "mask": ("weight_mask", lambda _, w: {"weight": w, "weight_mask": (w > 0).float()}),
    "torch prune": ("prune.remove", lambda _, w: {"weight_orig": w, "weight_mask": w}),
    "weight norm": ("parametrize", lambda _, w: {"weight_g": w[:, :1], "weight_v": w}),
}


@pytest.mark.parametrize("form", REFUSED)
def test_other_ways_of_storing_are_refused_by_name(folder: Path, form: str) -> None:
    part, change = REFUSED[form]
    rewrite(folder, change)
    text = refused(folder)
    assert part in text and text.endswith(".") and "\n" not in text


def test_one_weight_without_its_scale_is_refused(folder: Path) -> None:
    def stored(name: str, w: Tensor) -> State:
        scale = {} if "1.mlp.up_proj" in name else {"weight_scale": torch.ones(1)}
        return {"weight": w.to(FLOAT8), **scale}

    rewrite(folder, stored)
    assert "layers.1.mlp.up_proj.weight is stored as F8_E4M3" in refused(folder)


def test_float8_without_any_scale_is_taken_as_it_is(folder: Path) -> None:
    before = state_of(folder)
    rewrite(folder, lambda _, w: {"weight": w.to(FLOAT8)})
    check(folder, lambda _, w: w.to(FLOAT8).float(), before)


def test_a_family_that_stores_columns_first(tmp_path: Path) -> None:
    tokenizer = tiny_tokenizer()
    sizes = {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64}
    model = GPT2LMHeadModel(GPT2Config(vocab_size=len(tokenizer), **sizes))
    model.save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    path = tmp_path / "model" / "model.safetensors"
    state = load_file(path)
    name = next(n for n in state if n.endswith("attn.c_proj.weight"))
    state[name] = state[name].to(FLOAT8)  # 32 x 32: either axis would fit
    scale = name.removesuffix("weight") + "weight_scale"
    save_file({**state, scale: torch.ones(32, 1)}, path)
    assert "not known here" in refused(tmp_path / "model")
    save_file({**state, scale: torch.full((1,), 3.0)}, path)
    weight = load_model(str(tmp_path / "model")).model.state_dict()[name]
    assert torch.equal(weight, state[name].float() * 3)


QUANTIZATION: list[tuple[dict[str, Any] | None, bool]] = [
    (None, True),
    ({}, True),
    ({"quant_method": "compressed-tensors", "config_groups": {}}, True),
    ({"quant_method": "compressed-tensors", "sparsity_config": {"format": "dense"}}, True),
    ({"config_groups": {"g": {"weights": None, "input_activations": {"num_bits": 8}}}}, True),
    ({"quant_method": "bitsandbytes", "load_in_8bit": False, "load_in_4bit": False}, True),
    ({"quant_method": "bitsandbytes", "load_in_8bit": True}, False),
    ({"quant_method": "bitsandbytes", "load_in_4bit": True}, False),
    ({"quant_method": "gptq", "bits": 4}, False),
    ({"quant_method": "awq"}, False),
    ({"quant_method": "fp8"}, False),
    ({"config_groups": {"g": {"weights": {"num_bits": 4}}}}, False),
    (
        {"quant_method": "compressed-tensors", "sparsity_config": {"format": "sparse-bitmask"}},
        False,
    ),
]


@pytest.mark.parametrize(("fields", "loads"), QUANTIZATION)
def test_a_quantization_config_over_plain_floats(
    folder: Path, fields: dict[str, Any] | None, loads: bool
) -> None:
    before = state_of(folder)
    change_config(folder, quantization_config=fields)
    if not loads:
        assert "stored quantized" in refused(folder)
        return
    with torch.no_grad():
        ours = load_model(str(folder)).model(TOKENS).logits
    assert torch.equal(ours, answer(folder, before))
