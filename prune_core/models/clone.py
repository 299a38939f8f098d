"""Copies of a model that share its tensors."""

from __future__ import annotations

import copy
import itertools
from typing import TypeVar

from torch import nn

M = TypeVar("M", bound=nn.Module)


def clone_shared(model: M) -> M:
    """A new module tree over the same parameters and buffers.

    Cheap (no tensor is copied), and safe to hang hooks on, to give new weights or to switch to
    another attention implementation: nothing of it is seen through the original. Tied weights
    stay tied.

    Args:
        model: any module; its configuration is copied with it.
    """
    tensors = itertools.chain(model.parameters(), model.buffers())
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors})
