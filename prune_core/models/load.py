"""Load a model: fetch, convert, check, read, check again. Refuses what it cannot vouch for."""

from __future__ import annotations

import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from prune_core.assets.cache import CANCELLED
from prune_core.assets.fetch import fetch_asset
from prune_core.assets.manifest import Asset, project_manifest
from prune_core.errors import SourceError
from prune_core.models.checks import (
    INDEX_NAME,
    check_contained,
    check_tokenizer_files,
    merged_header,
    parameter_count,
    read_config,
    weight_files,
)
from prune_core.models.convert import convert_gguf, converted_path, converted_record
from prune_core.models.fingerprint import file_sha256, folder_fingerprint
from prune_core.models.headers import read_gguf_header
from prune_core.models.hub import hub_folder
from prune_core.models.memory import DTYPE_BYTES, guard_memory
from prune_core.models.reading import (
    begins_with_mark,
    check_finite,
    check_vocabulary,
    read_model,
    read_tokenizer,
)
from prune_core.models.sources import (
    TINY_TITLES,
    GgufFile,
    HubId,
    LocalFolder,
    Preset,
    Source,
    parse_source,
    shown,
)
from prune_core.models.stored import Stored, understand
from prune_core.progress import NONE, Progress
from prune_core.sentences import Sentence, unpacked

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from prune_core.models.handle import ModelHandle


@dataclass(frozen=True, slots=True)
class _Origin:
    """Where a folder came from, and what is shown of that."""

    folder: Path
    title: str
    quantized: str | None = None
    license: str = ""
    provenance: str = ""
    warnings: tuple[str, ...] = ()
    converted: bool = False  # written by convert.py
    contained: bool = True  # links inside must stay inside: not so in the hub's own cache


def load_model(
    source: Source | str,
    *,
    dtype: str = "float32",
    device: str = "cpu",
    progress: Progress = NONE,
) -> ModelHandle:
    """Fetch if needed, check and load a model in evaluation mode, without gradients.

    Args:
        source: as :func:`prune_core.models.sources.parse_source` reads it.
        dtype: ``float32``, ``bfloat16`` or ``float16``.
        device: a torch device.
        progress: stages ``fetch``, ``verify``, ``convert``, ``load``, ``check``, each with its
            ``unit``; a cancel is seen during fetch and conversion and between steps.

    Raises:
        SourceError: no such model, or not allowed.
        AssetError: a preset could not be fetched.
        ModelFileError: files missing, damaged or refused; tensors missing, misshapen, not finite.
        UnknownArchitectureError: a layout that is not known in full.
        MemoryGuardError: it would not fit.
        Cancelled: by ``progress``.
    """
    from prune_core.models.handle import build_handle

    started = time.perf_counter()
    if dtype not in DTYPE_BYTES:
        raise SourceError(
            "dtype must be {known:list}, got {dtype}.", known=DTYPE_BYTES, dtype=shown(dtype)
        )
    parsed = parse_source(source) if isinstance(source, str) else source
    if isinstance(parsed, Preset) and parsed.name in TINY_TITLES:
        return _load_tiny(parsed, dtype, device, started)
    origin = _locate(parsed, dtype, progress)
    config, stored, warnings = _check_folder(origin, dtype)
    warnings = (*origin.warnings, *warnings)
    if not origin.license:
        warnings = (
            *warnings,
            Sentence("The model's license is not known here; check it before sharing."),
        )
    fingerprint = folder_fingerprint(origin.folder, dtype, progress=progress)
    if not stored.is_plain:  # caches may hold what an older version made of the raw numbers
        fingerprint = hashlib.sha256(f"{fingerprint} stored 1\n".encode()).hexdigest()
    progress.check(CANCELLED)
    progress.stage("load", unit="steps").step(0, 1)
    model, unexpected = read_model(origin.folder, config, stored, dtype)
    tokenizer = read_tokenizer(origin.folder, config, exact=origin.converted)
    if unexpected:
        warnings = (
            *warnings,
            Sentence(
                "{count} tensors of the file are not part of the model and were left out: {names}.",
                count=len(unexpected),
                names=shown(", ".join(unexpected), 200),
            ),
        )
    progress.check(CANCELLED)
    checking = progress.stage("check", 1, unit="steps")
    checking.step(0)
    check_finite(model)
    warnings = (*warnings, *check_vocabulary(model, tokenizer))
    model.eval().requires_grad_(False)
    checking.step(1)
    model = _to_device(model, device)
    return build_handle(
        model,
        tokenizer,
        source=parsed.text,
        title=origin.title,
        fingerprint=fingerprint,
        quantized=origin.quantized or stored.quantized,
        license=origin.license,
        provenance=origin.provenance,
        warnings=warnings,
        load_seconds=time.perf_counter() - started,
    )


