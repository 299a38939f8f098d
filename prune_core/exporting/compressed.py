"""Checkpoints without their zeros: values and a bitmask, by the compressed-tensors library.

Formats of the library: ``sparse-24-bitmask`` where every compressed layer keeps at most two of four
neighbors, else ``sparse-bitmask``. It wrote and read them until 0.14 (vllm-project's pull request
610 removed them); transformers 5 asks for 0.15 or later, and that version fills the layers it no
longer understands with random numbers and only warns. So the weights lie in a file of another name
than transformers looks for: it refuses the folder, and the library's own ``load_compressed`` reads
it.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from prune_core.exporting.formats import library_problem
from prune_core.exporting.write import ExportError
from prune_core.models.layers import describe

FILE = "weights.compressed.safetensors"
CONFIGS = {"sparse-bitmask": "BitmaskConfig", "sparse-24-bitmask": "Sparse24BitMaskConfig"}


def write_compressed(model: Any, place: Path) -> str:
    """Write a model's weights without zeros; its configuration is already there.

    Args:
        model: of transformers' own class.
        place: the folder.

    Returns:
        The library's name of the format.

    Raises:
        ExportError: the library is not there or too new, or nothing would get smaller.
    """
    library = _library()
    from safetensors.torch import save_file

    state = _untied(model)
    layers = _worthwhile(model)
    if not layers:
        raise ExportError(
            "too few weights of any layer are zero: a bitmask would be larger than what it leaves "
            "out; choose another format."
        )
    fits = all(_two_of_four(state[f"{name}.weight"]) for name in layers)
    form = "sparse-24-bitmask" if fits else "sparse-bitmask"
    config = getattr(library, CONFIGS[form])()
    compressor = library.BaseCompressor.load_from_registry(form, config=config)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        packed: dict[str, Tensor] = compressor.compress(state, compression_targets=layers)
    save_file({k: v.contiguous() for k, v in packed.items()}, place / FILE, {"format": "pt"})
    return form


def read_compressed(model: nn.Module, place: Path, form: str) -> None:
    """Fill a model made from the folder's configuration, as the model card tells its reader to.

    Tensor by tensor: all of them unpacked at once would be a second model in memory.

    Raises:
        ExportError: the file does not hold what the model needs.
    """
    library = _library()
    weights, names = model.state_dict(), set()
    for name, value in library.load_compressed(place / FILE, getattr(library, CONFIGS[form])()):
        if name not in weights or weights[name].shape != value.shape:
            raise ExportError("What was written is not complete; nothing was kept.")
        weights[name].copy_(value)
        names.add(name)
    if set(_untied(model)) - names:
        raise ExportError("What was written is not complete; nothing was kept.")


def _library() -> Any:
    problem = library_problem()
    if problem is not None:
        raise ExportError(problem)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of torch modules that the library imports
        import compressed_tensors
    return compressed_tensors


def _untied(model: nn.Module) -> dict[str, Tensor]:
    """Everything a file has to hold: one name for each tensor."""
    names = {name for name, _ in model.named_parameters()}
    names |= {name for name, _ in model.named_buffers()}
    return {name: value for name, value in model.state_dict().items() if name in names}


def _worthwhile(model: Any) -> set[str]:
    """Layers whose zeros weigh more than their bitmask and row offsets."""
    names = set()
    for name, layer in describe(model).layers.items():
        weight = layer.stored_weight(model)
        zeros = weight.numel() - int(torch.count_nonzero(weight))
        spent = weight.shape[0] * (-(-weight.shape[1] // 8) + 8) + 64
        if zeros * weight.element_size() > spent:
            names.add(name)
    return names


def _two_of_four(weight: Tensor) -> bool:
    if weight.shape[1] % 4:
        return False
    return bool((weight != 0).reshape(-1, 4).sum(1).max() <= 2)


def loading_code(form: str, auto: str, dtype: str) -> str:
    """Python for the model card: how a reader loads the folder, without any code of ours."""
    return _CODE.format(config=CONFIGS[form], auto=auto, dtype=dtype, file=FILE)


_CODE = """import torch
from compressed_tensors import {config}, load_compressed  # compressed-tensors==0.13.0
from transformers import AutoConfig, {auto}

folder = "."
model = {auto}.from_config(AutoConfig.from_pretrained(folder), dtype=torch.{dtype})
weights = model.state_dict()
for name, value in load_compressed(f"{{folder}}/{file}", {config}()):
    weights[name].copy_(value)  # one at a time; a tied output head is not in the file
model.tie_weights()
model.eval()
"""
