"""Headers of safetensors and GGUF files, read and checked without their weights. No torch."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from prune_core.errors import ModelFileError, PruneCoreError
from prune_core.models.sources import shown

MAX_HEADER_BYTES = 100_000_000
_DTYPE_BITS = {"BOOL": 8, "U8": 8, "I8": 8, "F8_E4M3": 8, "F8_E5M2": 8, "F8_E8M0": 8, "I16": 16}
_DTYPE_BITS |= {"U16": 16, "F16": 16, "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "I64": 64}
_DTYPE_BITS |= {"U64": 64, "F64": 64, "C64": 64, "F8_E4M3FNUZ": 8, "F8_E5M2FNUZ": 8, "F4": 4}
_DTYPE_BITS |= {"F6_E2M3": 6, "F6_E3M2": 6}

GGUF_MAGIC = b"GGUF"
MAX_GGUF_ENTRIES = 100_000  # key/value pairs, and tensors
MAX_GGUF_ARRAY = 20_000_000
MAX_GGUF_STRING = 10_000_000
# sizes in bytes of GGUF's scalar value types; 8 is a string, 9 an array
_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?"}
_SCALARS |= {10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9
DEQUANTIZABLE = frozenset(
    (
        *("F32", "F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"),
        *("Q2_K", "Q3_K", "Q4_K", "Q5_K", "Q6_K", "TQ1_0", "TQ2_0", "MXFP4", "NVFP4"),
        *("IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ1_S", "IQ1_M", "IQ4_NL", "IQ4_XS"),
    )
)
"""Tensor types that the gguf package turns into floats."""
_WHOLE_TYPES = frozenset({"F32", "F16", "BF16", "F64"})


@dataclass(frozen=True, slots=True)
class SafetensorsHeader:
    """Tensor name to (dtype name, shape)."""

    tensors: Mapping[str, tuple[str, tuple[int, ...]]]


def check_disguise(path: Path, *, is_text: bool = False) -> None:
    """Say what a file is that is not what its name says: pointers, pages and archives.

    Args:
        path: of the file.
        is_text: it should hold text: then a short one is nothing odd.

    Raises:
        ModelFileError: it is one of those; else nothing happens.
    """
    name = shown(path.name)
    try:
        with path.open("rb") as stream:
            start = stream.read(256)
    except OSError:
        return  # told where it is read
    text = start.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    if text.startswith(b"version https://git-lfs"):
        raise ModelFileError(
            "{name} is a Git LFS pointer, not the file itself; run git lfs pull in its folder, or "
            "download it again.",
            name=name,
        )
    if text.startswith((b"<!doctype", b"<html", b"<head", b"<?xml")):
        raise ModelFileError(
            "{name} is a web page, not the file itself; download it again from the link to the "
            "raw file.",
            name=name,
        )
    if start.startswith(GGUF_MAGIC):
        raise ModelFileError(
            "{name} is a GGUF file under another name; let its name end in .gguf and name that "
            "file as the model.",
            name=name,
        )
    if start.startswith((b"PK\x03\x04", b"\x80\x02", b"\x80\x03", b"\x80\x04")):
        raise ModelFileError(
            "{name} is a PyTorch file (pickle) under another name, which can run code and is "
            "refused; convert the model to safetensors (save_pretrained) in a safe place first.",
            name=name,
        )
    if start.startswith((b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"7z\xbc\xaf", b"BZh")):
        raise ModelFileError("{name} is a packed archive; unpack it first.", name=name)
    if (
        not is_text
        and 12 <= len(start) < 256
        and all(32 <= byte < 127 or byte in b"\t\r\n" for byte in start)
    ):
        raise ModelFileError(
            "{name} is not the file itself but a short text ({text}); download it again.",
            name=name,
            text=shown(start.decode().strip(), 60),
        )


def read_safetensors_header(path: Path) -> SafetensorsHeader:
    """Read the header of a safetensors file and check that the file is all there.

    Raises:
        ModelFileError: empty, truncated, header absurd or damaged; names the file, the size it
            should have and the size it has.
    """
    name = shown(path.name)
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(8)
            if len(start) < 8:
                check_disguise(path)
                raise ModelFileError(
                    "{name} is damaged: {size} bytes, a header alone needs 8; copy it again.",
                    name=name,
                    size=size,
                )
            length = int.from_bytes(start, "little")
            if length > min(MAX_HEADER_BYTES, size - 8):
                check_disguise(path)
                raise ModelFileError(
                    "{name} is damaged: its header claims {length} bytes, the file has {size}; "
                    "copy it again.",
                    name=name,
                    length=length,
                    size=size,
                )
            fields = json.loads(stream.read(length))
    except OSError as error:
        raise ModelFileError(
            "{name} cannot be read ({reason}).", name=name, reason=error.strerror
        ) from error
    except (ValueError, RecursionError) as error:
        raise ModelFileError(
            "{name} is damaged: its header is not JSON; copy it again.", name=name
        ) from error
    try:
        tensors, data_bytes = _tensors(fields)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelFileError(
            "{name} is damaged: its header does not describe its tensors; copy it again.", name=name
        ) from error
    expected = 8 + length + data_bytes
    if expected != size:
        raise ModelFileError(
            "{name} is damaged: it should have {expected} bytes but has {size}; copy it again.",
            name=name,
            expected=expected,
            size=size,
        )
    return SafetensorsHeader(tensors)


def _tensors(fields: Any) -> tuple[dict[str, tuple[str, tuple[int, ...]]], int]:
    """Tensors and the bytes they cover, which must follow one another without gaps."""
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    spans: list[tuple[int, int]] = []
    for name, entry in fields.items():
        if name == "__metadata__":
            continue
        shape = tuple(int(side) for side in entry["shape"])
        begin, end = (int(place) for place in entry["data_offsets"])
        bits = math.prod(shape) * _DTYPE_BITS[entry["dtype"]]
        if any(side < 0 for side in shape) or (end - begin) * 8 != bits:
            raise ValueError(name)
        tensors[name] = (entry["dtype"], shape)
        spans.append((begin, end))
    covered = 0
    for begin, end in sorted(spans):
        if begin != covered:
            raise ValueError("gap")
        covered = end
    return tensors, covered


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """What a GGUF file says of itself.

    Attributes:
        fields: values by key; arrays are lists.
        tensors: name to (type name, shape as stored, fastest axis first).
        offsets: name to the byte of the file at which the tensor begins.
    """

    fields: Mapping[str, Any]
    tensors: Mapping[str, tuple[str, tuple[int, ...]]]
    offsets: Mapping[str, int]

    @property
    def architecture(self) -> str:
        """``general.architecture``, empty if missing."""
        return str(self.fields.get("general.architecture", ""))

    @property
    def parameters(self) -> int:
        """Number of weights."""
        return sum(math.prod(shape) for _, shape in self.tensors.values())

    @property
    def quantization(self) -> str | None:
        """The type that holds most weights of the linear layers, or None for a float file."""
        weight_of: dict[str, int] = {}
        for name, (kind, shape) in self.tensors.items():
            if name.startswith(("blk.", "enc.blk.", "dec.blk.")) and len(shape) > 1:
                weight_of[kind] = weight_of.get(kind, 0) + math.prod(shape)
        if not weight_of:
            return None
        largest = max(weight_of, key=lambda kind: weight_of[kind])
        return None if largest in _WHOLE_TYPES else largest


class _Damaged(PruneCoreError):  # noqa: N818 - internal: becomes one ModelFileError
    """Something in the file cannot be."""


def read_gguf_header(path: Path) -> GgufHeader:
    """Read the header of a GGUF file and check that its tensors are all there.

    Raises:
        ModelFileError: not a GGUF file, damaged, cut off, or with a tensor type that cannot be
            turned into floats (named).
    """
    name = shown(path.name)
    try:
        with path.open("rb") as stream:
            if stream.read(len(GGUF_MAGIC)) != GGUF_MAGIC:
                check_disguise(path)
            stream.seek(0)
            return _gguf(stream, path.stat().st_size, name)
    except OSError as error:
        raise ModelFileError(
            "{name} cannot be read ({reason}).", name=name, reason=error.strerror
        ) from error
    except _Damaged as error:
        raise ModelFileError(
            "The GGUF file {name} is damaged ({error}); fetch it again.", name=name, error=error
        ) from error
    except (struct.error, ValueError, OverflowError, MemoryError) as error:
        raise ModelFileError(
            "The GGUF file {name} is damaged ({error}); fetch it again.",
            name=name,
            error=shown(str(error)),
        ) from error


def _gguf(stream: IO[bytes], size: int, file: str) -> GgufHeader:
    from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

    if stream.read(4) != GGUF_MAGIC:
        raise _Damaged("it does not begin with GGUF")
    (version,) = struct.unpack("<I", stream.read(4))
    if version == 1:
        raise ModelFileError(
            "The GGUF file {file} has version 1 of 2023, which is no longer read; convert the "
            "model again.",
            file=file,
        )
    if version in (2 << 24, 3 << 24):
        raise ModelFileError(
            "The GGUF file {file} is big-endian, made for another kind of processor; choose the "
            "little-endian file of the model.",
            file=file,
        )
    if version not in (2, 3):
        raise _Damaged("version {version} is not known", version=version)
    num_tensors, num_fields = struct.unpack("<QQ", stream.read(16))
    if num_tensors > MAX_GGUF_ENTRIES or num_fields > MAX_GGUF_ENTRIES:
        raise _Damaged("its header claims an impossible number of entries")
    fields: dict[str, Any] = {}
    for _ in range(num_fields):
        key = _text(stream)
        if key in fields:
            raise _Damaged("the field {key} stands there twice", key=shown(key))
        (kind,) = struct.unpack("<I", stream.read(4))
        fields[key] = _value(stream, kind)
    _check_whole_model(fields, file)
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    offsets: dict[str, int] = {}
    end = 0
    for _ in range(num_tensors):
        tensor = _text(stream)
        if tensor in tensors:
            raise _Damaged("the tensor {name} stands there twice", name=shown(tensor))
        (num_axes,) = struct.unpack("<I", stream.read(4))
        if num_axes > 8:
            raise _Damaged("a tensor has an impossible number of axes")
        shape = struct.unpack(f"<{num_axes}Q", stream.read(8 * num_axes))
        kind, offset = struct.unpack("<IQ", stream.read(12))
        try:
            quantization = GGMLQuantizationType(kind)
        except ValueError:
            raise ModelFileError(
                "Tensor {tensor} has GGUF type {kind}, which is not known here; choose another "
                "quantization of the model, for example Q8_0.",
                tensor=shown(tensor),
                kind=kind,
            ) from None
        if quantization.name not in DEQUANTIZABLE:
            raise ModelFileError(
                "Tensor {tensor} has GGUF type {kind}, which cannot be turned into floats; choose "
                "another quantization of the model, for example Q8_0.",
                tensor=shown(tensor),
                kind=quantization.name,
            )
        block, block_bytes = GGML_QUANT_SIZES[quantization]
        if not shape or 0 in shape or shape[0] % block:
            raise _Damaged("the tensor {name} has an impossible shape", name=shown(tensor))
        tensors[tensor] = (quantization.name, shape)
        offsets[tensor] = offset
        end = max(end, offset + math.prod(shape) // block * block_bytes)
    if not tensors:
        raise _Damaged("it holds no tensors")
    alignment = fields.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 1 <= alignment <= 1 << 20:
        raise _Damaged("its alignment is impossible")
    start = -(-stream.tell() // alignment) * alignment
    if start + end > size:
        raise _Damaged(
            "it should have {expected} bytes but has {size}", expected=start + end, size=size
        )
    return GgufHeader(fields, tensors, {name: start + at for name, at in offsets.items()})


def _check_whole_model(fields: Mapping[str, Any], file: str) -> None:
    """Refuse a part of a model, and what is no model at all."""
    count = fields.get("split.count", 1)
    if isinstance(count, int) and count > 1:
        part = fields.get("split.no", 0)
        number = part + 1 if isinstance(part, int) else part
        raise ModelFileError(
            "The GGUF file {file} is part {number} of {count}; join the parts first, with "
            "llama-gguf-split --merge.",
            file=file,
            number=number,
            count=count,
        )
    kind = fields.get("general.type", "model")
    if kind != "model":
        raise ModelFileError(
            "The GGUF file {file} holds no model (general.type is {kind}).",
            file=file,
            kind=shown(str(kind)),
        )


def _text(stream: IO[bytes]) -> str:
    (length,) = struct.unpack("<Q", stream.read(8))
    if length > MAX_GGUF_STRING:
        raise _Damaged("a text in its header is impossibly long")
    content = stream.read(length)
    if len(content) != length:
        raise _Damaged("it is cut off")
    return content.decode("utf-8", errors="replace")


def _value(stream: IO[bytes], kind: int) -> Any:
    if kind in _SCALARS:
        layout = "<" + _SCALARS[kind]
        (value,) = struct.unpack(layout, stream.read(struct.calcsize(layout)))
        return value
    if kind == _STRING:
        return _text(stream)
    if kind != _ARRAY:
        raise _Damaged("value type {kind} is not known", kind=kind)
    inner, count = struct.unpack("<IQ", stream.read(12))
    if count > MAX_GGUF_ARRAY:
        raise _Damaged("an array in its header is impossibly long")
    if inner in _SCALARS:
        layout = f"<{count}{_SCALARS[inner]}"
        content = stream.read(struct.calcsize(layout))
        if len(content) != struct.calcsize(layout):
            raise _Damaged("it is cut off")
        return list(struct.unpack(layout, content))
    if inner != _STRING:
        raise _Damaged("it holds an array of arrays")
    return [_text(stream) for _ in range(count)]
