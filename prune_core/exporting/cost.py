"""What a model costs: parameters, bytes by format, FLOPs, and measured speed and memory."""

from __future__ import annotations

import copy
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from prune_core.errors import RecipeError
from prune_core.exporting.bias import allow_biases, fill_biases
from prune_core.exporting.shrink import shrink, skeleton, tie_alike
from prune_core.exporting.speed import PROMPT_TOKENS, REPEATS, Checkpoint, measure_in_turn
from prune_core.models.handle import ModelHandle
from prune_core.models.reading import model_class, quiet
from prune_core.models.weight_counts import bitmask_saving
from prune_core.paths import cache_folder
from prune_core.progress import NONE, Progress
from prune_core.recipes.recipe import Recipe


def parameter_counts(model: nn.Module) -> dict[str, int]:
    """``parameters`` and ``nonzero``; tied tensors count once."""
    return {
        "parameters": sum(p.numel() for p in model.parameters()),
        "nonzero": sum(_nonzeros(model, {}).values()),
    }


def flops_per_token(model: nn.Module) -> int:
    """2 FLOPs for each weight of a linear map, the output head included (arXiv 2001.08361).

    Attention's own products, which grow with the length of the text, are left out; zeros count as
    any other weight, since dense kernels multiply by them.
    """
    maps = [m for m in model.modules() if type(m).__name__ in ("Linear", "Conv1D")]
    return sum(2 * m.get_parameter("weight").numel() for m in maps)


def weight_bytes(folder: Path) -> int:
    """Bytes of the weight files of a checkpoint on disk."""
    return sum(path.stat().st_size for path in folder.glob("*.safetensors"))


def cost_numbers(
    handle: ModelHandle,
    pruned: nn.Module,
    recipe: Recipe,
    *,
    measured: bool = False,
    zeros: bool = False,
    tokens: Sequence[int] | None = None,
    repeats: int = REPEATS,
    progress: Progress = NONE,
) -> dict[str, Any]:
    """What a recipe saves, as plain numbers.

    Args:
        handle: the dense model.
        pruned: the working copy at ``recipe``.
        recipe: what was removed.
        measured: also measure speed and memory, dense and pruned in turn; about a minute.
        zeros: measure a third model in turn where dropped parts can be cut out: the one that has
            its zeros in place.
        tokens: prompt of the measurement; None takes the tokens 0, 1, 2, … of the vocabulary.
        repeats: rounds that count.
        progress: stages ``write`` and ``measure``; a cancel is seen between the steps.

    Returns:
        ``parameters``, ``nonzero_dense`` (dense), ``nonzero`` (of the pruned model as it stands,
        zeros in place), ``parameters_shrunk`` (dropped parts cut out); ``bytes_dense`` (all weights
        as stored), ``bytes_half`` (the same in 16 bits), ``bytes_sparse`` (survivors and one bit a
        weight in layers where that is smaller: an estimate), ``bytes_sparse_dense`` (the same of
        the dense model, whose zeros are no gain), ``bytes_shrunk`` (dropped parts cut out: exact);
        ``flops_dense``, ``flops_shrunk`` per token. The ``_shrunk`` ones are None where no
        checkpoint can say it, and ``shrunk_refused`` is the reason, else None.
        ``prefill``, ``decode`` (``median``, ``low``, ``high``, ``values``: tokens per second) and
        ``peak_memory`` (bytes) of the pruned model, shrunk where it can be, and under
        ``dense_prefill``, ``dense_decode``, ``dense_peak_memory`` of the dense one, under
        ``zeros_prefill``, ``zeros_decode``, ``zeros_peak_memory`` of the one with zeros in place;
        None unless measured, or where the model does not write.

    Raises:
        SpeedError: a process that measures was ended.
        Cancelled: by ``progress``; nothing is kept on disk.
    """
    parameters = list(handle.model.parameters())
    dense = _dense_nonzeros(handle.model)
    nonzeros = _nonzeros(pruned, dense)
    numbers: dict[str, Any] = {
        "parameters": sum(p.numel() for p in pruned.parameters()),
        "nonzero": sum(nonzeros.values()),
        "nonzero_dense": sum(dense.values()),
        "bytes_dense": sum(p.numel() * p.element_size() for p in parameters),
        "bytes_half": 2 * sum(p.numel() for p in parameters),
        "bytes_sparse": _sparse_bytes(handle, pruned, nonzeros),
        "bytes_sparse_dense": _sparse_bytes(handle, handle.model, dense),
        "flops_dense": flops_per_token(handle.model),
        **shrunk_numbers(handle, recipe),
    }
    numbers |= dict.fromkeys(_MEASURED)
    if not measured:
        return numbers
    cut = numbers["shrunk_refused"] is None and recipe.removes_structure
    models: dict[str, nn.Module | None] = {"dense": None, "pruned": pruned}
    if cut and zeros:
        models["masked"] = pruned
    measurements = measure_models(
        handle,
        models,
        recipe,
        tokens=tokens,
        repeats=repeats,
        progress=progress,
    )
    in_place = measurements.get("masked", None if cut else measurements["pruned"])
    for key in ("prefill", "decode", "peak_memory"):
        numbers[key] = measurements["pruned"][key]
        numbers[f"dense_{key}"] = measurements["dense"][key]
        numbers[f"zeros_{key}"] = in_place[key] if in_place else None
    return numbers


