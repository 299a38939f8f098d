"""The dense model's answers to a set of windows: measured once, kept on disk."""

from __future__ import annotations

import hashlib
from dataclasses import fields
from functools import cache
from importlib.metadata import version

import torch
from torch import Tensor, nn

from prune_core.disk_cache import DiskCache
from prune_core.evaluation.scoring import TOP_K, DenseWindow, dense_window
from prune_core.models.structure import Structure

CACHE = DiskCache("dense", 1, 2_000_000_000)
"""About 500 windows of 512 tokens."""


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
            record = CACHE.read(self._name(key))
            if record is None:
                return None
            tensors = dict(record.tensors)
            self._keep(key, DenseWindow(**tensors | {"top_ids": tensors["top_ids"].long()}))
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
        tensors = {x.name: getattr(answer, x.name) for x in fields(answer)}
        CACHE.write(self._name(key), tensors | {"top_ids": answer.top_ids.int()})
        return answer

    def _keep(self, key: str, answer: DenseWindow) -> None:
        while len(self._kept) >= 96:  # about 400 MB at 512 tokens a window
            self._kept.pop(next(iter(self._kept)))
        self._kept[key] = answer

    def _name(self, key: str) -> str:
        top = f"{self.structure.classes}-classes" if self.structure.classes else str(TOP_K)
        # another device or version of torch rounds otherwise: the dense model would differ from
        # itself
        device = next(self.model.parameters()).device.type
        versions = f"{device}-{torch.__version__}-{transformers_version()}"
        place = hashlib.sha256(versions.encode()).hexdigest()[:8]
        return f"{self.fingerprint[:24]}-{key}-{top}-{place}"
