"""The tensors of a GGUF file under the names, shapes and orders of transformers.

Names: the tables of the ``gguf`` package; orders: what llama.cpp's converter does to each family,
undone. Every tensor of the file has its place in the model or is refused by name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from prune_core.errors import ModelFileError
from prune_core.models.gguf_fields import ROPE_TENSORS
from prune_core.models.headers import GgufHeader
from prune_core.models.sources import shown

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Values = NDArray[np.float32]

_EMBEDDING = {"token_embd": "model.embed_tokens", "output": "lm_head"}
_SEPARATE = {
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
}
_GATED = {"ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj"}
_NORMS = {"attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm"}


def _decoder(top: Mapping[str, str], blocks: str, inside: Mapping[str, str]) -> dict[str, str]:
    return {**top, **{f"blk.#.{ours}": f"{blocks}.#.{theirs}" for ours, theirs in inside.items()}}


_LLAMA = _decoder(
    {**_EMBEDDING, "output_norm": "model.norm"},
    "model.layers",
    {**_SEPARATE, **_GATED, **_NORMS},
)
_QK_NORMS = {
    "blk.#.attn_q_norm": "model.layers.#.self_attn.q_norm",
    "blk.#.attn_k_norm": "model.layers.#.self_attn.k_norm",
}


def _t5_names() -> dict[str, str]:
    names = {
        "token_embd": "shared",
        "output": "lm_head",
        "enc.output_norm": "encoder.final_layer_norm",
        "dec.output_norm": "decoder.final_layer_norm",
    }
    for ours, theirs, last in (("enc", "encoder", 1), ("dec", "decoder", 2)):
        own, mlp = f"{theirs}.block.#.layer.0", f"{theirs}.block.#.layer.{last}"
        inside = {
            **{f"attn_{x}": f"{own}.SelfAttention.{x}" for x in ("q", "k", "v", "o")},
            "attn_rel_b": f"{own}.SelfAttention.relative_attention_bias",
            "attn_norm": f"{own}.layer_norm",
            "ffn_norm": f"{mlp}.layer_norm",
            "ffn_down": f"{mlp}.DenseReluDense.wo",
        }
        names |= {f"{ours}.blk.#.{name}": path for name, path in inside.items()}
    cross = "decoder.block.#.layer.1"
    names |= {f"dec.blk.#.cross_attn_{x}": f"{cross}.EncDecAttention.{x}" for x in "qkvo"}
    return names | {"dec.blk.#.cross_attn_norm": f"{cross}.layer_norm"}


NAMES: Mapping[str, Mapping[str, str]] = {
    "gemma": _LLAMA,
    "gemma2": _decoder(
        {**_EMBEDDING, "output_norm": "model.norm"},
        "model.layers",
        {
            **_SEPARATE,
            **_GATED,
            "attn_norm": "input_layernorm",
            "post_attention_norm": "post_attention_layernorm",
            "ffn_norm": "pre_feedforward_layernorm",
            "post_ffw_norm": "post_feedforward_layernorm",
        },
    ),
    "gpt2": _decoder(
        {
            "token_embd": "transformer.wte",
            "position_embd": "transformer.wpe",
            "output_norm": "transformer.ln_f",
            "output": "lm_head",
        },
        "transformer.h",
        {
            "attn_norm": "ln_1",
            "attn_qkv": "attn.c_attn",
            "attn_output": "attn.c_proj",
            "ffn_norm": "ln_2",
            "ffn_up": "mlp.c_fc",
            "ffn_down": "mlp.c_proj",
        },
    ),
    "gptneox": _decoder(
        {
            "token_embd": "gpt_neox.embed_in",
            "output_norm": "gpt_neox.final_layer_norm",
            "output": "lm_head",
        },
        "gpt_neox.layers",
        {
            "attn_norm": "input_layernorm",
            "attn_qkv": "attention.query_key_value",
            "attn_output": "attention.dense",
            "ffn_norm": "post_attention_layernorm",
            "ffn_up": "mlp.dense_h_to_4h",
            "ffn_down": "mlp.dense_4h_to_h",
        },
    ),
    "llama": _LLAMA,
    "phi2": _decoder(
        {**_EMBEDDING, "output_norm": "model.final_layernorm"},
        "model.layers",
        {
            **_SEPARATE,
            "attn_output": "self_attn.dense",
            "attn_norm": "input_layernorm",
            "ffn_up": "mlp.fc1",
            "ffn_down": "mlp.fc2",
        },
    ),
    "phi3": _decoder(
        {**_EMBEDDING, "output_norm": "model.norm"},
        "model.layers",
        {
            **_NORMS,
            "attn_qkv": "self_attn.qkv_proj",
            "attn_output": "self_attn.o_proj",
            "ffn_up": "mlp.gate_up_proj",
            "ffn_down": "mlp.down_proj",
        },
    ),
    "qwen2": _LLAMA,
    "qwen3": {**_LLAMA, **_QK_NORMS},
    "smollm3": _LLAMA,
    "t5": _t5_names(),
}
"""Architecture of a GGUF to its names and those of transformers, ``#`` for the block, no ending."""

UNUSED = re.compile(r"dec\.blk\.\d+\.cross_attn_rel_b\.weight")
"""T5's first files hold a position bias of cross-attention that no T5 has ever read."""

_BLOCK = re.compile(r"(?<=blk\.)\d+(?=\.)")


