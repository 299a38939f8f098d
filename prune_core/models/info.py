"""ModelInfo: what the web process knows of a loaded model. Plain data, no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from prune_core.models.weight_counts import WeightCounts

UNKNOWN_LICENSE = "The model's license is not known here"
"""So begins the one warning of loading that says nothing about numbers."""


@dataclass(frozen=True, slots=True)
class LayerInfo:
    """One layer: see ``prune_core.models.structure.Layer``; ``zeros``: weights zero as loaded."""

    name: str
    block: int
    role: str
    rows: int
    columns: int
    zeros: int = 0


@dataclass(frozen=True, slots=True)
class BlockInfo:
    """One block; ``heads``, ``kv_heads``, ``cross_heads`` are 0 without that attention."""

    index: int
    stack: str
    number: int
    heads: int
    kv_heads: int
    head_dim: int
    cross_heads: int
    intermediate_size: int
    parameters: int


@dataclass(frozen=True, slots=True)
class ModelInfo:
    """A loaded model as the pages see it.

    Attributes:
        source: canonical source text: what a job's ``source`` should be.
        title: short name for display (escape it: it may come from a file).
        fingerprint: decides every cache key.
        family: ``model_type``.
        kind: ``decoder``, ``encoder``, ``encoder-decoder``.
        has_language_head: perplexity and generation are possible.
        has_chat_template: the tokenizer brings one.
        classes: that an encoder's classification head tells apart; 0 without one.
        parameters: all parameters, tied ones once; prunable: weights in layers.
        embeddings: parameters of embedding tables and output head, tied ones once.
        zeros_elsewhere: parameters outside layers that are zero as loaded.
        bytes_in_memory: of the parameters in ``dtype``; context: most tokens it was built for.
        quantized: name of the source's quantization (``Q4_1``), or None.
        license, provenance: shown beside the model; empty when unknown.
        warnings: sentences to show (extra tensors, unknown license).
    """

    source: str
    title: str
    fingerprint: str
    family: str
    kind: str
    has_language_head: bool
    has_chat_template: bool
    parameters: int
    prunable: int
    bytes_in_memory: int
    dtype: str
    device: str
    context: int
    vocabulary: int
    hidden_size: int
    tied_embeddings: bool
    quantized: str | None
    license: str
    provenance: str
    warnings: tuple[str, ...]
    blocks: tuple[BlockInfo, ...]
    layers: tuple[LayerInfo, ...]
    load_seconds: float
    classes: int = 0
    embeddings: int = 0
    zeros_elsewhere: int = 0

    @property
    def zeros(self) -> int:
        """Prunable weights that are zero as loaded."""
        return sum(layer.zeros for layer in self.layers)

    def counts(self) -> WeightCounts:
        """Of the loaded model, from which nothing is removed."""
        zeros = self.zeros
        return WeightCounts(
            self.parameters,
            self.prunable,
            self.embeddings,
            zeros_before=zeros,
            removed=0,
            added=0,
            zeros_after=zeros,
            zeros_elsewhere=self.zeros_elsewhere,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain nested data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> ModelInfo:
        """Read what :meth:`to_dict` wrote."""
        content = dict(data)
        content["blocks"] = tuple(BlockInfo(**b) for b in content["blocks"])
        content["layers"] = tuple(LayerInfo(**x) for x in content["layers"])
        content["warnings"] = tuple(content["warnings"])
        return cls(**content)
