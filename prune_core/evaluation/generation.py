"""Generation: one token at a time, streamed, seeded, cancellable, dense and pruned in step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from prune_core.errors import RecipeError, TextError
from prune_core.models.sources import shown
from prune_core.models.structure import Structure
from prune_core.progress import NONE, Progress

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

MAX_NEW_TOKENS = 1024
MAX_PROMPT_CHARACTERS = 8192
MAX_SEED = 2**63 - 1


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is chosen.

    Attributes:
        greedy: the most likely one; the rest is then not read.
        seed: 0 to :data:`MAX_SEED`; equal seeds draw equal tokens from equal distributions.
        temperature: above 0.
        top_p: smallest set of tokens with at least this probability, in (0, 1].
    """

    greedy: bool = True
    seed: int = 0
    temperature: float = 0.8
    top_p: float = 0.95

    def __post_init__(self) -> None:
        if not 0 <= self.seed <= MAX_SEED:
            raise RecipeError(
                "the seed of the text must be a whole number from 0 to {most}, got {seed}.",
                most=MAX_SEED,
                seed=self.seed,
            )
        if self.greedy:
            return
        if not (math.isfinite(self.temperature) and 0.01 <= self.temperature <= 10):
            raise RecipeError(
                "the temperature must lie between 0.01 and 10, got {temperature}; for the most "
                "likely token use greedy.",
                temperature=self.temperature,
            )
        if not (math.isfinite(self.top_p) and 0 < self.top_p <= 1):
            raise RecipeError(
                "top-p must lie above 0 and at most 1, got {top_p}.", top_p=self.top_p
            )


def encode_prompt(
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    chat: bool,
    max_context: int,
    continued: bool = True,
) -> Tensor:
    """Prompt to tokens (1, seq).

    An empty prompt starts from the beginning-of-sequence token. With ``chat`` the tokenizer's
    template wraps the prompt as one user message.

    Args:
        tokenizer: of the model.
        prompt: what a user wrote.
        chat: wrap it.
        max_context: most tokens that the model reads.
        continued: the answer continues the prompt (a decoder): an end token that the tokenizer
            puts behind it by itself is left out.

    Raises:
        TextError: too long, not valid Unicode, empty where the tokenizer has no start token, or no
            chat template or one that refuses the prompt.
    """
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise TextError(
            "The prompt has {count} characters; at most {most} are read.",
            count=len(prompt),
            most=MAX_PROMPT_CHARACTERS,
        )
    try:
        prompt.encode("utf-8")
    except UnicodeEncodeError:  # bytes of a command line that are no UTF-8 come as half characters
        raise TextError(
            "The prompt holds characters that are not valid Unicode; write it as UTF-8."
        ) from None
    if chat:
        if not tokenizer.chat_template:
            raise TextError("This model has no chat template; switch it off.")
        try:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True
            )
        except Exception as error:  # a template is a small program of the model's makers
            reason = shown((str(error).strip() or type(error).__name__).splitlines()[0], 160)
            raise TextError(
                "The model's chat template refuses the prompt ({reason}); switch it off.",
                reason=reason.rstrip("."),
            ) from error
        ids = tokenizer(text, add_special_tokens=False).input_ids
    else:
        ids = list(tokenizer(prompt).input_ids)
        bare = tokenizer(prompt, add_special_tokens=False).input_ids
        ends = {tokenizer.eos_token_id, tokenizer.sep_token_id} - {None}
        while continued and ids and ids[-1] in ends and bare[-1:] != ids[-1:]:
            ids.pop()
    if not ids:
        start = tokenizer.bos_token_id
        start = tokenizer.eos_token_id if start is None else start
        if start is None:
            raise TextError("The prompt is empty; write at least one word.")
        ids = [start]
    if len(ids) >= max_context:
        raise TextError(
            "The prompt has {count} tokens; this model reads fewer than {most}.",
            count=len(ids),
            most=max_context,
        )
    return torch.tensor([ids], dtype=torch.int64)