def _load_tiny(source: Preset, dtype: str, device: str, started: float) -> ModelHandle:
    from prune_core.models.handle import build_handle
    from prune_core.models.tiny import TINY

    model, tokenizer = TINY[source.name]()
    checkpoint_names = model.state_dict().keys()
    for name, tensor in (*model.named_parameters(), *model.named_buffers()):
        # what no checkpoint holds stays as it is: rotary frequencies are float32
        if name in checkpoint_names:
            tensor.data = tensor.data.to(getattr(torch, dtype))
    model = _to_device(model.eval().requires_grad_(False), device)
    digest = hashlib.sha256(f"{source.name} {dtype}\n".encode())
    for name, tensor in sorted(model.state_dict().items()):
        values = tensor.detach().cpu().float().contiguous().numpy()
        digest.update(f"{name} {tuple(values.shape)}\n".encode() + values.tobytes())
    return build_handle(
        model,
        tokenizer,
        source=source.text,
        title=TINY_TITLES[source.name],
        fingerprint=digest.hexdigest(),
        quantized=None,
        license="Apache-2.0",
        provenance="Random weights, made on the spot by this project.",
        warnings=(),
        load_seconds=time.perf_counter() - started,
    )


def _to_device(model: PreTrainedModel, device: str) -> PreTrainedModel:
    try:
        return model.to(device)
    except (RuntimeError, AssertionError) as error:
        raise SourceError(
            "Device {device} cannot be used here; use cpu.", device=shown(device)
        ) from error


def _locate(source: Source, dtype: str, progress: Progress) -> _Origin:
    if isinstance(source, Preset):
        return _preset(project_manifest()[source.name], dtype, progress)
    if isinstance(source, HubId):
        folder = hub_folder(source, progress=progress)
        return _Origin(
            folder,
            source.repo,
            provenance=f"https://huggingface.co/{source.repo}",
            contained=False,
        )
    if isinstance(source, LocalFolder):
        return _Origin(source.path, source.path.name, provenance="A folder on this machine.")
    return _gguf(source, dtype, progress)


def _preset(asset: Asset, dtype: str, progress: Progress) -> _Origin:
    quantized, converted = None, asset.format == "gguf"
    if converted:
        sha256 = asset.members[0].sha256
        record = converted_record(sha256)
        if record is None:
            path = fetch_asset(asset.name, progress=progress)
            _guard_gguf(path, asset.title, dtype)
            convert_gguf(path, sha256, progress=progress)
            record = converted_record(sha256) or {}
        folder, quantized = converted_path(sha256), record.get("quantized")
    else:
        folder = fetch_asset(asset.name, progress=progress)
    details = (asset.title, quantized, asset.license, asset.provenance)
    return _Origin(folder, *details, converted=converted)


def _gguf(source: GgufFile, dtype: str, progress: Progress) -> _Origin:
    _guard_gguf(source.path, source.path.name, dtype)
    sha256 = file_sha256(source.path, progress=progress)
    folder = convert_gguf(source.path, sha256, progress=progress)
    record = converted_record(sha256) or {}
    return _Origin(
        folder,
        source.path.name,
        record.get("quantized"),
        shown(record.get("license", "")),
        "A GGUF file on this machine.",
        tuple(map(unpacked, record.get("warnings", ()))),
        converted=True,
    )


def _guard_gguf(path: Path, title: str, dtype: str) -> None:
    header = read_gguf_header(path)
    vocabulary = header.fields.get("tokenizer.ggml.tokens", ())
    guard_memory(
        title,
        header.parameters,
        dtype=dtype,
        vocabulary=len(vocabulary) if isinstance(vocabulary, list) else 0,
        converting=True,
    )


def _check_folder(origin: _Origin, dtype: str) -> tuple[dict[str, Any], Stored, tuple[str, ...]]:
    """Configuration, weights and warnings of a folder that may be loaded."""
    folder = origin.folder
    if origin.contained:
        check_contained(folder)
    config, warnings = read_config(folder)
    files, standard = weight_files(folder)
    header = merged_header(files)
    if standard and begins_with_mark(folder / INDEX_NAME):
        standard = False  # transformers reads its index strictly
    if standard and (folder / "adapter_config.json").is_file():
        standard = False  # where peft is installed, transformers would put the adapter in
        warnings = (*warnings, Sentence("An adapter lies beside the model; it is left out."))
    stored = understand(header, files, config, standard=standard)
    check_tokenizer_files(folder)
    vocabulary = config.get("vocab_size") or 0
    guard_memory(origin.title, parameter_count(header), dtype=dtype, vocabulary=vocabulary)
    return config, stored, (*warnings, *stored.warnings)
