from __future__ import annotations

from collections.abc import Mapping
from itertools import groupby
from typing import Any
from unittest import mock

import pytest
import torch

from prune_core.engine.core import Core
from prune_core.errors import Cancelled, PruneCoreError, RecipeError, TextError
from prune_core.evaluation.generation import (
    Sampling,
    Writing,
    choose,
    encode_prompt,
    first_difference,
    next_tokens,
)
from prune_core.jobs.evaluate import Generate
from prune_core.models.clone import clone_shared
from prune_core.models.handle import ModelHandle
from prune_core.progress import Progress
from prune_core.recipes.recipe import Recipe


def greedy(handle: ModelHandle, prompt: torch.Tensor, count: int) -> list[int]:
    return list(
        next_tokens(
            handle.model,
            handle.structure,
            prompt,
            Sampling(),
            ends=frozenset(),
            max_new_tokens=count,
        )
    )


@pytest.mark.parametrize("name", ["tiny-gpt2", "tiny-llama", "tiny-opt", "tiny-neox"])
def test_greedy_is_what_transformers_writes(name: str, handles: Mapping[str, ModelHandle]) -> None:
    handle = handles[name]
    prompt = encode_prompt(handle.tokenizer, "Hello there", chat=False, max_context=256)
    with torch.no_grad():
        theirs = handle.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=20,
            eos_token_id=None,
            pad_token_id=0,
        )[0]
    assert greedy(handle, prompt, 20) == theirs[prompt.shape[1] :].tolist()


