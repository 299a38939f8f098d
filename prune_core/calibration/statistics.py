"""Statistics of every layer's inputs: one dense pass, block by block, without the output head."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.calibration.gradients import gather_gradients
from prune_core.calibration.hessian import Hessians, inverse_factor
from prune_core.calibration.stream import BlockStream
from prune_core.criteria import LayerStats
from prune_core.disk_cache import DiskCache
from prune_core.errors import ModelFileError
from prune_core.evaluation.scoring import run_window
from prune_core.models.clone import clone_shared
from prune_core.models.runner import TOKENS, BlockRunner
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress

_VERSION = 2


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
    """The last layer's input is known: its output, head and loss need not be."""


def gather_input_norms(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    *,
    progress: Progress = NONE,
) -> dict[str, Tensor]:
    """L2 norm of every input feature of every layer over all tokens of all windows.

    Args:
        model: a clone of the dense model, free to hang hooks on.
        structure: of the model.
        windows: (windows, seq_len) int64.
        progress: (windows done, windows); a cancel is seen between blocks.

    Returns:
        Layer name to (in,) float32 on the CPU. Summed in float64.

    Raises:
        ModelFileError: activations that are not finite; the layer is named.
        Cancelled: by ``progress``.
    """
    sums = {n: torch.zeros(x.in_features, dtype=torch.float64) for n, x in structure.layers.items()}
    last: list[tuple[Tensor, Tensor]] = []  # q, k and v are given one and the same tensor

    def hook(name: str) -> Callable[..., None]:
        def see(module: nn.Module, arguments: tuple[Any, ...]) -> None:
            progress.check("Cancelled while statistics were gathered.")
            inputs = arguments[0]
            if not last or last[0][0] is not inputs:
                flat = inputs.reshape(-1, inputs.shape[-1]).float()
                # a product with ones sums over tokens several times faster than a reduction
                squares = flat.new_ones(1, flat.shape[0]) @ (flat * flat)
                last[:] = [(inputs, squares[0].cpu().double())]
            sums[name] += last[0][1]

        return see

    def stop(module: nn.Module, arguments: Any) -> None:
        raise _LastInputSeenError

    handles = [model.get_submodule(n).register_forward_pre_hook(hook(n)) for n in structure.layers]
    end = model.get_submodule(structure.blocks[-1].layers[-1])
    handles.append(end.register_forward_pre_hook(stop))
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            count = 0
            for batch in windows.split(max(1, TOKENS // windows.shape[1])):
                with suppress(_LastInputSeenError):
                    run_window(model, structure, batch.to(device))
                count += len(batch)
                progress.step(count, len(windows))
    finally:
        for handle in handles:
            handle.remove()
    for name, total in sums.items():
        if not bool(torch.isfinite(total).all()):
            raise ModelFileError(
                "The inputs of the layer {name} are not finite on the calibration text; the "
                "model's weights hold NaN or Inf, or its dtype overflows.",
                name=name,
            )
    return {name: total.sqrt().float() for name, total in sums.items()}


def gather_obs_diagonals(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    *,
    progress: Progress = NONE,
) -> dict[str, Tensor]:
    """Diagonal of the upper Cholesky factor of each layer's damped inverse Hessian.

    One block at a time: only its Hessians are in memory, one for layers that read one input.

    Args:
        model: a clone of the dense model, its blocks' ``forward`` free to be wrapped.
        structure: of the model.
        windows: (windows, seq_len) int64.
        progress: (blocks done, blocks); a cancel is seen between batches.

    Returns:
        Layer name to (in,) float32 on the CPU.
    """
    stream = BlockStream(BlockRunner(model, structure), model, structure, windows, progress)
    diagonals: dict[str, Tensor] = {}
    for done, block in enumerate(structure.blocks):
        hessians = Hessians()
        stream.see(block, hessians.add)
        for names in hessians:
            upper, _, _ = inverse_factor(hessians.take(names))
            diagonals |= dict.fromkeys(names, upper.diagonal().clone())
        if done + 1 < len(structure.blocks):
            stream.run(block, keep=True)
        progress.step(done + 1, len(structure.blocks))
    return {name: diagonals[name] for name in structure.layers}


GRADIENTS = ("gradient_mean", "gradient_abs", "gradient_square")
CACHE = DiskCache("statistics", _VERSION, 4_000_000_000)


def statistics_of(
    model: nn.Module,
    structure: Structure,
    model_fingerprint: str,
    windows: Tensor,
    needs: frozenset[str],
    *,
    has_language_head: bool = True,
    folder: Path | None = None,
    progress: Progress = NONE,
) -> Statistics:
    """The statistics asked for, each from the cache on disk or gathered now.

    Args:
        model: dense; only read.
        structure: of the model.
        model_fingerprint: of the model.
        windows: (windows, seq_len) int64.
        needs: ``input_norm``, ``obs_diagonal`` or one of :data:`GRADIENTS`.
        has_language_head: see ``prune_core.calibration.gradients``.
        folder: of the cache; None for the usual one.
        progress: of the pass that runs; a cancel is seen between blocks.
    """
    digest = hashlib.sha256(f"{_VERSION} {model_fingerprint} {tuple(windows.shape)}".encode())
    digest.update(windows.numpy().tobytes())
    key = digest.hexdigest()[:24]
    fields: dict[str, dict[str, Tensor]] = {}
    for kind in sorted(needs):
        wide = kind in GRADIENTS
        sizes = [x.numel if wide else x.in_features for x in structure.layers.values()]
        record = CACHE.read(f"{key}.{kind}", mapped=True, folder=folder)
        if record is not None:
            flat = record.tensors["values"]
        else:
            clone = clone_shared(model)
            if kind == "input_norm":
                norms = gather_input_norms(clone, structure, windows, progress=progress)
                flat = torch.cat(list(norms.values()))
            elif kind == "obs_diagonal":
                diagonals = gather_obs_diagonals(clone, structure, windows, progress=progress)
                flat = torch.cat(list(diagonals.values()))
            else:
                flat = gather_gradients(
                    clone,
                    structure,
                    windows,
                    kind,
                    has_language_head=has_language_head,
                    progress=progress,
                )
            CACHE.write(f"{key}.{kind}", {"values": flat}, folder=folder)
        parts = flat.split(sizes)
        if wide:
            shaped = zip(structure.layers.values(), parts, strict=True)
            parts = tuple(p.view(x.out_features, x.in_features) for x, p in shaped)
        field = "gradient" if wide else kind
        fields[field] = dict(zip(structure.layers, parts, strict=True))
    layers = {
        name: LayerStats(**{field: values[name] for field, values in fields.items()})
        for name in structure.layers
    }
    return Statistics(key, layers, windows.shape[0], windows.shape[1])
