"""Checks of a model folder before transformers sees it: files only, no torch."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from prune_core.errors import ModelFileError
from prune_core.models.headers import (
    SafetensorsHeader,
    check_disguise,
    read_safetensors_header,
)
from prune_core.models.sources import allowed_roots, anywhere, mode, shown
from prune_core.models.stored import check_method
from prune_core.sentences import Sentence

MAX_CONFIG_BYTES = 1_000_000
MAX_DEPTH = 32
INDEX_NAME = "model.safetensors.index.json"
_SHARD = re.compile(r"^(.*)-(\d{1,9})-of-(\d{1,9})\.safetensors$")
PICKLE_SUFFIXES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".h5", ".pkl", ".msgpack"})
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "source.spm",
    "vocab.json",
    "vocab.txt",
)

LAYER_KEYS = (
    "num_hidden_layers",
    "n_layer",
    "n_layers",
    "num_layers",
    "num_decoder_layers",
    "encoder_layers",
    "decoder_layers",
)
HIDDEN_KEYS = ("hidden_size", "n_embd", "d_model", "dim")
HEAD_KEYS = (
    "num_attention_heads",
    "n_head",
    "n_heads",
    "num_heads",
    "encoder_attention_heads",
    "decoder_attention_heads",
)
HEAD_DIM_KEYS = ("head_dim", "d_kv")
WIDTH_KEYS = (
    "intermediate_size",
    "n_inner",
    "d_ff",
    "ffn_dim",
    "encoder_ffn_dim",
    "decoder_ffn_dim",
    "hidden_dim",
    "word_embed_proj_dim",
)
CONTEXT_KEYS = ("max_position_embeddings", "n_positions", "n_ctx")
PER_LAYER_KEYS = ("layer_types", "mlp_layer_types", "no_rope_layers")
"""Lists with one entry for each block."""

_BOUNDS: tuple[tuple[tuple[str, ...], int, int], ...] = (
    (LAYER_KEYS, 0, 1000),
    (HIDDEN_KEYS, 1, 65_536),
    (HEAD_KEYS, 1, 4096),
    (("num_key_value_heads",), 1, 4096),
    (HEAD_DIM_KEYS, 1, 65_536),
    (("vocab_size",), 1, 1_000_000),
    (WIDTH_KEYS, 1, 1_000_000),
    (CONTEXT_KEYS, 1, 100_000_000),
)
# what transformers itself has written into configs over the years; none of it changes behavior
_HARMLESS = frozenset({"_name_or_path", "_commit_hash", "_num_labels", "_sliding_window_pattern"})
_HARMLESS |= {
    "_remove_final_layer_norm",
    "_from_model_config",
    "_pre_quantization_dtype",
    "_model_name_or_path",
}
_REFUSED = frozenset({"trust_remote_code", "custom_pipelines", "custom_pipeline"})


def read_json(path: Path, limit: int) -> Any:
    """Read a small JSON file.

    Raises:
        ModelFileError: missing, unreadable, too large, not JSON, or nested too deeply.
    """
    name = path.name
    try:
        size = path.stat().st_size
        if size > limit:
            raise ModelFileError(
                "{name} has {size:.1f} MB; more than {limit:g} MB is refused.",
                name=name,
                size=size / 1e6,
                limit=limit / 1e6,
            )
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ModelFileError(
            "There is no {name} in {parent}.", name=name, parent=shown(str(path.parent))
        ) from None
    except OSError as error:
        raise ModelFileError(
            "{name} in {parent} cannot be read ({reason}).",
            name=name,
            parent=shown(str(path.parent)),
            reason=error.strerror,
        ) from error
    except RecursionError:
        raise ModelFileError(
            "{name} is nested more than {most} levels deep.", name=name, most=MAX_DEPTH
        ) from None
    except ValueError as error:
        check_disguise(path, is_text=True)
        raise ModelFileError("{name} is not valid JSON.", name=name) from error
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH):
        level = [child for node in level for child in _children(node)]
        if not level:
            return content
    raise ModelFileError(
        "{name} is nested more than {most} levels deep.", name=name, most=MAX_DEPTH
    )


def _children(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return list(node.values())
    return node if isinstance(node, list) else []


def _objects(node: Any) -> Iterator[Mapping[str, Any]]:
    if isinstance(node, dict):
        yield node
    for child in _children(node):
        yield from _objects(child)


def read_config(folder: Path) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Read and check ``config.json``: size, depth, refused keys, bounds, known architecture.

    Returns:
        The configuration and warnings to show.

    Raises:
        ModelFileError: missing, damaged, or asking for something that is refused.
        UnknownArchitectureError: its ``model_type`` is not supported.
    """
    check_adapter(folder)
    config = read_json(folder / "config.json", MAX_CONFIG_BYTES)
    if not isinstance(config, dict):
        raise ModelFileError("config.json does not hold a JSON object.")
    warnings = check_keys(config)
    check_config(config)
    return config, warnings


def check_adapter(folder: Path) -> None:
    """Refuse a folder that holds an adapter (LoRA and its like) and no model.

    Raises:
        ModelFileError: such a folder; names the base model where the adapter does.
    """
    if (folder / "config.json").is_file() or not (folder / "adapter_config.json").is_file():
        return
    fields = read_json(folder / "adapter_config.json", MAX_CONFIG_BYTES)
    base = fields.get("base_model_name_or_path") if isinstance(fields, dict) else None
    raise ModelFileError(
        "{name} holds an adapter (adapter_config.json), not a model; merge it into its base model "
        "{base} (merge_and_unload of peft) and save the result.",
        name=shown(folder.name),
        base=shown(str(base or "as its card says")),
    )