_MEASURED = (
    *("prefill", "decode", "peak_memory"),
    *("dense_prefill", "dense_decode", "dense_peak_memory"),
    *("zeros_prefill", "zeros_decode", "zeros_peak_memory"),
)


def shrunk_numbers(handle: ModelHandle, recipe: Recipe) -> dict[str, Any]:
    """Sizes with the dropped parts cut out, without cutting; see :func:`cost_numbers`."""
    try:
        small = skeleton(handle.model, handle.structure, recipe)
    except RecipeError as error:
        return {
            "parameters_shrunk": None,
            "bytes_shrunk": None,
            "flops_shrunk": None,
            "shrunk_refused": error.sentence,
        }
    # blocks that move up are as those whose names they take
    items = {name: p.element_size() for name, p in handle.model.named_parameters()}
    plain = handle.model.dtype.itemsize
    sizes = [(items.get(name, plain), p.numel()) for name, p in small.named_parameters()]
    return {
        "parameters_shrunk": sum(count for _, count in sizes),
        "bytes_shrunk": sum(item * count for item, count in sizes),
        "flops_shrunk": flops_per_token(small),
        "shrunk_refused": None,
    }


_counted: WeakKeyDictionary[nn.Module, dict[int, int]] = WeakKeyDictionary()


def _dense_nonzeros(model: nn.Module) -> dict[int, int]:
    """See :func:`_nonzeros`; counted once, since nobody changes a dense model."""
    if model not in _counted:
        _counted[model] = _nonzeros(model, {})
    return _counted[model]


def _nonzeros(model: nn.Module, dense_counts: Mapping[int, int]) -> dict[int, int]:
    """Values of each parameter that are not zero, by its address; tied tensors count once.

    Args:
        model: whose parameters.
        dense_counts: counts of the dense model, whose tensors a pruned view shares where it can.
    """
    counts = {}
    for parameter in model.parameters():
        address = parameter.data_ptr()
        again = dense_counts.get(address)
        counts[address] = int(torch.count_nonzero(parameter)) if again is None else again
    return counts


def _sparse_bytes(handle: ModelHandle, pruned: nn.Module, nonzeros: Mapping[int, int]) -> int:
    """Values that are not zero and a bitmask, for each layer where that is less than dense."""
    total = sum(p.numel() * p.element_size() for p in handle.model.parameters())
    for layer in handle.structure.layers.values():
        weight = layer.stored_weight(pruned)
        zeros = weight.numel() - nonzeros[weight.data_ptr()]
        total -= bitmask_saving(weight.numel(), zeros, weight.element_size())
    return total


