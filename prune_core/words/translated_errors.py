"""What the library says of an error, in the reader's language.

The library raises English sentences and knows no other language. ``assets/i18n/errors/LANG.json``
maps the template of each (see :mod:`prune_core.sentences`) to its translation, whose
``{placeholders}`` have the same names and no formats. Pieces that never stand alone are in
``assets/i18n/phrases/LANG.json``.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from functools import cache

from prune_core.errors import PruneCoreError
from prune_core.paths import ASSETS_FOLDER
from prune_core.sentences import Sentence, Value, filled

_WORD = re.compile(r"[a-z]+[ ,:;]")  # no name with a dot, a digit or a hyphen
_COMMA = "、"  # of Chinese, the only translation there is


def translated(error: object, language: str, *, inside: bool = False) -> str:
    """An error's sentence as the reader's language has it; unchanged where it has none.

    The library's English begins as on a command line, ``error: this recipe removes ...``; here the
    sentence stands alone and begins with a capital.

    Args:
        error: what the library raised, or its sentence; not escaped yet.
        language: the reader's.
        inside: it goes on within another sentence.
    """
    said = error.sentence if isinstance(error, PruneCoreError) else error
    sentence = said if isinstance(said, Sentence) else Sentence(str(said))
    text = _said(sentence, _entries(language))
    if language == "en" and not inside and _WORD.match(text):
        return text[0].upper() + text[1:]
    return text


def read(kind: str, language: str) -> Mapping[str, str]:
    """The catalogue ``errors`` or ``phrases`` of a language: English template to translation."""
    path = ASSETS_FOLDER / "i18n" / kind / f"{language}.json"
    if not path.is_file():  # English needs none
        return {}
    entries: dict[str, str] = json.loads(path.read_text(encoding="utf-8"))
    return entries


@cache
def _entries(language: str) -> Mapping[str, str]:
    return {**read("phrases", language), **read("errors", language)}


def _said(value: Value, entries: Mapping[str, str]) -> str:
    if isinstance(value, list):
        return _COMMA.join(_said(part, entries) for part in value)
    if not isinstance(value, Sentence) or value.template not in entries:
        return str(value)
    return filled(entries[value.template], value.values, lambda part, _: _said(part, entries))