def end_tokens(model: nn.Module, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer, from the generation config and the tokenizer."""
    config: Any = getattr(model, "generation_config", None)
    ends = getattr(config, "eos_token_id", None)
    ids = set(ends) if isinstance(ends, list | tuple) else {ends}
    ids.add(tokenizer.eos_token_id)
    return frozenset(token for token in ids if token is not None)


@torch.inference_mode()
def next_tokens(
    model: nn.Module,
    structure: Structure,
    prompt: Tensor,
    sampling: Sampling,
    *,
    ends: frozenset[int],
    max_new_tokens: int,
) -> Iterator[int]:
    """Tokens that continue a prompt, one at a time, the end token left out.

    Args:
        model: dense or pruned.
        structure: of the model; an encoder-decoder reads the prompt with its encoder.
        prompt: (1, seq) int64.
        sampling: how to choose.
        ends: tokens that end the answer.
        max_new_tokens: at most this many.

    Raises:
        TextError: the model gives logits that are not finite.
    """
    generator = torch.Generator().manual_seed(sampling.seed)
    anything: Any = model
    arguments: dict[str, Any] = {"use_cache": True}
    if structure.kind == "encoder-decoder":
        arguments["encoder_outputs"] = anything.get_encoder()(input_ids=prompt)
        start = anything.config.decoder_start_token_id
        key, step = "decoder_input_ids", torch.tensor([[start]], device=prompt.device)
    else:
        key, step = "input_ids", prompt
    past = None
    for _ in range(max_new_tokens):
        output = anything(**{key: step}, past_key_values=past, **arguments)
        past = output.past_key_values
        token = choose(output.logits[0, -1].float().cpu(), sampling, generator)
        if token in ends:
            return
        yield token
        step = torch.tensor([[token]], device=prompt.device)


def choose(logits: Tensor, sampling: Sampling, generator: torch.Generator) -> int:
    """Choose a token from (vocab,) logits.

    Raises:
        TextError: a logit is NaN, or all are infinite.
    """
    if bool(torch.isnan(logits).any()) or not bool(torch.isfinite(logits).any()):
        raise TextError("The pruned model's output is not finite; it can write no text.")
    if sampling.greedy:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.double() / sampling.temperature, dim=-1)
    ordered, ids = probabilities.sort(descending=True, stable=True)
    # a token stays while the probability before it is below top_p: the likeliest always does
    ordered[ordered.cumsum(-1) - ordered >= sampling.top_p] = 0
    return int(ids[torch.multinomial(ordered, 1, generator=generator)])


@dataclass
class Writing:
    """The text of one answer while it grows.

    ``pieces`` join to ``text``: a character split over several tokens appears with the last. Where
    a tokenizer spells the end anew with a further token, the pieces before it are cut back.
    """

    tokenizer: PreTrainedTokenizerBase
    ids: list[int] = field(default_factory=list)
    pieces: list[str] = field(default_factory=list)
    text: str = ""
    finished: bool = False

    def add(self, token: int) -> None:
        """Append a token."""
        self.ids.append(token)
        whole = self.tokenizer.decode(self.ids, skip_special_tokens=False)
        # replacement characters at the end are a character still being spelled: one for all of it
        # or, from a tokenizer that falls back to bytes, one for each of its bytes so far
        stable = whole.rstrip("\ufffd")
        if self.text.startswith(stable):  # nothing new
            self.pieces.append("")
            return
        pairs = enumerate(zip(self.text, stable, strict=False))
        parted = (place for place, (ours, theirs) in pairs if ours != theirs)
        shared = room = next(parted, len(self.text))
        for place, piece in enumerate(self.pieces):
            self.pieces[place] = piece[:room]
            room -= len(self.pieces[place])
        self.pieces.append(stable[shared:])
        self.text = stable

    def finish(self) -> None:
        """No more tokens come: bytes that spell nothing are shown, a character cut short is not."""
        self.finished = True
        rest = self.tokenizer.decode(self.ids, skip_special_tokens=False)[len(self.text) :]
        if len(rest) > 3:  # a character lacks at most three bytes
            self.pieces[-1] += rest
            self.text += rest

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as the ``Generate`` job describes it."""
        return {
            "text": self.text,
            "pieces": list(self.pieces),
            "ids": list(self.ids),
            "finished": self.finished,
        }


def first_difference(left: list[int], right: list[int], *, finished: bool) -> int | None:
    """Index of the first token in which two answers part, or None so far.

    Args:
        left: token ids.
        right: token ids.
        finished: both answers are complete, so one being longer counts as parting.
    """
    for index, (a, b) in enumerate(zip(left, right, strict=False)):
        if a != b:
            return index
    if finished and len(left) != len(right):
        return min(len(left), len(right))
    return None


def write_in_step(
    streams: dict[str, Iterator[int]],
    tokenizer: PreTrainedTokenizerBase,
    progress: Progress = NONE,
) -> Iterator[dict[str, Writing]]:
    """Advance several answers by one token each, and yield after every round.

    Raises:
        Cancelled: never; a cancelled round is simply the last one. The caller looks.
    """
    writings = {name: Writing(tokenizer) for name in streams}
    while not all(w.finished for w in writings.values()) and not progress.cancelled:
        for name, stream in streams.items():
            if writings[name].finished:
                continue
            token = next(stream, None)
            if token is None:
                writings[name].finish()
            else:
                writings[name].add(token)
        yield writings
