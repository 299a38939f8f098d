"""GGUF to a safetensors folder, once: the GGUF takes many seconds to read, the folder about one."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from prune_core.assets.cache import (
    CANCELLED,
    hash_file,
    make_temporary,
    sweep_temporary,
    sync_folder,
)
from prune_core.errors import ModelFileError, PruneCoreError
from prune_core.faults import point
from prune_core.models.checks import check_config
from prune_core.models.fingerprint import file_sha256
from prune_core.models.headers import GgufHeader, read_gguf_header
from prune_core.models.sources import shown
from prune_core.paths import cache_root
from prune_core.progress import NONE, Progress
from prune_core.sentences import Sentence, packed

CONVERTER_VERSION = 3
RECORD = "prunescope.record"  # no .json: it is no part of the model and of its fingerprint
WEIGHTS = "model.safetensors"


def converted_record(gguf_sha256: str) -> dict[str, Any] | None:
    """What is known of a finished conversion, or None.

    Keys: ``quantized``, ``license``, ``title`` and ``warnings``.

    The record and every file of the model are compared with the hashes they had when they were
    written (a file's is remembered as long as the file is not touched).
    """
    folder = converted_path(gguf_sha256)
    try:
        signed = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        record: dict[str, Any] = signed["record"]
        whole = (
            record["converter"] == CONVERTER_VERSION
            and _digest(record) == signed["digest"]
            and all(file_sha256(folder / name) == sha for name, sha in record["files"].items())
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError, ModelFileError):
        return None
    return record if whole else None


def _digest(record: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()


def converted_path(gguf_sha256: str) -> Path:
    """The folder that a GGUF file with this hash is converted to."""
    return cache_root() / "models" / gguf_sha256


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
        ModelFileError: the file is damaged, lacks tensors, holds a field or a tensor that is not
            known here, or the disk is full.
        UnknownArchitectureError: GGUF of an architecture that is not supported.
        Cancelled: by ``progress``.
    """
    final = converted_path(gguf_sha256)
    if converted_record(gguf_sha256) is not None:
        return final
    header = read_gguf_header(path)
    root, key = final.parent, gguf_sha256[:16]
    try:
        root.mkdir(parents=True, exist_ok=True, mode=0o700)
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
        reason = Sentence("the disk is full") if full else str(error.strerror or error)
        raise ModelFileError(
            "{name} could not be converted into the cache folder ({reason}); free some space or "
            "set PRUNE_CACHE_DIR to another disk.",
            name=shown(path.name),
            reason=reason,
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
    from transformers import AutoConfig, GenerationConfig

    from prune_core.models.gguf_config import gguf_config
    from prune_core.models.gguf_fields import ROPE_TENSORS, GgufFields
    from prune_core.models.gguf_tensors import read_tensor, read_tensors, tensor_names
    from prune_core.models.gguf_tokenizer import gguf_tokenizer
    from prune_core.models.reading import model_class, quiet

    steps = len(header.tensors) + 2
    converting = progress.stage("convert", steps, unit="steps")

    def step(done: int) -> None:
        progress.check(CANCELLED)
        converting.step(done)

    step(0)
    with quiet():
        fields = GgufFields(path.name, header)
        factors = {
            name: [float(value) for value in read_tensor(path, header, name).ravel()]
            for name in ROPE_TENSORS
            if name in header.tensors
        }
        values = gguf_config(fields, header, factors)
        check_config(values)
        tensor_names(header, path.name)  # what has no place is said before what is missing
        rows = values["vocab_size"]
        try:
            tokenizer, warnings = gguf_tokenizer(fields, header.architecture, rows)
            fields.check_all_read(header.architecture)
            config = AutoConfig.for_model(**values)
        except PruneCoreError:
            raise
        except Exception as error:  # of tokenizers and transformers, in words of their own
            reason = shown((str(error).strip() or type(error).__name__).splitlines()[0], 160)
            raise ModelFileError(
                "The fields of the GGUF file {name} do not go together ({reason}).",
                name=shown(path.name),
                reason=reason.rstrip("."),
            ) from error
        # on the meta device nothing is allocated: only names and shapes are wanted
        with torch.device("meta"):
            model = model_class(config.model_type, ()).from_config(config, dtype=torch.float32)
        tensors = read_tensors(path, header, model, values, step)
        config.architectures = [type(model).__name__]
        config.save_pretrained(folder)
        GenerationConfig.from_model_config(config).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
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
        "warnings": [packed(warning) for warning in warnings],
        "files": {
            file.relative_to(folder).as_posix(): hash_file(
                file, progress=progress if file == weights else progress.silent()
            )
            for file in sorted(folder.rglob("*"))
            if file.is_file()
        },
    }
    signed = {"record": record, "digest": _digest(record)}
    (folder / RECORD).write_text(json.dumps(signed), encoding="utf-8")
    step(steps)