def test_an_encoder_decoder_writes_what_it_writes_without_a_cache(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-t5"]
    prompt = encode_prompt(handle.tokenizer, "Hello there", chat=False, max_context=256)
    written = [handle.model.config.decoder_start_token_id]
    with torch.no_grad():
        for _ in range(12):
            output = handle.model(
                input_ids=prompt, decoder_input_ids=torch.tensor([written]), use_cache=False
            )
            written.append(int(output.logits[0, -1].argmax()))
    assert greedy(handle, prompt, 12) == written[1:]


def test_sampling_follows_its_seed_and_its_nucleus() -> None:
    logits = torch.log(torch.tensor([0.5, 0.3, 0.15, 0.05]))
    narrow = Sampling(greedy=False, top_p=0.6, temperature=1.0)
    drawn = {choose(logits, narrow, torch.Generator().manual_seed(i)) for i in range(60)}
    assert drawn == {0, 1}, "0.5 is below 0.6, 0.8 is not"
    wide = Sampling(greedy=False, top_p=1.0, temperature=1.0)
    drawn = {choose(logits, wide, torch.Generator().manual_seed(i)) for i in range(400)}
    assert drawn == {0, 1, 2, 3}
    one, same = (choose(logits, wide, torch.Generator().manual_seed(5)) for _ in range(2))
    assert one == same
    assert choose(logits, Sampling(), torch.Generator()) == 0


@pytest.mark.parametrize("temperature", [0.0, 1e-9, float("nan"), -1.0, float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature: float) -> None:
    with pytest.raises(RecipeError, match="temperature"):
        Sampling(greedy=False, temperature=temperature)


def test_logits_that_are_not_finite_are_said() -> None:
    with pytest.raises(TextError, match="not finite"):
        choose(torch.tensor([1.0, float("nan")]), Sampling(), torch.Generator())


def test_pieces_join_to_the_text(handles: Mapping[str, ModelHandle]) -> None:
    tokenizer = handles["tiny-llama"].tokenizer  # one token a byte: characters are split
    writing = Writing(tokenizer)
    for token in tokenizer("año 你好 🙂!", add_special_tokens=False).input_ids:
        writing.add(token)
        assert "".join(writing.pieces) == writing.text
        assert "\ufffd" not in writing.text
    assert writing.text == "año 你好 🙂!"


class Bytes:
    """Falls back to bytes as SentencePiece does: one replacement for each byte of a wrong run."""

    def decode(self, ids: list[int], **_: object) -> str:
        text = ""
        for plain, run in groupby(ids, key=lambda token: token < 128):
            part = bytes(run)
            try:
                text += part.decode("utf-8")
            except UnicodeDecodeError:
                assert not plain
                text += "\ufffd" * len(part)
        return text


def written(data: bytes) -> Writing:
    tokenizer: Any = Bytes()
    writing = Writing(tokenizer)
    for token in data:
        writing.add(token)
        assert "".join(writing.pieces) == writing.text
    return writing


def test_a_character_spelled_byte_by_byte_is_held_back_whole() -> None:
    writing = written("a 🙂 b".encode())
    assert writing.text == "a 🙂 b"
    assert writing.pieces == ["a", " ", "", "", "", "🙂", " ", "b"]
    writing = written("é🙂".encode())  # the first one turns into replacements for a while
    assert writing.text == "é🙂" and writing.pieces == ["", "é", "", "", "", "🙂"]


def test_what_is_spelled_anew_takes_its_place() -> None:
    tokenizer: Any = mock.Mock(decode=lambda ids, **_: ["I '", "I'm", "I'm b"][len(ids) - 1])
    writing = Writing(tokenizer)
    for token in range(3):
        writing.add(token)
    assert writing.text == "I'm b" == "".join(writing.pieces)


def test_bytes_that_spell_nothing_are_shown_at_the_end() -> None:
    short, broken = written("a🙂".encode()[:-1]), written(b"a" + b"\xf0" * 5)
    short.finish()
    broken.finish()
    assert short.text == "a" and broken.text == "a" + "\ufffd" * 5
    assert "".join(broken.pieces) == broken.text and short.finished and broken.finished


@pytest.mark.parametrize("greedy", [True, False])
@pytest.mark.parametrize("seed", [-1, 2**63, 2**64])
def test_a_seed_out_of_range_is_refused(seed: int, greedy: bool) -> None:
    with pytest.raises(RecipeError, match="seed of the text must be a whole number from 0 to"):
        Sampling(greedy=greedy, seed=seed)


def test_where_answers_part() -> None:
    assert first_difference([1, 2, 3], [1, 5, 3], finished=False) == 1
    assert first_difference([1, 2], [1, 2, 3], finished=False) is None
    assert first_difference([1, 2], [1, 2, 3], finished=True) == 2
    assert first_difference([1], [1], finished=True) is None


def run(job: Generate) -> dict[str, object]:
    return Core().run(job)


def test_dense_and_pruned_in_step() -> None:
    same = run(Generate("tiny-llama", Recipe(), "Hello", 12))
    assert same["divergence"] is None
    assert same["dense"] == same["pruned"]
    parted = run(Generate("tiny-llama", Recipe(sparsity=0.9), "Hello", 12))
    assert parted["divergence"] is not None
    assert parted["dense"] == same["dense"]
    drawn = Generate("tiny-llama", Recipe(), "Hello", 12, greedy=False, seed=3, with_dense=False)
    assert run(drawn)["pruned"] == run(drawn)["pruned"]


@pytest.mark.parametrize(
    "job",
    [
        Generate("tiny-llama", prompt="x" * 10_000),
        Generate("tiny-llama", prompt="x", max_new_tokens=0),
        Generate("tiny-llama", prompt="x", max_new_tokens=10**6),
        Generate("tiny-llama", prompt="x", chat=True),
        Generate("tiny-llama", prompt="x" * 300),
        Generate("tiny-bert", prompt="x"),
        Generate("tiny-llama", prompt="x\udcff"),
        Generate("tiny-llama", prompt="x", seed=2**64),
    ],
    ids=["long", "none", "million", "no template", "context", "encoder", "no UTF-8", "seed"],
)
def test_what_cannot_be_written_is_refused(job: Generate) -> None:
    with pytest.raises(PruneCoreError) as caught:
        run(job)
    assert "\n" not in str(caught.value)


def test_an_empty_prompt_starts_from_the_start_token() -> None:
    assert run(Generate("tiny-llama", prompt="", max_new_tokens=3))["prompt_tokens"] == 1


def test_an_encoder_decoder_writes_what_transformers_writes(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-t5"]
    prompt = encode_prompt(handle.tokenizer, "Hello there", chat=False, max_context=256)
    with torch.no_grad():
        theirs = handle.model.generate(
            prompt,
            attention_mask=torch.ones_like(prompt),
            do_sample=False,
            max_new_tokens=12,
            eos_token_id=None,
            pad_token_id=0,
            use_cache=False,  # its own cache is as deep as the encoder: the decoder is deeper here
        )[0]
    assert greedy(handle, prompt, 12) == theirs[1:].tolist()


@pytest.mark.parametrize("top_p", [0.0, -0.5, 1.5, float("nan"), float("inf")])
def test_a_nucleus_out_of_range_is_refused(top_p: float) -> None:
    with pytest.raises(RecipeError, match="top-p"):
        Sampling(greedy=False, top_p=top_p)


def test_seeds_decide_what_is_drawn() -> None:
    def drawn(seed: int) -> object:
        job = Generate("tiny-gpt2", Recipe(), "Hello", 16, greedy=False, seed=seed)
        return run(job)["pruned"]

    assert drawn(1) == drawn(1)
    assert len({str(drawn(seed)) for seed in range(4)}) > 1


def test_cancelled_writing_stops_at_the_next_token() -> None:
    core, written = Core(), 0

    def emit(event: dict[str, object]) -> None:
        nonlocal written
        written += "pruned" in event

    with pytest.raises(Cancelled):
        core.run(
            Generate("tiny-llama", Recipe(), "Hello", 60), Progress(emit, lambda: written >= 3)
        )
    assert written == 3


def test_a_pruned_model_that_is_not_finite_writes_nothing(
    handles: Mapping[str, ModelHandle],
) -> None:
    handle = handles["tiny-llama"]
    model = clone_shared(handle.model)
    head = model.get_submodule(handle.structure.head_module or "")
    broken = torch.full_like(head.weight, float("nan"))
    head.weight = torch.nn.Parameter(broken, requires_grad=False)
    stream = next_tokens(
        model,
        handle.structure,
        torch.tensor([[5, 6]]),
        Sampling(),
        ends=frozenset(),
        max_new_tokens=3,
    )
    with pytest.raises(TextError, match="not finite"):
        next(stream)
