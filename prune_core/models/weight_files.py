"""Which files of a folder hold a model's weights, and their headers together."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from prune_core.errors import ModelFileError
from prune_core.models.checks import read_json
from prune_core.models.headers import SafetensorsHeader, read_safetensors_header
from prune_core.models.sources import shown

INDEX_NAME = "model.safetensors.index.json"

_SHARD = re.compile(r"^(.*)-(\d{1,9})-of-(\d{1,9})\.safetensors$")

PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".h5", ".pkl", ".msgpack"})


def check_weights(folder: Path) -> SafetensorsHeader:
    """Check every safetensors file of a folder and return all their tensors as one header.

    Raises:
        ModelFileError: see :func:`weight_files`; or one of them is damaged.
    """
    return merged_header(weight_files(folder)[0])


def merged_header(files: Sequence[Path]) -> SafetensorsHeader:
    """The tensors of several files as one header.

    Raises:
        ModelFileError: a file is damaged, or two hold a tensor of one name.
    """
    tensors: dict[str, tuple[str, tuple[int, ...]]] = {}
    for path in files:
        part = read_safetensors_header(path).tensors
        twice = sorted(tensors.keys() & part.keys())
        if twice:
            raise ModelFileError(
                "{name} holds {tensor}, which another of the files holds too; leave the files of "
                "one model only.",
                name=shown(path.name),
                tensor=shown(twice[0]),
            )
        tensors |= part
    return SafetensorsHeader(tensors)


def weight_files(folder: Path) -> tuple[tuple[Path, ...], bool]:
    """The files that hold a model's weights, and whether transformers finds them by itself.

    ``model.safetensors``, or what its index names; else a single safetensors file of any name, or
    all shards of a set that has lost its index.

    Raises:
        ModelFileError: none (only pickles, or nothing), a missing shard, or several that nothing
            puts together.
    """
    if (folder / "model.safetensors").is_file():
        return (folder / "model.safetensors",), True
    if (folder / INDEX_NAME).is_file():
        return _indexed(folder, folder / INDEX_NAME), True
    try:
        names = sorted(p.name for p in folder.iterdir() if p.is_file())
    except OSError as error:
        raise ModelFileError(
            "The model folder {folder} cannot be read ({error}).",
            folder=shown(str(folder)),
            error=error.strerror,
        ) from error
    indices = [name for name in names if name.endswith(".safetensors.index.json")]
    if len(indices) == 1:
        return _indexed(folder, folder / indices[0]), False
    files = [n for n in names if n.endswith(".safetensors") and not n.startswith("adapter_")]
    if any(name.endswith(".compressed.safetensors") for name in files):
        raise ModelFileError(
            "The weights of this folder are compressed (a file that ends in "
            ".compressed.safetensors), which is not read here; export the model as masked instead."
        )
    shards = [_SHARD.match(name) for name in files]
    if len(files) == 1 and (shards[0] is None or int(shards[0][3]) == 1):
        return (folder / files[0],), False
    if files and all(shards) and len({(m[1], m[3]) for m in shards if m}) == 1:
        return _numbered(folder, files), False
    if files:
        raise ModelFileError(
            "{name} holds several safetensors files ({files}) and no {index} that says which "
            "belong to the model; leave those of one model only.",
            name=shown(str(folder)),
            files=shown(", ".join(files), 200),
            index=INDEX_NAME,
        )
    pickles = [name for name in names if Path(name).suffix in PICKLE_SUFFIXES]
    if pickles:
        raise ModelFileError(
            "{name} is a format that can run code and is refused; convert the model to "
            "safetensors (save_pretrained) in a safe place first.",
            name=shown(pickles[0]),
        )
    if any(name.startswith("adapter_") for name in names):
        raise ModelFileError(
            "{name} holds an adapter and no weights of a model; merge it into its base model "
            "(merge_and_unload of peft) and save the result.",
            name=shown(str(folder)),
        )
    ggufs = [name for name in names if name.lower().endswith(".gguf")]
    if ggufs:
        raise ModelFileError(
            "{name} holds no safetensors but a GGUF file; name the file itself as the model: "
            "{file}.",
            name=shown(str(folder)),
            file=shown(ggufs[0]),
        )
    raise ModelFileError("There is no model.safetensors in {folder}.", folder=shown(str(folder)))


def _numbered(folder: Path, names: Sequence[str]) -> tuple[Path, ...]:
    """All shards of a set without an index."""
    matches = [match for match in map(_SHARD.match, names) if match]
    start, total = matches[0][1], matches[0][3]
    there = {int(match[2]) for match in matches}
    for number in range(1, int(total) + 1):
        if number not in there:
            shard = f"{start}-{number:0{len(total)}d}-of-{total}.safetensors"
            raise ModelFileError(
                "Shard {shard} is missing from {folder}.",
                shard=shown(shard),
                folder=shown(str(folder)),
            )
    return tuple(folder / name for name in names)


def _indexed(folder: Path, index_path: Path) -> tuple[Path, ...]:
    """The shards that an index names; all are there."""
    index = read_json(index_path, 50_000_000)
    shards = index.get("weight_map") if isinstance(index, dict) else None
    if not isinstance(shards, dict) or not shards:
        raise ModelFileError("{index} names no shards.", index=index_path.name)
    files = []
    for shard in sorted({str(name) for name in shards.values()}):
        if Path(shard).name != shard or not shard.endswith(".safetensors"):
            raise ModelFileError(
                "{index} names a shard {shard} that is refused.",
                index=index_path.name,
                shard=shown(shard),
            )
        if not (folder / shard).is_file():
            raise ModelFileError(
                "Shard {shard} is missing from {folder}.",
                shard=shown(shard),
                folder=shown(str(folder)),
            )
        files.append(folder / shard)
    return tuple(files)
