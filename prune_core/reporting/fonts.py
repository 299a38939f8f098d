"""How wide text is and where its lines break, without the machine's fonts."""

from __future__ import annotations

import unicodedata

# Widths of Arial and of what is metrically its equal, in thousandths of the type size.
_NARROW = (
    dict.fromkeys("ijl'|", 222)
    | dict.fromkeys("\u00a0 .,:;!/\\ft[]I", 278)
    | dict.fromkeys("()-`r", 333)
)
_WIDE = (
    dict.fromkeys("mM", 833) | dict.fromkeys("W", 944) | {"w": 722, "%": 889, "@": 1015, "…": 1000}
)
_CAPITALS = (
    dict.fromkeys("ABEKPSVXY&", 667) | dict.fromkeys("CDHNRU", 722) | dict.fromkeys("GOQ", 778)
)
_OTHER = dict.fromkeys("ckJsvxyz", 500) | {"F": 611, "T": 611, "Z": 611, "L": 556, "\u2013": 556}
_OTHER |= {"+": 584, "=": 584, "<": 584, ">": 584, "±": 584, "·": 333, "→": 1000, "—": 1000}
_WIDTHS = _NARROW | _WIDE | _CAPITALS | _OTHER


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line is, in the unit of ``size``; for bold type a tenth more."""
    total = 0
    for character in text:
        if unicodedata.east_asian_width(character) in ("W", "F"):
            total += 1000
        else:
            total += _WIDTHS.get(character, 580 if ord(character) < 0x250 else 1000)
    return total / 1000 * size * (1.1 if bold else 1.0)


def lines(text: str, size: float, room: float, *, bold: bool = False) -> list[str]:
    """Break a text as an office program does: at spaces, between Chinese characters, or anywhere.

    Args:
        text: with its own line breaks.
        size: of the type, in the unit of ``room``.
        room: width of a line.
        bold: the type is.
    """
    broken: list[str] = []
    for paragraph in text.split("\n"):
        line = ""
        for piece in _pieces(paragraph):
            if width((line + piece).rstrip(), size, bold=bold) <= room:
                line += piece
                continue
            if line:
                broken.append(line.rstrip())
            line = piece
            while width(line.rstrip(), size, bold=bold) > room and len(line) > 1:
                cut = len(line) - 1
                while cut > 1 and width(line[:cut], size, bold=bold) > room:
                    cut -= 1
                broken.append(line[:cut])
                line = line[cut:]
        broken.append(line.rstrip())
    return broken


def _pieces(text: str) -> list[str]:
    """Words with the space after them; each wide character for itself."""
    found: list[str] = []
    word = ""
    for character in text:
        if unicodedata.east_asian_width(character) in ("W", "F"):
            if word:
                found.append(word)
                word = ""
            found.append(character)
        else:
            word += character
            if character == " ":
                found.append(word)
                word = ""
    return [*found, word] if word else found
