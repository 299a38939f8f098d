"""Scores of blocks, a file for each; one that is added here is in every list by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from prune_core.jobs.base import Job, TextSpec

STEPS = 4
"""Blocks that a greedy search removes if not told."""


@dataclass(frozen=True, slots=True)
class BlockRequest:
    """What a method is asked; it answers with the result of its job, and ``scores`` by block.

    A method that suggests blocks names them under ``suggested``.

    Attributes:
        source: of the model.
        text: what is read.
        seq_len: tokens of a window.
        windows: of the text.
        run: runs a job; several on one model should load it once.
        length: blocks in a run, of a method that compares runs.
        halves: attention and MLP alone too.
        steps: blocks to remove one after the other; None for as many as is usual.
        ends: the first and the last block may go too.
    """

    source: str
    text: TextSpec
    seq_len: int
    windows: int
    run: Callable[[Job], Mapping[str, Any]]
    length: int = 1
    halves: bool = False
    steps: int | None = None
    ends: bool = False