def check_keys(config: Mapping[str, Any]) -> tuple[str, ...]:
    """Refuse keys that could bring code or another loader; return warnings about the rest."""
    warnings: list[str] = []
    for fields in _objects(dict(config)):
        for key, value in fields.items():
            if key == "auto_map":
                if mode() != "local":
                    raise ModelFileError(
                        "config.json asks for code of its own (auto_map): refused."
                    )
                warnings.append(
                    Sentence(
                        "The model's config.json brings code of its own (auto_map); it is not run."
                    )
                )
            elif _is_refused(key, value):
                raise ModelFileError("config.json holds the refused key {key}.", key=shown(key))
    check_method(config)
    return tuple(dict.fromkeys(warnings))


def _is_refused(key: str, value: Any) -> bool:
    if key in _REFUSED:
        return True
    if key.endswith("attn_implementation") and "/" in str(value):
        return True  # "owner/name" would be fetched from the hub and run
    # transformers 4.46 to 4.52 wrote this flag into every config it saved; a bool names no code
    # (and older ones others, as _flash_attn_2_enabled): they are not passed on
    if isinstance(value, bool):
        return False
    return key.startswith("_") and key not in _HARMLESS


def check_config(config: Mapping[str, Any]) -> None:
    """Check ``model_type`` and the sizes that decide how much would be allocated.

    Raises:
        ModelFileError: a size is no whole number, out of bounds, or the heads do not fit.
        UnknownArchitectureError: ``model_type`` is missing or not supported.
    """
    from prune_core.models.families import SUPPORTED, unsupported

    model_type = config.get("model_type")
    if not isinstance(model_type, str) or model_type not in SUPPORTED:
        raise unsupported(model_type if isinstance(model_type, str) else None)
    for keys, low, high in _BOUNDS:
        for key in keys:
            value = config.get(key)
            if value is None:
                continue
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ModelFileError(
                    "config.json: {key} must be a whole number from {low} to {high}, got {value}.",
                    key=key,
                    low=low,
                    high=high,
                    value=shown(str(value), 40),
                )
    _check_heads(config)
    for key in PER_LAYER_KEYS:
        count, layers = config.get(key), config.get("num_hidden_layers")
        if isinstance(count, list) and isinstance(layers, int) and len(count) != layers:
            raise ModelFileError(
                "config.json: {key} has {count} entries for {blocks} blocks (num_hidden_layers); "
                "a pruning tool may have left it as it was: keep the entries of the blocks that "
                "are left.",
                key=key,
                count=len(count),
                blocks=layers,
            )


def _check_heads(config: Mapping[str, Any]) -> None:
    hidden = first_of(config, HIDDEN_KEYS)
    explicit = first_of(config, HEAD_DIM_KEYS)
    for key in HEAD_KEYS:
        heads = config.get(key)
        if heads and hidden and explicit is None and hidden % heads:
            raise ModelFileError(
                "config.json: {heads} heads ({key}) do not divide the hidden size {hidden}.",
                heads=heads,
                key=key,
                hidden=hidden,
            )
    heads, shared = first_of(config, HEAD_KEYS), config.get("num_key_value_heads")
    if heads and shared and heads % shared:
        raise ModelFileError(
            "config.json: {shared} key/value heads do not divide {heads} attention heads.",
            shared=shared,
            heads=heads,
        )


def first_of(config: Mapping[str, Any], keys: tuple[str, ...]) -> int | None:
    """The first of several names for the same number that a config uses."""
    for key in keys:
        if isinstance(config.get(key), int):
            return int(config[key])
    return None


def check_contained(folder: Path) -> None:
    """Refuse a folder with links that lead outside it and outside the allowed folders.

    Raises:
        ModelFileError: such a link, or the folder cannot be listed.
    """
    if anywhere():
        return
    roots = (folder.resolve(), *allowed_roots())
    try:
        for path in folder.iterdir():
            if path.is_symlink() and not any(path.resolve().is_relative_to(r) for r in roots):
                raise ModelFileError(
                    "{name} in the model folder links to a place outside the allowed folders.",
                    name=shown(path.name),
                )
    except (OSError, RuntimeError) as error:
        raise ModelFileError(
            "The model folder {folder} cannot be read ({error}).",
            folder=shown(str(folder)),
            error=error,
        ) from error


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


def check_tokenizer_files(folder: Path) -> None:
    """Insist on a file that a tokenizer can be read from.

    Raises:
        ModelFileError: there is none.
    """
    if not any((folder / name).is_file() for name in TOKENIZER_FILES):
        raise ModelFileError(
            "There is no tokenizer in {folder}; add tokenizer.json (or the vocabulary files) of "
            "the model.",
            folder=shown(str(folder)),
        )
    for name in TOKENIZER_FILES:
        if (folder / name).is_file():
            check_disguise(folder / name, is_text=True)
    path = folder / "tokenizer_config.json"
    if path.is_file():
        fields = read_json(path, 10 * MAX_CONFIG_BYTES)
        if isinstance(fields, dict) and "auto_map" in fields and mode() != "local":
            raise ModelFileError("tokenizer_config.json asks for code of its own: refused.")


def parameter_count(header: SafetensorsHeader) -> int:
    """Number of weights that a header announces."""
    return sum(math.prod(shape) for _, shape in header.tensors.values())
