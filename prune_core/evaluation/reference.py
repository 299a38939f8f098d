"""The dense model's answers to a set of windows: measured once, kept on disk."""

from __future__ import annotations

import hashlib
import os
import uuid
import zipfile
from functools import cache
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from prune_core.evaluation.scoring import TOP_K, DenseWindow, dense_window
from prune_core.models.structure import Structure
from prune_core.paths import cache_folder, trim_folder

_VERSION = 1

DISK_BUDGET = 2_000_000_000
"""About 500 windows of 512 tokens; the least recently written go first."""


@cache
def transformers_version() -> str:
    """Of the library whose modeling files answer."""
    return version("transformers")


def windows_fingerprint(windows: list[Tensor]) -> str:
    """Hash of the tokens of all windows, in order."""
    digest = hashlib.sha256()
    for tokens in windows:
        digest.update(len(tokens).to_bytes(8, "little"))
        digest.update(tokens.numpy().astype("<i8").tobytes())
    return digest.hexdigest()[:24]


def window_fingerprint(tokens: Tensor) -> str:
    """Hash of one window's tokens."""
    return windows_fingerprint([tokens])


class DenseReference:
    """Finds or measures the dense model's answer to a window.

    Args:
        model: a clone of the dense model, this object's own.
        structure: of the model.
        fingerprint: of the model.
        has_language_head: False measures embeddings.
    """

    def __init__(
        self, model: nn.Module, structure: Structure, fingerprint: str, has_language_head: bool
    ) -> None:
        self.model = model
        self.structure = structure
        self.fingerprint = fingerprint
        self.has_language_head = has_language_head
        self._kept: dict[str, DenseWindow] = {}

    def find(self, tokens: Tensor) -> DenseWindow | None:
        """The answer if it is known, in memory or on disk."""
        key = window_fingerprint(tokens)
        if key not in self._kept:
            path = self._path(key)
            read = _read(path) if path.is_file() else None
            if read is None:
                return None
            self._keep(key, read)
        return self._kept[key]

    def measure(self, tokens: Tensor) -> DenseWindow:
        """Measure one window (seq,) and remember it."""
        device = next(self.model.parameters()).device
        answer = dense_window(
            self.model,
            self.structure,
            tokens[None].to(device),
            has_language_head=self.has_language_head,
        )
        key = window_fingerprint(tokens)
        self._keep(key, answer)
        _write(self._path(key), answer)
        return answer

    def _keep(self, key: str, answer: DenseWindow) -> None:
        while len(self._kept) >= 96:  # about 400 MB at 512 tokens a window
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = answer

    def _path(self, key: str) -> Path:
        kept = f"{self.structure.classes}-classes" if self.structure.classes else str(TOP_K)
        # another device or version of torch rounds otherwise: the dense model would differ from
        # itself
        device = next(self.model.parameters()).device.type
        versions = f"{device}-{torch.__version__}-{transformers_version()}"
        place = hashlib.sha256(versions.encode()).hexdigest()[:8]
        name = f"{self.fingerprint[:24]}-{key}-{kept}-{place}-{_VERSION}.npz"
        return cache_folder("dense") / name


def _read(path: Path) -> DenseWindow | None:
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return DenseWindow(
                torch.from_numpy(arrays["losses"]),
                torch.from_numpy(arrays["top1"]),
                torch.from_numpy(arrays["top_ids"].astype(np.int64)),
                torch.from_numpy(arrays["top_logp"]),
                torch.from_numpy(arrays["embedding"]),
            )
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None  # damaged: measured again and overwritten


def _write(path: Path, answer: DenseWindow) -> None:
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as file:
            np.savez(
                file,
                losses=answer.losses.numpy(),
                top1=answer.top1.numpy(),
                top_ids=answer.top_ids.numpy().astype(np.int32),
                top_logp=answer.top_logp.numpy(),
                embedding=answer.embedding.numpy(),
            )
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        trim_folder(path.parent, DISK_BUDGET)
    except OSError:
        return  # a cache: without it the window is measured again
    finally:
        temporary.unlink(missing_ok=True)