def tensor_names(header: GgufHeader, file: str) -> dict[str, str]:
    """Where each tensor of a file goes.

    Args:
        header: of the file, its architecture one of :data:`NAMES`.
        file: its name, for sentences.

    Returns:
        Name in the file to name in transformers; without the tensors that are not weights.

    Raises:
        ModelFileError: a tensor has no place; names it.
    """
    patterns = dict(NAMES[header.architecture])
    if header.architecture == "t5":
        for ours, path in (("enc", "encoder.block.#.layer.1"), ("dec", "decoder.block.#.layer.2")):
            gated = f"{ours}.blk.0.ffn_gate.weight" in header.tensors
            patterns[f"{ours}.blk.#.ffn_up"] = f"{path}.DenseReluDense.wi" + "_1" * gated
            patterns[f"{ours}.blk.#.ffn_gate"] = f"{path}.DenseReluDense.wi_0"
    names: dict[str, str] = {}
    for name in header.tensors:
        if name in ROPE_TENSORS or UNUSED.fullmatch(name):
            continue
        block = _BLOCK.search(name)
        base, _, ending = _BLOCK.sub("#", name, count=1).rpartition(".")
        place = patterns.get(base)
        if place is None or ending not in ("weight", "bias"):
            raise _no_place(file, name, header.architecture)
        names[name] = f"{place}.{ending}".replace("#", block[0] if block else "")
    return names


def _no_place(file: str, name: str, architecture: str) -> ModelFileError:
    return ModelFileError(
        "{file}: the tensor {tensor} has no place in a model of GGUF architecture {arch}; without "
        "it the numbers could be wrong, so the file is refused.",
        file=shown(file),
        tensor=shown(name),
        arch=architecture,
    )


def read_tensor(path: Path, header: GgufHeader, name: str) -> Values:
    """One tensor as float32, axes in the order of numpy."""
    from gguf import GGML_QUANT_SIZES, GGMLQuantizationType, dequantize

    word, shape = header.tensors[name]
    kind = GGMLQuantizationType[word]
    block, block_bytes = GGML_QUANT_SIZES[kind]
    rows = (*reversed(shape[1:]), shape[0] // block * block_bytes)
    raw = np.memmap(path, np.uint8, "r", header.offsets[name], rows)
    values = dequantize(np.asarray(raw), kind).reshape(tuple(reversed(shape)))
    return np.array(values, dtype=np.float32, order="C")


def read_tensors(
    path: Path,
    header: GgufHeader,
    model: Any,
    config: Mapping[str, Any],
    step: Callable[[int], None],
) -> dict[str, Any]:
    """All weights of a model by transformers' names.

    Args:
        path: the file.
        header: of the file.
        model: of transformers, on the meta device; its names and shapes are what is wanted.
        config: from :func:`prune_core.models.gguf_config.gguf_config`.
        step: told how many tensors are done.

    Raises:
        ModelFileError: a tensor has no place, is missing or has the wrong shape; names it.
    """
    import torch

    expected = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    names = tensor_names(header, path.name)
    weights: dict[str, Any] = {}
    for index, (name, place) in enumerate(names.items()):
        step(index + 1)
        if place not in expected:
            raise _no_place(path.name, name, header.architecture)
        stored = tuple(reversed(header.tensors[name][1]))
        flipped = _is_conv1d(header.architecture, name)
        if (stored[::-1] if flipped else stored) != expected[place]:
            raise ModelFileError(
                "Tensor {name} in {file} has shape {shape} where the architecture needs {wanted}.",
                name=shown(name),
                file=shown(path.name),
                shape=stored,
                wanted=expected[place][:: -1 if flipped else 1],
            )
        values = _checkpoint_form(
            read_tensor(path, header, name), name, header.architecture, config
        )
        weights[place] = torch.from_numpy(np.ascontiguousarray(values))
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(expected) - set(weights) - tied)
    # the flags of these families give biases to all attention or all MLP layers, or to none
    flags = ("attention_bias", "mlp_bias")
    for ending in _OPTIONAL_BIASES if any(config.get(flag) for flag in flags) else ():
        alike = [name for name in expected if name.endswith(ending)]
        if alike and set(alike) <= set(missing):
            weights |= {name: torch.zeros(expected[name]) for name in alike}
    missing = [name for name in missing if name not in weights]
    if missing:
        raise ModelFileError(
            "The GGUF file {name} lacks {count} tensors of its architecture: {missing}.",
            name=shown(path.name),
            count=len(missing),
            missing=shown(", ".join(missing), 200),
        )
    return weights


_OPTIONAL_BIASES = tuple(f"{path}.bias" for path in (*_SEPARATE.values(), *_GATED.values()))


def _is_conv1d(architecture: str, name: str) -> bool:
    linear = (".attn_qkv.weight", ".attn_output.weight", ".ffn_up.weight", ".ffn_down.weight")
    return architecture == "gpt2" and name.endswith(linear)


def _checkpoint_form(
    values: Values, name: str, architecture: str, config: Mapping[str, Any]
) -> Values:
    """What the converter to GGUF did to a tensor, the other way around."""
    if _is_conv1d(architecture, name):
        return values.T
    if architecture in ("llama", "smollm3") and ".attn_q." in name:
        return _halves(values, config["num_attention_heads"])
    if architecture in ("llama", "smollm3") and ".attn_k." in name:
        return _halves(values, config["num_key_value_heads"])
    if architecture in ("gemma", "gemma2") and name.endswith("norm.weight"):
        return values - np.float32(1)
    if architecture == "gptneox" and ".attn_qkv." in name:
        heads = config["num_attention_heads"]
        by_head = values.reshape(3, heads, values.shape[0] // 3 // heads, *values.shape[1:])
        return by_head.swapaxes(0, 1).reshape(values.shape)
    return values


def _halves(values: Values, heads: int) -> Values:
    """Rows of a head from pairs side by side to first halves, then second halves."""
    pairs = values.reshape(heads, values.shape[0] // heads // 2, 2, *values.shape[1:])
    return pairs.swapaxes(1, 2).reshape(values.shape)
