"""How much intermediate neurons do on a text: all statistics in one dense pass, kept on disk.

A neuron's activation a is its input to ``mlp.down``; it writes a times its column of ``down``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.disk_cache import DiskCache
from prune_core.errors import ModelFileError, RecipeError
from prune_core.evaluation.scoring import run_window
from prune_core.models.clone import clone_shared
from prune_core.models.runner import TOKENS
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress
from prune_core.recipes.parts import NEURON_METHODS as NEURON_METHODS

RARE = 0.01
"""A neuron that fires on a smaller share of tokens than this is rare."""

ALIASES = {"activation": "mean-activation"}
"""Older names of methods."""

_ROWS = ("absolute", "mean", "variance", "firing", "open")
_VERSION = 1
CACHE = DiskCache("neurons", _VERSION, 200_000_000)


class _LastSeenError(Exception):
    """The last MLP's activations are known: the rest of the model need not run."""


@dataclass(frozen=True)
class NeuronStatistics:
    """What a text taught about every intermediate neuron.

    Attributes:
        fingerprint: of model, tokens and version.
        tokens: how many were read (in an encoder-decoder each stack reads its half).
        blocks: flat indices of the blocks that have an MLP.
        values: by block (rows x neurons) float64: mean of |a|, mean of a, variance of a, share of
            tokens with a > 0, share of tokens with an open gate (a gated MLP's gate before its
            activation function above 0; without a gate the same as a > 0).
        norms: by block, L2 norm of each neuron's column of ``mlp.down``.
    """

    fingerprint: str
    tokens: int
    blocks: tuple[int, ...]
    values: Mapping[int, Tensor]
    norms: Mapping[int, Tensor]

    def row(self, name: str) -> dict[int, Tensor]:
        """One statistic by block: ``absolute``, ``mean``, ``variance``, ``firing`` or ``open``."""
        place = _ROWS.index(name)
        return {block: self.values[block][place] for block in self.blocks}

    def scores(self, method: str) -> dict[int, Tensor]:
        """Scores by block, (neurons,) float64; higher = keep.

        Args:
            method: one of :data:`prune_core.recipes.parts.NEURON_METHODS`.

        Raises:
            RecipeError: an unknown method.
        """
        values: dict[int, Tensor] = NEURON_METHODS[checked_method(method)].fn(self)
        return values

    def compared(self, method: str, scope: str) -> dict[int, Tensor]:
        """Scores as the neurons compete by them: see :func:`competing` where all do."""
        scores = self.scores(method)
        return scores if scope != "global" else competing(method, scores)

    @cached_property
    def dead(self) -> dict[int, Tensor]:
        """By block, bool (neurons,): never open, or 0 on every token of the text."""
        silent, never = self.row("absolute"), self.row("open")
        return {block: (never[block] == 0) | (silent[block] == 0) for block in self.blocks}

    @cached_property
    def rare(self) -> dict[int, Tensor]:
        """By block, bool (neurons,): not dead, and open on less than :data:`RARE` of the tokens."""
        share = self.row("open")
        return {block: ~self.dead[block] & (share[block] < RARE) for block in self.blocks}


def competing(method: str, scores: Mapping[int, Tensor]) -> dict[int, Tensor]:
    """Scores by which the neurons of all blocks compete, by block.

    Activations grow with depth, so each block's scores are taken as (score - mean) / standard
    deviation of the block (FLAP, arXiv 2312.11983); ``firing`` stays the share of tokens it is.

    Args:
        method: one of :data:`prune_core.recipes.parts.NEURON_METHODS`.
        scores: (neurons,) by block.
    """
    if NEURON_METHODS[checked_method(method)].comparable:
        return dict(scores)
    return {block: _standardized(row) for block, row in scores.items()}


def _standardized(row: Tensor) -> Tensor:
    mean, spread = row.mean(), row.std(correction=0)
    # equal scores differ from their mean by rounding alone
    alike = spread <= 1e-12 * mean.abs()
    return torch.zeros_like(row) if alike else (row - mean) / spread


def checked_method(method: str) -> str:
    """A method by its present name.

    Raises:
        RecipeError: an unknown method.
    """
    name = ALIASES.get(method, method)
    if name not in NEURON_METHODS:
        raise RecipeError(
            "unknown method {method!r}; use {known:list}.", method=method, known=NEURON_METHODS
        )
    return name


def mlp_layers(structure: Structure, *roles: str) -> dict[int, str]:
    """The name of each block's layer that has one of these roles, by flat index of the block."""
    return {
        block.index: name
        for block in structure.blocks
        for name in block.layers
        if structure.layers[name].role in roles
    }


