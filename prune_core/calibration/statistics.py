"""Statistics of every layer's inputs: one dense pass, block by block, without the output head."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from prune_core import faults
from prune_core.criteria import LayerStats
from prune_core.errors import Cancelled, ModelFileError
from prune_core.evaluation.scoring import run_window
from prune_core.models.structure import Structure
from prune_core.paths import cache_folder

_VERSION = 1


@dataclass(frozen=True)
class Statistics:
    """What one calibration text taught about every layer.

    Attributes:
        fingerprint: of model, tokens and version; part of every key of what follows from them.
        layers: layer name to its statistics.
        windows: how many there were.
        seq_len: tokens of each.
    """

    fingerprint: str
    layers: Mapping[str, LayerStats]
    windows: int
    seq_len: int


class _LastInputSeenError(Exception):
    """The last block has run: head and loss need not."""


def gather_input_norms(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    *,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> dict[str, Tensor]:
    """L2 norm of every input feature of every layer over all tokens of all windows.

    Args:
        model: a clone of the dense model, free to hang hooks on.
        structure: of the model.
        windows: (windows, seq_len) int64.
        progress: told (windows done, windows).
        cancelled: polled between blocks.

    Returns:
        Layer name to (in,) float32 on the CPU. Summed in float64.

    Raises:
        ModelFileError: activations that are not finite; the layer is named.
        Cancelled: by ``cancelled``.
    """
    sums = {n: torch.zeros(x.in_features, dtype=torch.float64) for n, x in structure.layers.items()}
    last: list[tuple[Tensor, Tensor]] = []  # q, k and v are given one and the same tensor

    def hook(name: str) -> Callable[..., None]:
        def see(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            if cancelled is not None and cancelled():
                raise Cancelled("Cancelled while statistics were gathered.")
            inputs = arguments[0]
            if not last or last[0][0] is not inputs:
                flat = inputs.reshape(-1, inputs.shape[-1]).float()
                squares = torch.linalg.vector_norm(flat, dim=0).double().square().cpu()
                last[:] = [(inputs, squares)]
            sums[name] += last[0][1]

        return see

    def stop(module: nn.Module, arguments: Any, output: Any) -> None:
        raise _LastInputSeenError

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n)) for n in structure.layers]
    end = model.get_submodule(structure.blocks[-1].module)
    handles.append(end.register_forward_hook(stop))
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            for count, row in enumerate(windows, start=1):
                with suppress(_LastInputSeenError):
                    run_window(model, structure, row[None].to(device))
                if progress is not None:
                    progress(count, len(windows))
    finally:
        for handle in handles:
            handle.remove()
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise ModelFileError(
                f"The inputs of the layer {name} are not finite on the calibration text; "
                "the model's weights hold NaN or Inf, or its dtype overflows."
            )
    return {name: total.sqrt().float() for name, total in sums.items()}


def input_statistics(
    model: nn.Module,
    structure: Structure,
    model_fingerprint: str,
    windows: Tensor,
    *,
    folder: Path | None = None,
    progress: Callable[[int, int], None] | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Statistics:
    """Input norms from the cache on disk, or gathered now; see :func:`gather_input_norms`."""
    digest = hashlib.sha256(f"{_VERSION} {model_fingerprint} {tuple(windows.shape)}".encode())
    digest.update(windows.numpy().tobytes())
    key = digest.hexdigest()[:24]
    path = (folder or cache_folder("statistics")) / f"{key}.npy"
    norms = _read(path, structure)
    if norms is None:
        norms = gather_input_norms(
            model, structure, windows, progress=progress, cancelled=cancelled
        )
        _write(path, norms)
    layers = {name: LayerStats(input_norm=norm) for name, norm in norms.items()}
    return Statistics(key, layers, windows.shape[0], windows.shape[1])


def _read(path: Path, structure: Structure) -> dict[str, Tensor] | None:
    """What was written, or None if there is nothing or it is damaged."""
    widths = [layer.in_features for layer in structure.layers.values()]
    try:
        flat = torch.from_numpy(np.load(path, allow_pickle=False))
    except (OSError, ValueError, EOFError):
        return None
    if flat.dtype != torch.float32 or flat.shape != (sum(widths),):
        return None
    return dict(zip(structure.layers, flat.split(widths), strict=True))


def _write(path: Path, norms: Mapping[str, Tensor]) -> None:
    """Under another name first, then in place; a full disk costs the cache, not the result."""
    temporary = path.with_name(f".tmp-{uuid.uuid4().hex}.npy")
    try:
        faults.point("statistics.before_write")
        np.save(temporary, np.concatenate([norm.numpy() for norm in norms.values()]))
        temporary.replace(path)
    except OSError:
        return
    finally:
        temporary.unlink(missing_ok=True)
