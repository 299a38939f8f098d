"""Biases that a pruned model has and its dense original has not: a place for them in the files.

What dropped neurons gave on average goes into the bias of ``mlp.down``. Where a family's MLPs have
none, its configuration may have a switch for them (``mlp_bias`` of Llama and SmolLM3); all three
layers of an MLP then get one, zero but for ``down``'s.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

_DOWN = "mlp.down_proj.bias"


def allow_biases(config: Any, state: dict[str, Tensor]) -> None:
    """Switch a configuration's MLP biases on if the state has such a bias; ``config`` is changed.

    Args:
        config: of the model to build.
        state: the pruned model's tensors by name.
    """
    if hasattr(config, "mlp_bias") and any(name.endswith(_DOWN) for name in state):
        config.mlp_bias = True


def fill_biases(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Zeros for the MLP biases that a model has beside those in ``state``, which is changed."""
    for name, value in model.state_dict().items():
        if ".mlp." in name and name.endswith("_proj.bias") and name not in state:
            dtype = next(iter(state.values())).dtype
            state[name] = torch.zeros_like(value, dtype=dtype, device="cpu")