def gather_neurons(
    model: nn.Module,
    structure: Structure,
    windows: Tensor,
    *,
    progress: Progress = NONE,
) -> dict[int, Tensor]:
    """One pass over a text; see :class:`NeuronStatistics` for the rows of what it returns.

    Sums are float32 within a batch and float64 over batches; variances are merged around the
    means (Chan et al. 1979), so that none is a difference of large numbers.

    Args:
        model: a clone of the dense model, free to hang hooks on.
        structure: of the model.
        windows: (windows, seq) int64.
        progress: (windows done, windows); a cancel is seen before each MLP.

    Raises:
        RecipeError: a model without MLPs.
        ModelFileError: activations that are not finite; the block and the layer are named.
        Cancelled: by ``progress``.
    """
    downs = mlp_layers(structure, "mlp.down")
    if not downs:
        raise RecipeError("This model has no MLP, so it has no intermediate neurons.")
    gates = mlp_layers(structure, "mlp.gate", "mlp.gate_up")
    sizes = {index: structure.layers[name].in_features for index, name in downs.items()}
    sums = {index: torch.zeros(5, size, dtype=torch.float64) for index, size in sizes.items()}
    counts = dict.fromkeys(downs, 0)

    def gate_seen(index: int) -> Callable[..., None]:
        def see(module: nn.Module, arguments: Any, output: Tensor) -> None:
            # fused: the gates come first
            flat = output.reshape(-1, output.shape[-1])[:, : sizes[index]]
            sums[index][4] += (flat > 0).sum(0).cpu().double()

        return see

    def neurons_seen(index: int, gated: bool, last: bool) -> Callable[..., None]:
        def see(module: nn.Module, arguments: tuple[Tensor, ...]) -> None:
            progress.check("Cancelled while the text was read.")
            flat = arguments[0].reshape(-1, arguments[0].shape[-1]).float()
            new, old, row = flat.shape[0], counts[index], sums[index]
            mean = flat.mean(0)
            spread = (flat - mean).square_().sum(0).cpu().double()
            above = (flat > 0).sum(0).cpu().double()
            shift = mean.cpu().double() - row[1]
            row[0] += flat.abs().sum(0).cpu().double()
            row[1] += shift * (new / (old + new))
            row[2] += spread + shift.square() * (old * new / (old + new))
            row[3] += above
            if not gated:
                row[4] += above
            counts[index] = old + new
            if last:
                raise _LastSeenError

        return see

    final = next(reversed(downs))
    handles = [
        model.get_submodule(name).register_forward_hook(gate_seen(index))
        for index, name in gates.items()
    ]
    handles += [
        model.get_submodule(name).register_forward_pre_hook(
            neurons_seen(index, index in gates, index == final)
        )
        for index, name in downs.items()
    ]
    device = next(model.parameters()).device
    try:
        with torch.inference_mode():
            done = 0
            for batch in windows.split(max(1, TOKENS // windows.shape[1])):
                with suppress(_LastSeenError):
                    run_window(model, structure, batch.to(device))
                done += len(batch)
                progress.step(done, len(windows))
    finally:
        for handle in handles:
            handle.remove()
    for index, name in downs.items():
        sums[index][[0, 2, 3, 4]] /= max(counts[index], 1)
        if not bool(torch.isfinite(sums[index]).all()):
            raise ModelFileError(
                "The activations of the neurons of block {block} (the inputs of the layer {name}) "
                "are not finite on this text; the model's weights hold NaN or Inf, or its dtype "
                "overflows.",
                block=index,
                name=name,
            )
    return sums


def neuron_statistics(
    model: nn.Module,
    structure: Structure,
    model_fingerprint: str,
    windows: Tensor,
    *,
    folder: Path | None = None,
    progress: Progress = NONE,
) -> NeuronStatistics:
    """All statistics of all neurons, from the cache on disk or gathered now.

    Args:
        model: dense; only read.
        structure: of the model.
        model_fingerprint: of the model.
        windows: (windows, seq) int64.
        folder: of the cache; None for the usual one.
        progress: (windows done, windows); a cancel is seen before each MLP.

    Raises:
        RecipeError, ModelFileError, Cancelled: see :func:`gather_neurons`.
    """
    digest = hashlib.sha256(f"{_VERSION} {model_fingerprint} {tuple(windows.shape)}".encode())
    digest.update(windows.numpy().tobytes())
    key = digest.hexdigest()[:24]
    downs = mlp_layers(structure, "mlp.down")
    sizes = [structure.layers[name].in_features for name in downs.values()]
    record = CACHE.read(key, folder=folder) if downs else None
    if record is not None:
        flat = record.tensors["values"]
    else:
        sums = gather_neurons(clone_shared(model), structure, windows, progress=progress)
        flat = torch.cat(list(sums.values()), dim=1)
        CACHE.write(key, {"values": flat}, folder=folder)
    values = dict(zip(downs, flat.split(sizes, dim=1), strict=True))
    norms = {
        index: structure.layers[name].weight(model).cpu().double().norm(dim=0)
        for index, name in downs.items()
    }
    return NeuronStatistics(key, windows.numel(), tuple(downs), values, norms)
