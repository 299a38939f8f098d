"""What the library says of an error, in the reader's language.

The library raises English sentences and knows no other language. ``assets/i18n/errors/LANG.json``
maps each of them, as a template with ``{placeholders}``, to its translation: the template that
fits a sentence yields the values, which are put into the translation as they are. Where a value is
itself a piece of language the translation says so: ``{x:told}`` is translated too, ``{x:list}`` is
a list of names to be joined as the language does, ``{x:told list}`` is both. Pieces that never
stand alone are in ``assets/i18n/phrases/LANG.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache
from string import Formatter
from typing import NamedTuple

from prune_core.paths import ASSETS_FOLDER

_BETWEEN = re.compile(r", | or | and ")
_WORD = re.compile(r"[a-z]+[ ,:;]")  # no name with a dot, a digit or a hyphen
_COMMA = "、"  # of Chinese, the only translation there is


class Template(NamedTuple):
    """One entry of a catalogue, ready for use.

    Attributes:
        pattern: fits whole sentences; its groups are the placeholders.
        pieces: the translation: literal text, then the placeholder behind it and its format.
        literals: number of characters of the sentence outside placeholders.
    """

    pattern: re.Pattern[str]
    pieces: tuple[tuple[str, str | None, str], ...]
    literals: int


def translated(error: object, language: str, *, inside: bool = False) -> str:
    """An error's sentence as the reader's language has it; unchanged where no template fits.

    The library's English begins as on a command line, ``error: this recipe removes ...``; here the
    sentence stands alone and begins with a capital.

    Args:
        error: what the library raised, or its text; not escaped yet.
        language: the reader's.
        inside: it goes on within another sentence.
    """
    sentence = _told(str(error), language, _templates("errors", language))
    if language == "en" and not inside and _WORD.match(sentence):
        return sentence[0].upper() + sentence[1:]
    return sentence


def read(kind: str, language: str) -> Mapping[str, str]:
    """The catalogue ``errors`` or ``phrases`` of a language: English template to translation."""
    path = ASSETS_FOLDER / "i18n" / kind / f"{language}.json"
    if not path.is_file():  # English needs none
        return {}
    found: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return found


def split(text: str) -> tuple[list[str], list[str]]:
    """The literal text around a template's placeholders, and their names."""
    literals, names = [""], []
    for literal, name, *_ in Formatter().parse(text):
        literals[-1] += literal  # a doubled brace parts a literal in two
        if name is not None:
            names.append(name)
            literals.append("")
    return literals, names


def compiled(english: str, translation: str) -> Template:
    """A catalogue's entry as a pattern and what to put in its place.

    Each placeholder ends where the literal after it is met first, and is not tried again (``?>``):
    a long hostile name in a sentence costs no more than a short one.
    """
    literals, names = split(english)
    pattern, *rest = map(re.escape, literals)
    for name, literal in zip(names[:-1], rest, strict=False):
        pattern += f"(?>(?P<{name}>.*?){literal})"
    if names:
        pattern += f"(?P<{names[-1]}>.*){rest[-1]}"
    pieces = tuple((text, name, how or "") for text, name, how, _ in Formatter().parse(translation))
    return Template(re.compile(pattern, re.DOTALL), pieces, sum(map(len, literals)))


@cache
def _templates(kinds: str, language: str) -> tuple[Template, ...]:
    """Entries of one or more catalogues; of several that fit, the most literal is met first."""
    found = [compiled(*entry) for kind in kinds.split() for entry in read(kind, language).items()]
    return tuple(sorted(found, key=lambda x: (-x.literals, x.pattern.groups)))


def _told(sentence: str, language: str, templates: tuple[Template, ...]) -> str:
    for template in templates:
        if found := template.pattern.fullmatch(sentence):
            return "".join(
                text + (_put(found[name], how, language) if name else "")
                for text, name, how in template.pieces
            )
    return sentence


def _put(value: str, how: str, language: str) -> str:
    if how == "":
        return value
    names = _BETWEEN.split(value) if "list" in how else [value]
    if "told" in how:
        templates = _templates("phrases errors", language)
        names = [_told(name, language, templates) for name in names]
    return _COMMA.join(names)
