"""How a folder's weight files hold a model: which files, under which names, in which numbers.

Weights may lie there as small numbers beside their scales (float8, int8). Where the product of the
two is plainly the weight, it is formed here; every other way of storing is refused by its name.
Raw numbers never pass for weights. Deciding needs no torch, reading does.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from prune_core.errors import ModelFileError
from prune_core.models.families import FAMILIES
from prune_core.models.headers import SafetensorsHeader
from prune_core.models.sources import shown
from prune_core.sentences import Sentence

if TYPE_CHECKING:
    from torch import Tensor

FLOATS = frozenset({"F16", "BF16", "F32", "F64"})
"""Numbers that are the weights themselves."""
FLOAT8 = frozenset({"F8_E4M3", "F8_E5M2"})
WHOLE = frozenset({"I8", "U8", "I16", "U16", "I32", "U32", "I64", "U64", "BOOL"})

MULTIPLIERS = ("weight_scale", "weight_scale_inv", "scale_weight")
"""What a stored number is multiplied by to be a weight: compressed-tensors, fbgemm and modelopt;
DeepSeek (arXiv 2412.19437; its "inverse" is the factor all the same); ComfyUI."""
ZERO = "weight_zero_point"
ROW_MAXIMA, ROW_LAYOUT = "SCB", "weight_format"
"""bitsandbytes, 8 bits (arXiv 2208.07339): 127 times a weight over the largest one of its row."""
INT8_MOST = 127

BLOCK_SIZES = (16, 32, 64, 128, 256, 512)
"""Sides of blocks that are in use; only one of them may fit where the configuration names none."""

_WRAPPERS = re.compile(
    r"(?:^|(?<=\.))(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\."
)
_OUTER = ("module.", "_forward_module.")

_ACTIVATIONS = re.compile(
    r"^((input|output|k|v|q|kv|prob|act|activation)_(scale|zero_point|global_scale|scale_ub)|scale_input)$"
)
"""Ends of names that are about activations: they say nothing about the weights."""

_FORMATS: tuple[tuple[str, str], ...] = (
    (r"\.(qweight|qzeros|g_idx)$", "GPTQ or AWQ"),
    (r"\.weight_(packed|shape|g_idx)$", "compressed-tensors, packed"),
    (r"\.(bitmask|row_offsets|compressed)$", "compressed-tensors, sparse"),
    (r"\.weight_(scale_2|global_scale)$", "NVFP4"),
    (
        r"\.weight\.(absmax|quant_map|nested_absmax|nested_quant_map|quant_state\b.*)$",
        "bitsandbytes, 4 bits",
    ),
    (r"_blocks$", "MXFP4"),
    (r"(\.weight\._(data|scale|shift)|\.weight_qtype)$", "quanto"),
    (r"(:|\.weight_|\._weight_)_?(qdata|tensor_impl\b.*)$", "torchao"),
    (r"\.W_q$", "HQQ"),
    (r"\.(codes|codebooks)$", "AQLM"),
    (r"\.(Qidxs\w*|SU|SV)$", "QuIP"),
    (r"\.(indices|centroids|centroid_indices)$", "VPTQ"),
)
"""Ends of tensor names that only one way of storing uses."""

_BESIDE = re.compile(r"scale|zero|absmax|maxval|quant|codebook|^SCB$|^CB$|^(weight_)?mask$", re.I)
"""Ends of names beside a weight that must not be passed over in silence."""


@dataclass(frozen=True, slots=True)
class Scaled:
    """A weight that is a product.

    Attributes:
        scale: stored name of its factor.
        zero: stored name of what is taken off first, or None.
        block: rows and columns that share one scale.
        most: the stored number that stands for the scale itself; 1 where it is a plain factor.
        layout: stored name of bitsandbytes' layout, which must be 0 (rows); or None.
    """

    scale: str
    zero: str | None
    block: tuple[int, int]
    most: int = 1
    layout: str | None = None


@dataclass(frozen=True, slots=True)
class Stored:
    """A folder's weights, understood.

    Attributes:
        files: that hold them.
        names: the model's name of each tensor that belongs to it, by stored name.
        scaled: how stored numbers become weights, by stored name.
        is_plain: transformers finds and reads them by itself.
        quantized: the type that stored numbers have, or None.
        warnings: sentences to show.
    """

    files: tuple[Path, ...]
    names: Mapping[str, str]
    scaled: Mapping[str, Scaled] = field(default_factory=dict)
    is_plain: bool = True
    quantized: str | None = None
    warnings: tuple[str, ...] = ()


def understand(
    header: SafetensorsHeader,
    files: Sequence[Path],
    config: Mapping[str, Any],
    *,
    standard: bool = True,
) -> Stored:
    """Decide how the tensors of a folder become the model's weights.

    Args:
        header: of all files together.
        files: that it describes.
        config: the model's configuration.
        standard: transformers finds the files by their names.

    Raises:
        ModelFileError: stored in a way that is not read here; names it and a tensor.
    """
    names = _model_names(header)
    _refuse_formats(header)
    scaled: dict[str, Scaled] = {}
    spent: set[str] = set()
    for weight, kind, shape, beside in _weights(header):
        scaling = _scaled(weight, kind, shape, beside, header, config)
        if scaling is not None:
            scaled[weight] = scaling
            parts = (scaling.scale, scaling.zero, scaling.layout)
            spent.update(name for name in parts if name is not None)
    kinds = sorted({header.tensors[name][0] for name in scaled})
    bare = _check_bare(header, scaled, config)
    warnings: list[str] = []
    if not standard:
        warnings.append(
            Sentence(
                "The weights were read from {files}.",
                files=shown(", ".join(path.name for path in files), 200),
            )
        )
    if scaled:
        warnings.append(
            Sentence(
                "{count} weights are stored as {dtypes:list} beside their scales; they are used "
                "as the products of the two.",
                count=len(scaled),
                dtypes=kinds,
            )
        )
    elif bare:
        warnings.append(
            Sentence(
                "The weights are stored as {dtypes:list} without scales; they are used as they "
                "are.",
                dtypes=bare,
            )
        )
    plain = {stored: name for stored, name in names.items() if stored not in spent}
    renamed = any(stored != name for stored, name in plain.items())
    return Stored(
        tuple(files),
        plain,
        scaled,
        standard and not renamed and not scaled,
        ", ".join(kinds or bare) or None,
        tuple(warnings),
    )


def _model_names(header: SafetensorsHeader) -> dict[str, str]:
    """Names without what torch.compile, FSDP, checkpointing and DataParallel put before them."""
    names = {stored: _WRAPPERS.sub("", stored) for stored in header.tensors}
    for outer in _OUTER:
        if names and all(name.startswith(outer) for name in names.values()):
            names = {s: _WRAPPERS.sub("", name.removeprefix(outer)) for s, name in names.items()}
    if len(set(names.values())) < len(names):
        twice = next(n for n in names.values() if list(names.values()).count(n) > 1)
        raise ModelFileError(
            "The weight files hold {name} twice, with and without the prefix of a wrapper such as "
            "_orig_mod; save the unwrapped model again.",
            name=shown(twice),
        )
    return names


def _refuse_formats(header: SafetensorsHeader) -> None:
    """Refuse what is known by the ends of its names."""
    for name, (kind, _) in header.tensors.items():
        stem = name.rpartition(".")[0]
        if name.endswith(("weight_orig", "bias_orig")) and (
            f"{name.removesuffix('_orig')}_mask" in header.tensors
        ):
            raise ModelFileError(
                "torch.nn.utils.prune has left masks in this checkpoint ({name}); call "
                'torch.nn.utils.prune.remove(module, "weight") for every pruned module and save '
                "it again.",
                name=shown(name),
            )
        if ".parametrizations." in name or name.endswith((".weight_g", ".weight_v")):
            raise ModelFileError(
                "The weights of this checkpoint are parametrized ({name}); call "
                "torch.nn.utils.parametrize.remove_parametrizations and save it again.",
                name=shown(name),
            )
        if kind == "U32" and f"{stem}.scales" in header.tensors:
            raise _quantized("MLX", name)
        for pattern, form in _FORMATS:
            if re.search(pattern, name):
                raise _quantized(form, name)


def _quantized(form: str, name: str) -> ModelFileError:
    return ModelFileError(
        "This checkpoint is stored quantized ({form}, tensor {name}), which is not read here; "
        "choose the float or GGUF version of the model.",
        form=form,
        name=shown(name, 120),
    )


def _weights(
    header: SafetensorsHeader,
) -> Iterator[tuple[str, str, tuple[int, ...], dict[str, str]]]:
    """Each tensor called weight: name, dtype, shape, and by their ends what lies beside it."""
    beside: dict[str, dict[str, str]] = {}
    for name in header.tensors:
        stem, _, end = name.rpartition(".")
        if stem.endswith(".weight"):  # weight.scale
            stem, end = stem.removesuffix(".weight"), f"weight.{end}"
        beside.setdefault(stem, {})[end] = name
    for name, (kind, shape) in header.tensors.items():
        stem, _, end = name.rpartition(".")
        if end == "weight":
            yield name, kind, shape, beside[stem]


def _scaled(
    weight: str,
    kind: str,
    shape: tuple[int, ...],
    beside: Mapping[str, str],
    header: SafetensorsHeader,
    config: Mapping[str, Any],
) -> Scaled | None:
    """How one weight follows from what lies beside it; None where it is the weight itself."""
    about = {
        end: name
        for end, name in beside.items()
        if _BESIDE.search(end) and end not in ("weight", "embed_scale", "weight_format")
    }
    about = {end: name for end, name in about.items() if not _ACTIVATIONS.match(end)}
    factors = [end for end in MULTIPLIERS if end in about]
    if not about:
        return None
    odd = [name for end, name in about.items() if end not in (*MULTIPLIERS, ZERO, ROW_MAXIMA)]
    if odd:
        raise _unknown(odd[0], weight)
    if ROW_MAXIMA in about:
        if kind != "I8" or factors or header.tensors[about[ROW_MAXIMA]][0] not in FLOATS:
            raise _unknown(about[ROW_MAXIMA], weight)
        block = _block(weight, shape, about[ROW_MAXIMA], header, config)
        return Scaled(about[ROW_MAXIMA], None, block, INT8_MOST, beside.get(ROW_LAYOUT))
    if len(factors) != 1:
        raise _unknown(next(iter(about.values())), weight)
    scale, zero = about[factors[0]], about.get(ZERO)
    if kind in FLOATS:
        raise ModelFileError(
            "Beside {weight} ({dtype}) lies {scale}, and nothing says whether it is multiplied in "
            "already; save the model with plain weights.",
            weight=shown(weight, 120),
            dtype=kind,
            scale=shown(scale, 120),
        )
    if kind not in FLOAT8 and kind != "I8" and not (kind == "U8" and zero is not None):
        raise _quantized(kind, weight)  # several small numbers in one
    if header.tensors[scale][0] not in {*FLOATS, "F8_E8M0"}:
        raise _unknown(scale, weight)
    block = _block(weight, shape, scale, header, config)
    if zero is not None and header.tensors[zero][1] != header.tensors[scale][1]:
        raise _unknown(zero, weight)
    return Scaled(scale, zero, block)


def _unknown(name: str, weight: str) -> ModelFileError:
    return ModelFileError(
        "Beside {weight} lies {other}, and how the two make a weight is not known here; choose "
        "the float or GGUF version of the model.",
        weight=shown(weight, 120),
        other=shown(name, 120),
    )


def _block(
    weight: str,
    shape: tuple[int, ...],
    scale: str,
    header: SafetensorsHeader,
    config: Mapping[str, Any],
) -> tuple[int, int]:
    """Rows and columns of a weight that share one scale."""
    sides = header.tensors[scale][1]
    if all(side == 1 for side in sides):
        return (max(shape[0], 1), max(shape[-1], 1)) if shape else (1, 1)
    family = FAMILIES.get(str(config.get("model_type")))
    # of weights stored as (in, out) nothing says which axis a scale belongs to
    if len(shape) != 2 or len(sides) > 2 or (family is not None and family.columns_first):
        raise _unknown(scale, weight)
    rows, columns = (*sides, 1)[:2]
    config_block = _named_block(config)
    block = []
    for axis, (length, parts) in enumerate(zip(shape, (rows, columns), strict=True)):
        if parts in (1, length):
            sizes = {length if parts == 1 else 1}
        elif config_block is not None and config_block[axis]:
            sizes = {config_block[axis]} if -(-length // config_block[axis]) == parts else set()
        else:
            sizes = {size for size in BLOCK_SIZES if -(-length // size) == parts}
            sizes |= {length // parts} if length % parts == 0 else set()
        if len(sizes) != 1:
            raise ModelFileError(
                "The scales {scales} have shape {sides} and the weight {shape}: which numbers "
                "share a scale cannot be told; choose the float or GGUF version of the model.",
                scales=shown(scale, 120),
                sides=sides,
                shape=shape,
            )
        block.append(sizes.pop())
    return block[0], block[1]


def quantization(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """What a configuration says of quantization, under any of the names it has had."""
    for key in ("quantization_config", "compression_config", "quantization"):
        if isinstance(config.get(key), dict):
            section: Mapping[str, Any] = config[key]
            return section
    return {}


def _groups(fields: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    """What compressed-tensors says of weights, group by group."""
    groups = fields.get("config_groups")
    entries = groups.values() if isinstance(groups, dict) else ()
    weights = [entry.get("weights") for entry in entries if isinstance(entry, dict)]
    return [entry for entry in weights if isinstance(entry, dict)]


def _named_block(config: Mapping[str, Any]) -> tuple[int, int] | None:
    """Rows and columns of a block as the configuration names them, 0 where it does not."""
    fields = quantization(config)
    sizes = [fields.get("weight_block_size")]
    for group in _groups(fields):
        structure, size = group.get("block_structure"), group.get("group_size")
        sizes.append(structure if structure else [0, size] if size else None)
    blocks = {
        (int(size[0]), int(size[1]))
        for size in sizes
        if isinstance(size, list | tuple)
        and len(size) == 2
        and all(isinstance(side, int) and side >= 0 for side in size)
    }
    return blocks.pop() if len(blocks) == 1 else None


def says_quantized(config: Mapping[str, Any]) -> bool:
    """True if the configuration says that the weights are stored as something else than floats."""
    fields = quantization(config)
    if not fields:
        return False
    method = str(fields.get("quant_method") or "").lower()
    if method == "compressed-tensors" or "config_groups" in fields:
        form = (fields.get("sparsity_config") or {}).get("format", "dense")
        return bool(_groups(fields)) or form not in ("dense", None)
    if method == "bitsandbytes":
        return bool(fields.get("load_in_8bit") or fields.get("load_in_4bit"))
    if method or "bits" in fields or "weight_block_size" in fields:
        return True
    aside = ("kv_cache", "activation", "version", "producer", "ignore", "config_groups")
    return any(value for key, value in fields.items() if not str(key).startswith(aside))


READABLE_METHODS = ("compressed-tensors", "fp8", "fbgemm_fp8", "bitsandbytes", "modelopt")
"""Quantization methods some of whose checkpoints are read: their tensors decide."""


def check_method(config: Mapping[str, Any]) -> None:
    """Refuse by its name a way of quantizing that is never read here.

    Raises:
        ModelFileError: such a one.
    """
    if not says_quantized(config):
        return
    fields = quantization(config)
    method = str(fields.get("quant_method") or ("MLX" if "quantization" in config else ""))
    readable = method.lower() in READABLE_METHODS or "config_groups" in fields
    if not readable or fields.get("load_in_4bit"):
        raise ModelFileError(
            "This checkpoint is stored quantized (quantization_config, {method}); choose the "
            "float or GGUF version of the model.",
            method=shown(method) or "no name",
        )


def _check_bare(
    header: SafetensorsHeader, scaled: Mapping[str, Scaled], config: Mapping[str, Any]
) -> list[str]:
    """Insist that a weight without a scale is a float; return the float8 types among them."""
    bare: set[str] = set()
    for name, (kind, shape) in header.tensors.items():
        end = name.rpartition(".")[2]
        if name in scaled or kind in FLOATS or end not in ("weight", "bias"):
            continue
        if end == "bias" and len(shape) != 1:  # GPT-2's causal mask is called bias too
            continue
        if kind not in FLOAT8 or scaled or says_quantized(config):
            raise ModelFileError(
                "{weight} is stored as {dtype} and no scale lies beside it; choose the float or "
                "GGUF version of the model.",
                weight=shown(name, 120),
                dtype=kind,
            )
        bare.add(kind)
    if not scaled and not bare and says_quantized(config):
        raise ModelFileError(
            "The weights are plain floats, but quantization_config in config.json says that they "
            "are stored quantized; take it out if they are whole weights."
        )
    return sorted(bare)


# ---- reading ---------------------------------------------------------------------------------


def read_state(stored: Stored, dtype: Any) -> dict[str, Tensor]:
    """Every tensor of a folder under the model's name, stored numbers multiplied out.

    Args:
        stored: see :func:`understand`.
        dtype: of the weights that are multiplied out; the products are formed in float32.

    Raises:
        ModelFileError: bitsandbytes' numbers lie in another order than rows.
    """
    from safetensors import safe_open

    place: dict[str, Any] = {}
    for path in stored.files:
        with safe_open(path, framework="pt") as file:
            place |= dict.fromkeys(file.keys(), path)
    opened = {path: safe_open(path, framework="pt") for path in stored.files}

    def tensor(name: str) -> Tensor:
        value: Tensor = opened[place[name]].get_tensor(name)
        return value

    state: dict[str, Tensor] = {}
    for name, shown_name in stored.names.items():
        rule = stored.scaled.get(name)
        if rule is None:
            state[shown_name] = tensor(name)
            continue
        if rule.layout is not None and int(tensor(rule.layout).flatten()[0]) != 0:
            raise _unknown(rule.layout, name)
        zero = tensor(rule.zero) if rule.zero is not None else None
        state[shown_name] = product(
            tensor(name), tensor(rule.scale), rule.block, zero=zero, most=rule.most
        ).to(dtype)
    return state


def product(
    numbers: Tensor,
    scale: Tensor,
    block: tuple[int, int],
    *,
    zero: Tensor | None = None,
    most: int = 1,
) -> Tensor:
    """Weights from stored numbers: ``(numbers - zero) * scale / most``, in float32.

    Args:
        numbers: (out, in), float8 or whole.
        scale: one number, (out,), or (rows / block, columns / block) rounded up.
        block: rows and columns that share one scale.
        zero: of the scale's shape, or None for 0.
        most: 1, or the stored number that stands for the scale itself.

    Returns:
        (out, in) float32.
    """

    def spread(values: Tensor) -> Tensor:
        values = values.float()
        if values.numel() == 1:
            return values.reshape(())
        rows, columns = block
        if values.dim() == 1:
            values = values[:, None]
        for axis, size in ((0, rows), (1, columns)):
            if values.shape[axis] > 1 and size > 1:
                values = values.repeat_interleave(size, axis)
        return values[: numbers.shape[0], : numbers.shape[1]]

    weights = numbers.float()
    if zero is not None:
        weights = weights - spread(zero)
    weights = weights * spread(scale)
    return weights / most if most != 1 else weights
