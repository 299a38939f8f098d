"""Token windows of a text."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from prune_core.errors import RecipeError, TextError
from prune_core.models.families import FAMILIES
from prune_core.models.sources import shown

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

MAX_WINDOWS = 4096

MIN_TOKENS = 2  # one to condition on, one to predict

START = "PRUNE_BOS"
"""Environment variable: whether windows start with the beginning-of-sequence token; ``auto`` (where
the family needs it), ``yes`` or ``no``."""
STARTS = ("auto", "yes", "no")


def check_windows(seq_len: int, windows: int) -> None:
    """Refuse windows that nothing is measured on.

    Raises:
        RecipeError: fewer than 2 tokens, or not 1 to :data:`MAX_WINDOWS` windows.
    """
    if seq_len < MIN_TOKENS or not 1 <= windows <= MAX_WINDOWS:
        raise RecipeError(
            "a window has at least 2 tokens and there are 1 to {most} windows, got {seq_len} and "
            "{windows}.",
            most=MAX_WINDOWS,
            seq_len=seq_len,
            windows=windows,
        )


def token_windows(
    tokenizer: PreTrainedTokenizerBase,
    text: str,
    *,
    seq_len: int,
    windows: int,
    skip_tokens: int = 0,
    max_context: int | None = None,
    ends: tuple[Sequence[int], Sequence[int]] = ((), ()),
) -> Tensor:
    """Cut a text into windows of tokens that do not overlap.

    The whole text is tokenized without special tokens; the first ``windows * seq_len`` tokens
    after ``skip_tokens`` are taken. A shorter text gives fewer windows; one shorter than a single
    window gives one short window.

    Args:
        tokenizer: of the model.
        text: any length; only what is needed of it matters.
        seq_len: tokens in a window, at least 2.
        windows: windows asked for, at least 1.
        skip_tokens: tokens to leave out at the start.
        max_context: most tokens the model was built for.
        ends: tokens to put before and after each window; they count in its length.

    Returns:
        (windows, seq_len) int64.

    Raises:
        TextError: fewer than 2 tokens, an impossible size, or windows longer than the context.
    """
    import torch

    before, after = ends
    room = seq_len - len(before) - len(after)
    if room < MIN_TOKENS or windows < 1 or skip_tokens < 0:
        least = MIN_TOKENS + seq_len - room
        raise TextError(
            "A window needs at least {least} tokens and there must be at least 1 window, got "
            "{windows} of {seq_len}.",
            least=least,
            windows=windows,
            seq_len=seq_len,
        )
    if max_context is not None and seq_len > max_context:
        raise TextError(
            "Windows of {seq_len} tokens are longer than the model's context of {context}; choose "
            "shorter ones.",
            seq_len=seq_len,
            context=max_context,
        )
    # verbose=False: the length warning is about feeding the text whole, which never happens
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    ids = ids[skip_tokens : skip_tokens + windows * room]
    if len(ids) < MIN_TOKENS:
        raise TextError(
            "The text has {count} tokens to score; it needs at least 2 tokens.", count=len(ids)
        )
    width = min(room, len(ids))
    starts = range(0, len(ids) - width + 1, width)
    rows = [[*before, *ids[start : start + width], *after] for start in starts]
    return torch.tensor(rows, dtype=torch.int64)


def start_of_windows(tokenizer: Any, family: str, kind: str) -> tuple[int, ...]:
    """What each window starts with: the beginning-of-sequence token, or nothing.

    Args:
        tokenizer: of the model.
        family: its ``model_type``.
        kind: ``decoder``, ``encoder`` or ``encoder-decoder``; only decoders get one.

    Raises:
        TextError: ``PRUNE_BOS`` is none of its values, or the tokenizer has no such token.
    """
    setting = os.environ.get(START, "").strip().lower() or "auto"
    if setting not in STARTS:
        raise TextError(
            "{name} must be auto, yes or no, got {value}.", name=START, value=shown(setting)
        )
    needs_start = setting == "yes" or (setting == "auto" and FAMILIES[family].wants_start)
    token = tokenizer.bos_token_id
    if kind != "decoder" or not needs_start or (token is None and setting == "auto"):
        return ()
    if token is None:
        raise TextError(
            "The tokenizer of this model has no beginning-of-sequence token; measure without it "
            "(--bos no)."
        )
    return (int(token),)


def adds_start(tokenizer: Any) -> bool:
    """True if the tokenizer puts a beginning-of-sequence token before a text by itself."""
    token = tokenizer.bos_token_id
    return token is not None and tokenizer("a").input_ids[:1] == [token]
