"""ModelHandle: a loaded dense model with everything that is known of it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import nn

from prune_core.errors import TextError
from prune_core.models.families import FAMILIES
from prune_core.models.info import BlockInfo, LayerInfo, ModelInfo
from prune_core.models.layers import describe
from prune_core.models.sources import shown
from prune_core.models.structure import Block, Structure
from prune_core.models.weight_counts import (
    embedding_parameters,
    zeros_elsewhere,
    zeros_in_layers,
)

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

DEFAULT_CONTEXT = 512
"""Tokens assumed where neither configuration nor tokenizer names a length; T5's training length."""

# of LED the shorter of two: each half of a window goes to one of its stacks
_LENGTHS = (
    *("max_position_embeddings", "n_positions", "max_seq_len", "max_decoder_position_embeddings"),
)
_SANE_CONTEXT = 100_000_000  # tokenizers without a limit say about 1e30


@dataclass(frozen=True, slots=True)
class ModelHandle:
    """A dense model, its tokenizer and its structure. Nobody changes the model.

    Attributes:
        model: in evaluation mode, without gradients.
        tokenizer: belongs to the model.
        structure: blocks, layers and heads.
        info: the same as plain data, for the web process.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    structure: Structure
    info: ModelInfo

    @property
    def fingerprint(self) -> str:
        """Decides every cache key."""
        return self.info.fingerprint

    def check_tokens(self, tokens: Iterable[int]) -> None:
        """Insist that every token of a text has a row in the embedding.

        Raises:
            TextError: one has none: a token that was added to the tokenizer and not to the model.
        """
        rows = self.model.get_input_embeddings().weight.shape[0]
        for token in tokens:
            if token >= rows:
                raise TextError(
                    "The text holds {token}, a token for which the model has no row; take it out "
                    "of the text.",
                    token=shown(str(self.tokenizer.decode([token]))),
                )


def build_handle(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    source: str,
    title: str,
    fingerprint: str,
    quantized: str | None = None,
    license: str = "",
    provenance: str = "",
    warnings: tuple[str, ...] = (),
    load_seconds: float = 0.0,
) -> ModelHandle:
    """Describe a loaded model.

    Args:
        model: of a supported architecture.
        tokenizer: belongs to it.
        source: canonical source text.
        title: short name for display.
        fingerprint: decides every cache key.
        quantized: name of the source's quantization, or None.
        license: shown beside the model.
        provenance: shown beside the model.
        warnings: sentences to show.
        load_seconds: what loading took.

    Raises:
        UnknownArchitectureError: its layout is not understood in full.
    """
    structure = describe(model)
    parameters = list(model.parameters())  # tied ones come once
    table = model.get_input_embeddings().weight
    head = model.get_submodule(structure.head_module) if structure.head_module else None
    zeros = zeros_in_layers(model, structure)
    info = ModelInfo(
        source=source,
        title=title,
        fingerprint=fingerprint,
        family=structure.family,
        kind=structure.kind,
        has_language_head=head is not None and structure.kind != "encoder",
        has_chat_template=bool(getattr(tokenizer, "chat_template", None)),
        parameters=sum(p.numel() for p in parameters),
        prunable=sum(layer.numel for layer in structure.layers.values()),
        bytes_in_memory=sum(p.numel() * p.element_size() for p in parameters),
        dtype=str(table.dtype).removeprefix("torch."),
        device=str(table.device),
        context=context_length(model.config, tokenizer),
        vocabulary=int((head.weight if head is not None else table).shape[0]),
        hidden_size=int(model.config.hidden_size),
        tied_embeddings=head is not None and head.weight is table,
        quantized=quantized,
        license=license,
        provenance=provenance,
        warnings=warnings,
        blocks=tuple(_block_info(model, block) for block in structure.blocks),
        layers=tuple(
            LayerInfo(x.name, x.block, x.role, x.out_features, x.in_features, zeros[x.name])
            for x in structure.layers.values()
        ),
        load_seconds=load_seconds,
        classes=structure.classes,
        embeddings=embedding_parameters(model, structure),
        zeros_elsewhere=zeros_elsewhere(model, structure),
    )
    return ModelHandle(model, tokenizer, structure, info)


def context_length(config: Any, tokenizer: Any) -> int:
    """Most tokens that the model was built for, special tokens included.

    Args:
        config: of a supported ``model_type``; RoBERTa counts positions from its padding index
            on, so that its table has more rows than it can use.
        tokenizer: asked for ``model_max_length`` where the configuration names no length.
    """
    positions = FAMILIES[config.model_type].positions
    for name in _LENGTHS:
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length - (config.pad_token_id + 1 if positions == "after-padding" else 0)
    limit = getattr(tokenizer, "model_max_length", None)
    if isinstance(limit, int) and 0 < limit < _SANE_CONTEXT:
        return limit
    return DEFAULT_CONTEXT


def _block_info(model: nn.Module, block: Block) -> BlockInfo:
    attention, cross = block.attention, block.cross_attention
    return BlockInfo(
        index=block.index,
        stack=block.stack,
        number=block.number,
        heads=attention.num_heads if attention else 0,
        kv_heads=attention.num_kv_heads if attention else 0,
        head_dim=attention.head_dim if attention else 0,
        cross_heads=cross.num_heads if cross else 0,
        intermediate_size=block.intermediate_size,
        parameters=sum(p.numel() for p in model.get_submodule(block.module).parameters()),
    )