def measure_models(
    handle: ModelHandle,
    models: Mapping[str, nn.Module | None],
    recipe: Recipe,
    *,
    tokens: Sequence[int] | None = None,
    repeats: int = REPEATS,
    progress: Progress = NONE,
) -> dict[str, dict[str, Any]]:
    """Write models to temporary checkpoints and measure them in turn.

    Args:
        handle: the dense model.
        models: by name; None stands for the dense model. ``masked`` keeps its zeros, any other
            loses the parts that ``recipe`` drops where that can be written.
        recipe: what was removed.
        tokens: of the prompt.
        repeats: rounds that count.
        progress: stages ``write`` and ``measure``; a cancel is seen between the steps.

    Returns:
        See ``prune_core.exporting.speed.measure_in_turn``.
    """
    checkpoints = {}
    with temporary_checkpoints() as place:
        for index, (name, model) in enumerate(models.items()):
            progress.check("Cancelled while models were written for measuring.")
            progress.stage("write").step(index, len(models))
            folder = place / name
            write_weights(handle, model, recipe if name != "masked" else Recipe(), folder)
            checkpoints[name] = checkpoint_of(handle, folder)
        return measure_in_turn(
            checkpoints,
            tokens or prompt(handle),
            repeats=repeats,
            progress=progress.stage("measure"),
        )


@contextmanager
def temporary_checkpoints() -> Iterator[Path]:
    """A folder of the cache for checkpoints that are only measured; gone afterwards.

    What a killed process left there longer than a day ago goes first. Where the cache cannot be
    written it is a folder of the system's for such things.
    """
    try:
        root = cache_folder("speed")
        for old in root.iterdir():
            with suppress(OSError):
                if time.time() - old.stat().st_mtime > 86_400:
                    shutil.rmtree(old)
        place = root / uuid.uuid4().hex[:12]
        place.mkdir()
    except OSError:
        place = Path(tempfile.mkdtemp(prefix="prunescope-"))
    try:
        yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write_weights(
    handle: ModelHandle, model: nn.Module | None, recipe: Recipe, folder: Path
) -> None:
    """A checkpoint without tokenizer: shrunk where it can be, else as it stands.

    Args:
        handle: the dense model.
        model: the working copy, or None for the dense model itself.
        recipe: its dropped parts are cut out.
        folder: is made.
    """
    output: Any = handle.model
    if model is not None:
        cut = recipe.removes_structure and shrunk_numbers(handle, recipe)["shrunk_refused"] is None
        output = shrink(model, handle.structure, recipe) if cut else plain_copy(handle, model)
    with quiet():
        output.save_pretrained(folder)


def plain_copy(handle: ModelHandle, pruned: nn.Module) -> nn.Module:
    """A module of transformers' own class with the pruned weights: no wrapped blocks."""
    source: Any = handle.model
    config, state = copy.deepcopy(source.config), dict(pruned.state_dict())
    allow_biases(config, state)
    model = type(source)(config)
    fill_biases(model, state)
    # assigned, not copied: each tensor keeps its dtype, and buffers that no file holds keep theirs
    model.load_state_dict(state, strict=True, assign=True)
    tie_alike(model, source)
    model.generation_config = copy.deepcopy(getattr(source, "generation_config", None))
    return model.eval()


def checkpoint_of(
    handle: ModelHandle, folder: Path, library_format: str | None = None
) -> Checkpoint:
    """How a written copy of the handle's model is to be loaded for measuring.

    Args:
        handle: the dense model.
        folder: the copy.
        library_format: of compressed-tensors, where it is compressed.
    """
    model = handle.model
    names = list(model.state_dict())
    auto = model_class(handle.structure.family, names, [type(model).__name__])
    name = type(handle.model).__name__
    where = (handle.info.dtype, handle.info.device, library_format)
    return Checkpoint(folder, auto.__name__, name, *where)


def prompt(handle: ModelHandle, text: Sequence[int] | None = None) -> list[int]:
    """Tokens to measure with: of a text, or the first of the vocabulary; they leave room."""
    most = min(PROMPT_TOKENS, max(2, handle.info.context // 2))
    ids = list(text) if text is not None else list(range(handle.info.vocabulary))
    return (ids * (-(-most // max(1, len(ids)))))[:most]
