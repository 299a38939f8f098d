"""GGUF to a safetensors folder, once: the GGUF takes many seconds to read, the folder about one."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prune_core.assets.cache import CANCELLED, make_temporary, sweep_temporary, sync_folder
from prune_core.errors import ModelFileError, UnknownArchitectureError
from prune_core.faults import point
from prune_core.models.checks import check_config
from prune_core.models.fingerprint import file_sha256
from prune_core.models.headers import GgufHeader, read_gguf_header
from prune_core.models.sources import shown
from prune_core.paths import cache_folder
from prune_core.progress import NONE, Progress

CONVERTER_VERSION = 1
RECORD = "prunescope.record"  # no .json: it is no part of the model and of its fingerprint
WEIGHTS = "model.safetensors"


def converted_record(gguf_sha256: str) -> dict[str, Any] | None:
    """What is known of a finished conversion: ``quantized``, ``license``, ``title``; or None.

    The weights are compared with the hash they had when they were written (remembered as long as
    the file is not touched).
    """
    folder = converted_path(gguf_sha256)
    try:
        record: dict[str, Any] = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        whole = record["converter"] == CONVERTER_VERSION and (
            file_sha256(folder / WEIGHTS) == record["weights_sha256"]
        )
    except (OSError, ValueError, KeyError, TypeError, ModelFileError):
        return None
    return record if whole else None


def converted_path(gguf_sha256: str) -> Path:
    """The folder that a GGUF file with this hash is converted to."""
    return cache_folder("models") / gguf_sha256


def convert_gguf(
    path: Path,
    gguf_sha256: str,
    *,
    progress: Progress = NONE,
) -> Path:
    """Turn a GGUF file into a safetensors folder in the cache, unless that has been done.

    Every weight equals the GGUF's value as float32, bit for bit. The folder appears whole, by a
    rename, or not at all.

    Args:
        path: the file.
        gguf_sha256: its hash; names the folder.
        progress: stage ``convert`` in steps (tensors); a cancel is seen between tensors.

    Returns:
        The folder: config, generation config, weights, tokenizer, chat template.

    Raises:
        ModelFileError: the file is damaged, lacks tensors, or the disk is full.
        UnknownArchitectureError: GGUF of an architecture that is not supported.
        Cancelled: by ``progress``.
    """
    final = converted_path(gguf_sha256)
    if converted_record(gguf_sha256) is not None:
        return final
    header = read_gguf_header(path)
    root, key = final.parent, gguf_sha256[:16]
    try:
        with _lock(root / f"{key}.lock", progress):
            if converted_record(gguf_sha256) is not None:
                return final
            sweep_temporary(root, key)
            temporary = make_temporary(root, key)
            try:
                _write(path, header, temporary, progress)
                point("convert.before_replace")
                shutil.rmtree(final, ignore_errors=True)
                temporary.replace(final)
                sync_folder(root)
            finally:
                shutil.rmtree(temporary, ignore_errors=True)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        reason = "the disk is full" if full else str(error.strerror or error)
        raise ModelFileError(
            f"{shown(path.name)} could not be converted into the cache folder ({reason}); free "
            "some space or set PRUNE_CACHE_DIR to another disk."
        ) from error
    return final


@contextlib.contextmanager
def _lock(path: Path, progress: Progress) -> Iterator[None]:
    lock = FileLock(path)
    while True:
        progress.check(CANCELLED)
        with contextlib.suppress(Timeout):
            lock.acquire(timeout=0.25)
            break
    try:
        yield
    finally:
        lock.release()


def _write(
    path: Path,
    header: GgufHeader,
    folder: Path,
    progress: Progress,
) -> None:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoTokenizer, GenerationConfig

    from prune_core.models.reading import model_class, quiet

    steps = len(header.tensors) + 2
    converting = progress.stage("convert", steps, unit="steps")
    place = {"gguf_file": path.name, "local_files_only": True, "trust_remote_code": False}

    def step(done: int) -> None:
        progress.check(CANCELLED)
        converting.step(done)

    step(0)
    with quiet():
        try:
            config = AutoConfig.from_pretrained(path.parent, **place)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise UnknownArchitectureError(
                f"GGUF files of architecture {shown(header.architecture)} are not supported."
            ) from error
        check_config(config.to_dict())
        step(1)
        # on the meta device nothing is allocated: only names and shapes are wanted
        with torch.device("meta"):
            model = model_class(config.model_type, ()).from_config(config, dtype=torch.float32)
        tensors = _float_tensors(path, model, step)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        AutoTokenizer.from_pretrained(path.parent, **place).save_pretrained(folder)
        _drop_invented_tokens(folder, model.get_input_embeddings().weight.shape[0])
    weights = folder / WEIGHTS
    try:
        save_file(tensors, weights, metadata={"format": "pt"})
    except SafetensorError as error:  # it hides the errno; with good tensors only the disk is left
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
    with weights.open("rb+") as stream:
        os.fsync(stream.fileno())
    record = {
        "converter": CONVERTER_VERSION,
        "quantized": header.quantization,
        "license": str(header.fields.get("general.license", "")),
        "title": str(header.fields.get("general.name", "")),
        "weights_sha256": file_sha256(weights, progress=progress),
    }
    (folder / RECORD).write_text(json.dumps(record), encoding="utf-8")
    step(steps)


def _drop_invented_tokens(folder: Path, rows: int) -> None:
    """Take out special tokens that transformers' GGUF reader adds behind the vocabulary.

    Where a GGUF names no unknown or padding token it makes one up; it has no row in the embedding.
    """
    path = folder / "tokenizer.json"
    if not path.is_file():
        return
    content = json.loads(path.read_text(encoding="utf-8"))
    invented = {t["content"] for t in content.get("added_tokens", ()) if t["id"] >= rows}
    if not invented:
        return
    content["added_tokens"] = [t for t in content["added_tokens"] if t["id"] < rows]
    path.write_text(json.dumps(content, ensure_ascii=False), encoding="utf-8")
    path = folder / "tokenizer_config.json"
    fields = json.loads(path.read_text(encoding="utf-8"))
    kept = {k: v for k, v in fields.items() if not (isinstance(v, str) and v in invented)}
    path.write_text(json.dumps(kept, ensure_ascii=False), encoding="utf-8")


def _float_tensors(path: Path, model: Any, step: Any) -> dict[str, Any]:
    """All weights by transformers' names, dequantized; checked to be all that the model has."""
    import numpy as np
    import torch
    from gguf import GGUFReader, dequantize
    from transformers.modeling_gguf_pytorch_utils import (
        TENSOR_PROCESSORS,
        TensorProcessor,
        get_gguf_hf_weights_map,
        read_field,
    )

    reader = GGUFReader(path)
    architecture = read_field(reader, "general.architecture")[0]
    processor = TENSOR_PROCESSORS.get(architecture, TensorProcessor)(config=model.config.to_dict())
    names = get_gguf_hf_weights_map(model, processor)
    found: dict[str, Any] = {}
    for index, tensor in enumerate(reader.tensors):
        step(index + 1)
        values = processor.process(
            weights=dequantize(tensor.data, tensor.tensor_type),
            name=tensor.name,
            tensor_key_mapping=names,
            parsed_parameters={"tensors": found},
        )
        if values.name in names:
            copied = np.ascontiguousarray(values.weights, dtype=np.float32)
            found[names[values.name]] = torch.from_numpy(np.array(copied))
    expected = model.state_dict()
    tied = set(getattr(model, "all_tied_weights_keys", None) or ())
    missing = sorted(set(expected) - set(found) - tied)
    if missing:
        raise ModelFileError(
            f"The GGUF file {shown(path.name)} lacks {len(missing)} tensors of its architecture: "
            f"{shown(', '.join(missing), 200)}."
        )
    for name, tensor in found.items():
        if name in expected and tensor.shape != expected[name].shape:
            raise ModelFileError(
                f"Tensor {name} in {shown(path.name)} has shape {tuple(tensor.shape)} where the "
                f"architecture needs {tuple(expected[name].shape)}."
            )
    return found
