"""What a model is made of, as data: blocks, layers, attention, MLP. No tensor is held here.

Axis names used everywhere: ``(out, in)`` for a layer's weight, ``(batch, seq, hidden)`` for
activations. A *block* is one transformer block; a *layer* is one linear map inside it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor, nn


@dataclass(frozen=True, slots=True)
class Layer:
    """One prunable linear map, always seen as ``(out, in)``.

    Attributes:
        name: dotted module path inside the model, for example ``model.layers.0.mlp.down_proj``.
        block: flat index of its block; in an encoder-decoder the encoder's blocks come first.
        role: ``attn.q``, ``attn.k``, ``attn.v``, ``attn.o``, ``attn.qkv``, ``mlp.gate``,
            ``mlp.up``, ``mlp.gate_up``, ``mlp.down``, ``cross.q``, ``cross.k``, ``cross.v``,
            ``cross.o``.
        out_features: rows.
        in_features: columns.
        transposed: True for transformers' ``Conv1D`` (GPT-2), which stores ``(in, out)``.
            Nothing outside this class looks at it.
    """

    name: str
    block: int
    role: str
    out_features: int
    in_features: int
    transposed: bool

    @property
    def numel(self) -> int:
        """Number of weights."""
        return self.out_features * self.in_features

    def stored_weight(self, model: nn.Module) -> Tensor:
        """The weight in its stored order, detached; a view, never a copy."""
        return model.get_parameter(f"{self.name}.weight").detach()

    def weight(self, model: nn.Module) -> Tensor:
        """The weight as ``(out, in)``, detached; a view, never a copy."""
        weight = self.stored_weight(model)
        return weight.T if self.transposed else weight

    def to_stored(self, values: Tensor) -> Tensor:
        """Bring an ``(out, in)`` tensor into the weight's stored order, contiguous."""
        return values.T.contiguous() if self.transposed else values.contiguous()

    def from_stored(self, values: Tensor) -> Tensor:
        """Undo :meth:`to_stored`: a view as ``(out, in)``."""
        return values.T if self.transposed else values


@dataclass(frozen=True, slots=True)
class Projection:
    """Some rows of a layer: the whole of it, or one part of a fused ``qkv``.

    ``rows[h]`` is the half-open row range of head ``h`` (a kv head for keys and values).
    """

    layer: str
    rows: tuple[tuple[int, int], ...]


@dataclass(frozen=True, slots=True)
class Attention:
    """One attention module: where its heads are.

    Attributes:
        kind: ``"self"`` or ``"cross"``.
        module: dotted path of the attention module.
        num_heads: query heads.
        num_kv_heads: key/value heads; fewer than ``num_heads`` means grouped-query attention.
        head_dim: width of one head.
        q: rows of each query head.
        k: rows of each key head.
        v: rows of each value head.
        o: name of the output projection; query head ``h`` owns its input columns
            ``h * head_dim`` to ``(h + 1) * head_dim``.
        joint_norm: queries and keys are normalized over all heads together: a dropped head leaves
            its rows of both in place, or the other heads would change.
    """

    kind: str
    module: str
    num_heads: int
    num_kv_heads: int
    head_dim: int
    q: Projection
    k: Projection
    v: Projection
    o: str
    joint_norm: bool = False

    @property
    def group_size(self) -> int:
        """Query heads that share one key/value head."""
        return self.num_heads // self.num_kv_heads

    def columns(self, head: int) -> slice:
        """Input columns of ``o`` that query head ``head`` writes through."""
        return slice(head * self.head_dim, (head + 1) * self.head_dim)


@dataclass(frozen=True, slots=True)
class Block:
    """One transformer block.

    Attributes:
        index: flat index over the whole model, encoder first.
        stack: ``"encoder"`` or ``"decoder"``.
        number: index within its stack.
        module: dotted path.
        attention: self-attention, or None.
        cross_attention: the decoder's attention to the encoder, or None.
        layers: names of its layers in forward order.
        intermediate_size: MLP neurons, 0 without an MLP.
    """

    index: int
    stack: str
    number: int
    module: str
    attention: Attention | None
    cross_attention: Attention | None
    layers: tuple[str, ...]
    intermediate_size: int

    def attention_of(self, kind: str) -> Attention | None:
        """The attention of a kind, ``"self"`` or ``"cross"``."""
        return self.attention if kind == "self" else self.cross_attention


@dataclass(frozen=True, slots=True)
class Structure:
    """Everything prunable in a model, in forward order.

    Attributes:
        family: the ``model_type`` it was read as.
        kind: ``"decoder"``, ``"encoder"`` or ``"encoder-decoder"``.
        blocks: by flat index.
        layers: dotted name to layer.
        head_module: dotted path of the output head, or None (an encoder without one).
        plain_head: the logits are exactly ``head(last_hidden_state)``: no scaling, soft cap,
            added bias buffer or transform, so the head may be applied in slices.
        classes: that a sequence-classification head tells apart; 0 without one, and where its
            outputs are no distribution over classes (regression, several labels at once).
    """

    family: str
    kind: str
    blocks: tuple[Block, ...]
    layers: Mapping[str, Layer]
    head_module: str | None
    plain_head: bool
    classes: int = 0
