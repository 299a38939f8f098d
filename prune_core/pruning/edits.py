"""Edits: weights computed for one recipe, kept on disk and mapped back."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from prune_core.disk_cache import DiskCache, Record

CACHE = DiskCache("edits", 1, 4_000_000_000)


@dataclass(frozen=True)
class Edits:
    """New weights of some layers.

    Attributes:
        fingerprint: of everything they follow from.
        weights: layer name to weights, (out, in) in the model's dtype.
        bits: layer name to the mask, ``numpy.packbits`` of (out, in), 1 keeps.
        removed: layer name to the number of removed weights.
        damped: layers whose Hessian was singular and needed more damping than 1 %.
        record: the file that weights and bits are mapped from; None if they are in memory.
    """

    fingerprint: str
    weights: Mapping[str, Tensor]
    bits: Mapping[str, Tensor]
    removed: Mapping[str, int]
    damped: tuple[str, ...] = ()
    record: Record | None = field(default=None, repr=False, compare=False)

    def intact(self) -> bool:
        """Whether weights and bits are still what was computed; see ``Record.intact``."""
        return self.record is None or self.record.intact()

    def mask(self, name: str, shape: tuple[int, int]) -> Tensor:
        """The mask of one layer: bool (out, in), True keeps."""
        flat = np.unpackbits(self.bits[name].numpy(), count=shape[0] * shape[1])
        return torch.from_numpy(flat).bool().view(shape)


def pack(mask: Tensor) -> Tensor:
    """A bool mask as packed bits."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def write_edits(edits: Edits, *, folder: Path | None = None) -> None:
    """Keep edits under their fingerprint.

    Args:
        edits: what was computed.
        folder: of the cache; None for the usual one.
    """
    tensors = {f"w {name}": weight for name, weight in edits.weights.items()}
    tensors |= {f"m {name}": bits for name, bits in edits.bits.items()}
    about = {"removed": dict(edits.removed), "damped": list(edits.damped)}
    CACHE.write(edits.fingerprint, tensors, about, folder=folder)


def read_edits(fingerprint: str, *, folder: Path | None = None) -> Edits | None:
    """What was written, or None if there is nothing or it is damaged.

    Args:
        fingerprint: of the edits.
        folder: of the cache; None for the usual one.
    """
    record = CACHE.read(fingerprint, mapped=True, folder=folder)
    if record is None:
        return None
    tensors, about = record.tensors, record.about
    weights = {name[2:]: tensors[name] for name in tensors if name.startswith("w ")}
    bits = {name[2:]: tensors[name] for name in tensors if name.startswith("m ")}
    return Edits(fingerprint, weights, bits, about["removed"], tuple(about["damped"]), record)
