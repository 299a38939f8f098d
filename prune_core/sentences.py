"""Sentences for a user that another language can say: an English template and what fills it.

A :class:`Sentence` is an English text like any other, and remembers the template that it was made
of, which is its name in the catalogues of other languages (as in gettext), and its values. It
passes from process to process (pickle) and into the store of runs (:func:`packed`) whole.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from string import Formatter
from typing import Any, cast

Value = str | list[str]
"""What stands in a placeholder: text as it is, a :class:`Sentence`, or a list of such."""

_JOINTS = {"list": ", ", "or": " or ", "and": " and "}
"""Between the names of a list in English, by the format that the template gives."""

_FORMATTER = Formatter()


class Sentence(str):
    """A sentence, or a phrase within one.

    ``Sentence("{name!r} has {count:,} cells.", name="a", count=1000)`` is ``'a' has 1,000 cells.``
    Several are joined: ``{names:list}`` with commas, ``{names:or}`` with "or",
    ``{names:and}`` with "and". A value that is language itself (a phrase, another error's
    sentence) is a :class:`Sentence` too; another language puts in its own words for it. All other
    values are names or numbers, which every language shows alike: they are kept as text.

    Args:
        template: English with ``{placeholders}``, each name with one format; without values it
            is the sentence as it is, braces and all.
        values: what stands in the placeholders; an error stands for its sentence.

    Attributes:
        template: as given.
        values: by placeholder, as text, :class:`Sentence` or list of these.

    Raises:
        KeyError: a placeholder has no value.
    """

    template: str
    values: Mapping[str, Value]

    def __new__(cls, template: str, /, **values: object) -> Sentence:
        """See the class; a sentence without values is that sentence."""
        if not values:
            return template if isinstance(template, cls) else cls._made(str(template), {})
        plain: dict[str, Value] = {}
        for _, name, form, conversion in _FORMATTER.parse(template):
            if name is not None:
                plain[name] = _plain(values[name], conversion, form or "")
        return cls._made(template, plain)

    @classmethod
    def _made(cls, template: str, values: Mapping[str, Value]) -> Sentence:
        """A sentence of values that are plain already."""
        text = filled(template, values, _english)
        sentence = super().__new__(cls, text)
        sentence.template, sentence.values = template, values
        return sentence

    def __reduce__(self) -> tuple[Callable[..., Sentence], tuple[object, ...]]:
        return Sentence._made, (self.template, dict(self.values))


def filled(template: str, values: Mapping[str, Value], say: Callable[[Value, str], str]) -> str:
    """A template with its values put in; without values as it is.

    Args:
        template: English, or a translation of it.
        values: by placeholder.
        say: makes text of a value and of the format after the placeholder's colon.
    """
    if not values:
        return template
    return "".join(
        literal + (say(values[name], form or "") if name is not None else "")
        for literal, name, form, _ in _FORMATTER.parse(template)
    )


def packed(sentence: str) -> str:
    """A sentence as text to be stored: as it is where that says all, otherwise JSON."""
    if not isinstance(sentence, Sentence) or not sentence.values:
        return str(sentence)
    return json.dumps(_data(sentence), ensure_ascii=False)


def unpacked(text: str) -> Sentence:
    """What :func:`packed` made; any other text is a sentence as it is (of earlier versions)."""
    if text.startswith('{"template"'):
        try:
            return _restored(json.loads(text))
        except (ValueError, TypeError, KeyError, AttributeError):  # no template of ours
            pass
    return Sentence(text)


def _plain(value: object, conversion: str | None, form: str) -> Value:
    sentence = getattr(value, "sentence", value)  # of an error
    if isinstance(sentence, Sentence) and not conversion:
        return sentence
    if form in _JOINTS:
        parts = (getattr(part, "sentence", part) for part in cast("Iterable[object]", value))
        return [part if isinstance(part, Sentence) else str(part) for part in parts]
    return str(_FORMATTER.format_field(_FORMATTER.convert_field(value, conversion), form))


def _english(value: Value, form: str) -> str:
    return _JOINTS[form].join(value) if isinstance(value, list) else str(value)


def _data(value: Value) -> Any:
    if isinstance(value, Sentence):
        return {
            "template": value.template,
            "values": {name: _data(part) for name, part in value.values.items()},
        }
    return [_data(part) for part in value] if isinstance(value, list) else value


def _restored(data: Any) -> Any:
    if isinstance(data, dict):
        values = {str(name): _restored(part) for name, part in data["values"].items()}
        return Sentence._made(str(data["template"]), values)
    return [_restored(part) for part in data] if isinstance(data, list) else str(data)
