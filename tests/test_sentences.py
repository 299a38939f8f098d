"""A sentence is its English text, and keeps its template and values wherever it goes."""

from __future__ import annotations

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest

from prune_core.errors import ModelFileError, PruneCoreError, RecipeError, UnknownNameError
from prune_core.sentences import Sentence, packed, unpacked

INNER = RecipeError("it takes {known:list}", known=("a", Sentence("a block's index")))
WHOLE = Sentence(
    "{name!r} has {size:,.1f} MB and {{braces}}: {error}, {names:or} or {both:and}.",
    name="x",
    size=12345.678,
    error=INNER,
    names=["1", 2],
    both={"b": 0, "c": 0},
)
ENGLISH = "'x' has 12,345.7 MB and {braces}: it takes a, a block's index, 1 or 2 or b and c."


def test_the_english_is_what_an_f_string_gives() -> None:
    name, size, shape = Path("x"), 0.5, (2, 3)
    assert Sentence("{a} {b!r} {c!s}", a=name, b=name, c=name) == f"{name} {name!r} {name!s}"
    assert (
        Sentence("{a:.3g}{b:>8.2%} {c}", a=size, b=size, c=shape)
        == f"{size:.3g}{size:>8.2%} {shape}"
    )
    assert WHOLE == ENGLISH


def test_without_values_braces_are_braces() -> None:
    for text in ("{from: 0.1}", "{", "a {{b}} c", ""):
        assert Sentence(text) == text == str(PruneCoreError(text))


def test_a_missing_value_is_a_fault() -> None:
    with pytest.raises(KeyError):
        Sentence("{one} {two}", one=1)


def test_an_error_is_its_sentence() -> None:
    error = UnknownNameError("unknown {kind} {name!r}", kind=Sentence("model"), name="x")
    assert str(error) == "unknown model 'x'" == error.args[0]
    assert error.template == "unknown {kind} {name!r}"
    assert error.values == {"kind": "model", "name": "'x'"}
    assert RecipeError(error.sentence).sentence is error.sentence
    with pytest.raises(ModelFileError, match=r"^unknown model 'x'$"):
        raise ModelFileError(error.sentence)


def stored(sentence: Sentence) -> Sentence:
    return unpacked(json.loads(json.dumps(packed(sentence))))


WAYS: list[Callable[[Sentence], Sentence]] = [
    *(copy.copy, copy.deepcopy, stored),
    lambda sentence: pickle.loads(pickle.dumps(sentence)),
    lambda sentence: pickle.loads(pickle.dumps(RecipeError(sentence))).sentence,
]


@pytest.mark.parametrize("way", WAYS)
def test_it_comes_back_whole(way: Callable[[Sentence], Sentence]) -> None:
    back = way(WHOLE)
    assert (back, back.template, back.values) == (ENGLISH, WHOLE.template, WHOLE.values)
    inner = back.values["error"]
    assert isinstance(inner, Sentence) and inner.template == INNER.template
    known = inner.values["known"]
    assert isinstance(known[1], Sentence) and not isinstance(known[0], Sentence)


@pytest.mark.parametrize(
    "text", ["Nothing worked.", "", "{", '{"template": 1}', '{"template": "{a}", "values": {}}x']
)
def test_what_an_earlier_version_stored_is_a_sentence_as_it_is(text: str) -> None:
    assert unpacked(text) == text == unpacked(text).template
    assert packed(text) == text


def test_a_plain_sentence_is_stored_as_it_is() -> None:
    assert packed(Sentence("The server is busy.")) == "The server is busy."
