"""Read a model's modules into a Structure, in full or not at all."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn
from transformers.pytorch_utils import Conv1D

from prune_core.errors import UnknownArchitectureError
from prune_core.models.families import FAMILIES, SUPPORTED, unsupported
from prune_core.models.layouts import AttentionPaths, Family, Stack
from prune_core.models.structure import Attention, Block, Layer, Projection, Structure
from prune_core.sentences import Sentence


def describe(model: nn.Module) -> Structure:
    """Find blocks, layers and heads of a transformers model.

    Embeddings, output heads, poolers and whatever else lies outside the blocks are left out.

    Args:
        model: of a supported ``model_type``, with or without its head.

    Raises:
        UnknownArchitectureError: an unsupported ``model_type``, or anything inside a block that
            is missing, unexpected or of an unexpected shape; names it.
    """
    config = getattr(model, "config", None)
    model_type = getattr(config, "model_type", None)
    if not isinstance(model_type, str) or model_type not in SUPPORTED:
        raise unsupported(model_type if isinstance(model_type, str) else None)
    family = FAMILIES[model_type]
    reader = _Reader(model_type, dict(model.named_modules(remove_duplicate=False)))
    if family.kind == "encoder" and getattr(config, "is_decoder", False):
        raise reader.refusal("its configuration turns the encoder into a decoder (is_decoder)")
    prefix = _base_prefix(reader, family)
    blocks: list[Block] = []
    layers: dict[str, Layer] = {}
    for stack in family.stacks:
        path = prefix + stack.container
        container = reader.module(path)
        for number in range(len(list(container.children()))):
            block_layers, block = _read_block(
                reader, config, stack, f"{path}.{number}", number, len(blocks)
            )
            blocks.append(block)
            layers.update(block_layers)
    _insist_all_read(reader, model, family, (block.module for block in blocks), layers)
    head = family.head if isinstance(reader.modules.get(family.head), nn.Linear) else None
    return Structure(
        family=model_type,
        kind=family.kind,
        blocks=tuple(blocks),
        layers=layers,
        head_module=head,
        plain_head=family.plain_head and head is not None,
        classes=_classes(model, config),
    )


def _classes(model: nn.Module, config: Any) -> int:
    """Classes of a sequence-classification head that gives one distribution over them."""
    if not type(model).__name__.endswith("ForSequenceClassification"):
        return 0
    single = getattr(config, "problem_type", None) in (None, "single_label_classification")
    return int(config.num_labels) if single and config.num_labels > 1 else 0


@dataclass(frozen=True, slots=True)
class _Reader:
    """The module tree by path, and how to say what is wrong with it."""

    model_type: str
    modules: Mapping[str, nn.Module]

    def refusal(self, what: str, /, **values: object) -> UnknownArchitectureError:
        return UnknownArchitectureError(
            "This {family} model is not laid out as transformers' {family} is: {what}; load an "
            "unmodified model.",
            family=self.model_type,
            what=Sentence(what, **values),
        )

    def module(self, path: str) -> nn.Module:
        try:
            return self.modules[path]
        except KeyError:
            raise self.refusal("{name} is missing", name=path) from None

    def layer(self, name: str, block: int, role: str, rows: int | None, columns: int) -> Layer:
        """One linear map, its shape checked; ``rows`` None: any number."""
        module = self.module(name)
        weight = module._parameters.get("weight")
        if not isinstance(module, nn.Linear | Conv1D) or weight is None:
            raise self.refusal(
                "{name} is a {kind}, not a linear layer", name=name, kind=type(module).__name__
            )
        if weight.ndim != 2 or not weight.is_floating_point():
            raise self.refusal("{name} holds packed or quantized weights", name=name)
        transposed = isinstance(module, Conv1D)
        out_features, in_features = weight.T.shape if transposed else weight.shape
        expected = (out_features if rows is None else rows, columns)
        if (out_features, in_features) != expected:
            raise self.refusal(
                "{name} has the shape {rows} x {columns} where its configuration means "
                "{wanted_rows} x {wanted_columns}",
                name=name,
                rows=out_features,
                columns=in_features,
                wanted_rows=expected[0],
                wanted_columns=expected[1],
            )
        return Layer(name, block, role, out_features, in_features, transposed)


def _base_prefix(reader: _Reader, family: Family) -> str:
    """Path of the base model with a dot at its end, or nothing if the model is its own base."""
    first = family.stacks[0].container
    for prefix in (f"{family.prefix}.", "") if family.prefix else ("",):
        if prefix + first in reader.modules:
            return prefix
    raise reader.refusal("{name} is missing", name=first)


def _read_block(
    reader: _Reader, config: Any, stack: Stack, path: str, number: int, index: int
) -> tuple[dict[str, Layer], Block]:
    reader.module(path)
    hidden = int(config.hidden_size)
    layers: dict[str, Layer] = {}
    attention = _read_attention(reader, config, stack, stack.attention, path, index, layers, "self")
    cross = None
    if stack.cross is not None:
        cross = _read_attention(reader, config, stack, stack.cross, path, index, layers, "cross")
    neurons = _read_mlp(reader, stack, path, index, hidden, layers)
    block = Block(
        index=index,
        stack=stack.name,
        number=number,
        module=path,
        attention=attention,
        cross_attention=cross,
        layers=tuple(layers),
        intermediate_size=neurons,
    )
    return layers, block


def _head_sizes(reader: _Reader, config: Any, stack: Stack, hidden: int) -> tuple[int, int, int]:
    """Query heads, key/value heads and head width, as the configuration has them."""
    heads = int(getattr(config, stack.heads))
    kv_heads = int(getattr(config, stack.kv_heads) or heads) if stack.kv_heads else heads
    shares = stack.one_kv_head
    if shares and all(bool(getattr(config, name)) is value for name, value in shares):
        kv_heads = 1
    explicit = getattr(config, stack.head_dim, None) if stack.head_dim else None
    if heads < 1 or kv_heads < 1 or heads % kv_heads:
        raise reader.refusal(
            "{kv_heads} key/value heads cannot be shared by {heads} heads",
            kv_heads=kv_heads,
            heads=heads,
        )
    return heads, kv_heads, int(explicit or hidden // heads)


def _read_attention(
    reader: _Reader,
    config: Any,
    stack: Stack,
    paths: AttentionPaths,
    block_path: str,
    index: int,
    layers: dict[str, Layer],
    kind: str,
) -> Attention:
    """One attention module; its layers are added to ``layers``."""
    hidden = int(config.hidden_size)
    heads, kv_heads, width = _head_sizes(reader, config, stack, hidden)
    module = reader.module(f"{block_path}.{paths.module}")
    actual = getattr(module, paths.head_dim, None)
    if actual != width:
        raise reader.refusal(
            "{block}.{module} has heads of width {found} where its configuration means {wanted}",
            block=block_path,
            module=paths.module,
            found=actual,
            wanted=width,
        )
    role = "attn" if kind == "self" else "cross"
    names = {part: f"{block_path}.{getattr(paths, part)}" for part in ("q", "k", "v", "o")}
    sizes = {"q": heads * width, "k": kv_heads * width, "v": kv_heads * width}
    if paths.layout == "separate":
        for part, rows in sizes.items():
            layer = reader.layer(names[part], index, f"{role}.{part}", rows, hidden)
            layers[layer.name] = layer
    else:
        layer = reader.layer(names["q"], index, f"{role}.qkv", sum(sizes.values()), hidden)
        layers[layer.name] = layer
    layer = reader.layer(names["o"], index, f"{role}.o", hidden, heads * width)
    layers[layer.name] = layer
    counts = {"q": heads, "k": kv_heads, "v": kv_heads}
    if paths.layout == "quarters" and heads % 4:
        raise reader.refusal("{heads} heads do not come in four quarters", heads=heads)
    projections = {
        part: Projection(names[part], tuple((start, start + width) for start in starts))
        for part, starts in _row_starts(paths.layout, counts, width).items()
    }
    return Attention(
        kind=kind,
        module=f"{block_path}.{paths.module}",
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=width,
        o=names["o"],
        joint_norm=paths.joint_norm,
        **projections,
    )


def _row_starts(layout: str, counts: Mapping[str, int], width: int) -> dict[str, list[int]]:
    """First row of each head of queries, keys and values.

    A fused projection is one or several groups of rows, each with its share of all three.

    Args:
        layout: see ``AttentionPaths``.
        counts: heads of each part.
        width: of a head.
    """
    if layout == "separate":
        return {part: [width * head for head in range(count)] for part, count in counts.items()}
    groups = {"concatenated": 1, "interleaved": counts["k"], "quarters": 4}[layout]
    stride = sum(counts.values()) // groups
    starts, before = {}, 0
    for part in "qvk" if layout == "quarters" else "qkv":
        share = counts[part] // groups
        starts[part] = [
            width * (head // share * stride + before + head % share) for head in range(counts[part])
        ]
        before += share
    return starts


def _read_mlp(
    reader: _Reader, stack: Stack, path: str, index: int, hidden: int, layers: dict[str, Layer]
) -> int:
    """The MLP's layers are added to ``layers``; returns its number of neurons."""

    def missing(layout: tuple[tuple[str, str], ...]) -> int:
        return sum(f"{path}.{name}" not in reader.modules for _, name in layout)

    # of two that lack as many, the longer one: more of it is there
    layout = min(stack.mlps, key=lambda each: (missing(each), -len(each)))
    neurons = 0
    for role, name in layout:
        full = f"{path}.{name}"
        if role == "mlp.down":
            layer = reader.layer(full, index, role, hidden, neurons)
        else:
            # gate decides how many rows up must have; the first of them is free
            layer = reader.layer(full, index, role, neurons or None, hidden)
            if role == "mlp.gate_up" and layer.out_features % 2:
                raise reader.refusal("{name} has an odd number of rows for gate and up", name=full)
            neurons = layer.out_features // (2 if role == "mlp.gate_up" else 1)
        layers[full] = layer
    return neurons


def _insist_all_read(
    reader: _Reader,
    model: nn.Module,
    family: Family,
    blocks: Iterable[str],
    layers: Mapping[str, Layer],
) -> None:
    """Refuse matrices in blocks that were not read, and layers that share one weight."""
    weights = {f"{name}.weight" for name in layers}
    tables = family.embeddings or ("\0",)
    inside = tuple(f"{path}." for path in blocks)
    owners: dict[int, list[str]] = {}
    for name, parameter in model.named_parameters(remove_duplicate=False):
        owners.setdefault(id(parameter), []).append(name)
        if name in weights or name.endswith(tables) or not name.startswith(inside):
            continue
        if parameter.ndim >= 2:
            raise reader.refusal("{name} is not part of it", name=name.removesuffix(".weight"))
    for names in owners.values():
        # pruning one of them would prune the other unseen
        if len(names) > 1 and weights.intersection(names):
            raise reader.refusal("{names:and} are one tensor", names=names)
