"""Edits: weights computed for one recipe, kept on disk and mapped back."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from prune_core import faults
from prune_core.paths import trim_folder

DISK_BUDGET = 4_000_000_000
"""Bytes of edited weights kept on disk; the least recently made go first."""


@dataclass(frozen=True)
class Edits:
    """New weights of some layers.

    Attributes:
        fingerprint: of everything they follow from.
        weights: layer name to weights, (out, in) in the model's dtype.
        bits: layer name to the mask, ``numpy.packbits`` of (out, in), 1 keeps.
        removed: layer name to the number of removed weights.
        damped: layers whose Hessian was singular and needed more damping than 1 %.
    """

    fingerprint: str
    weights: Mapping[str, Tensor]
    bits: Mapping[str, Tensor]
    removed: Mapping[str, int]
    damped: tuple[str, ...] = ()

    def mask(self, name: str, shape: tuple[int, int]) -> Tensor:
        """The mask of one layer: bool (out, in), True keeps."""
        flat = np.unpackbits(self.bits[name].numpy(), count=shape[0] * shape[1])
        return torch.from_numpy(flat).bool().view(shape)


def pack(mask: Tensor) -> Tensor:
    """A bool mask as packed bits."""
    return torch.from_numpy(np.packbits(mask.cpu().numpy().reshape(-1)))


def write_edits(folder: Path, edits: Edits) -> None:
    """Under another name first, then in place; a full disk costs the cache, not the result."""
    temporary = folder / f".tmp-{uuid.uuid4().hex}"
    tensors = {f"w {n}": w.contiguous() for n, w in edits.weights.items()}
    tensors |= {f"m {n}": b for n, b in edits.bits.items()}
    about = {"removed": json.dumps(dict(edits.removed)), "damped": json.dumps(edits.damped)}
    try:
        faults.point("edits.before_write")
        save_file(tensors, temporary, about)
        temporary.replace(folder / f"{edits.fingerprint}.safetensors")
        trim_folder(folder, DISK_BUDGET)
    except (OSError, SafetensorError):
        return
    finally:
        temporary.unlink(missing_ok=True)


def read_edits(folder: Path, fingerprint: str) -> Edits | None:
    """What was written, or None if there is nothing or it is damaged."""
    path = folder / f"{fingerprint}.safetensors"
    try:
        with safe_open(path, "pt") as file:
            about = file.metadata()
            names = list(file.keys())
            weights = {n[2:]: file.get_tensor(n) for n in names if n.startswith("w ")}
            bits = {n[2:]: file.get_tensor(n) for n in names if n.startswith("m ")}
        return Edits(
            fingerprint,
            weights,
            bits,
            json.loads(about["removed"]),
            tuple(json.loads(about["damped"])),
        )
    except (OSError, SafetensorError, KeyError, ValueError, TypeError):
        return None
