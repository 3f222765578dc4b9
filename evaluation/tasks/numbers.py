"""Numbers in prose: the last one of an answer, in one spelling.

1,000 and 1000, $5 and 5, 5.0 and 5, 1/2 and 0.5 are the same answer. Values are exact fractions, so that no rounding
decides. A currency or per cent sign does not count, nor does a unit. A hyphen is a minus only where no word, digit or
bracket stands right before it: "10-3" ends in 3, "= -3" in -3.
"""

from __future__ import annotations

import re
import unicodedata
from collections import deque
from fractions import Fraction

LONGEST = 100
"""Characters of a number; what is longer is not an answer that somebody meant."""

READ = 50_000
"""Characters at the end of a text in which a number is looked for."""

_PLAIN = str.maketrans(
    {"，": ",", "٬": ",", "\u00a0": ",", "\u202f": ",", "．": ".", "٫": ".", "−": "-", "－": "-", "⁄": "/", "／": "/"}
)
"""Other scripts' signs, one for one. Spaces that do not break group digits; any other use of them is no digit's."""

_GROUPED = r"\d{1,3}(?:,\d{3})+(?!\d)"
_DECIMAL = rf"(?:{_GROUPED}|\d+)(?:\.\d+)?(?:[eE][+-]?\d{{1,2}}(?![\w.]))?|\.\d+"
_NUMBER = re.compile(
    rf"(?:(?P<whole>\d{{1,9}}) )?(?P<over>\d{{1,100}}) ?/ ?(?P<under>\d{{1,100}})|(?P<decimal>{_DECIMAL})"
)
_LATEX = re.compile(r"\\[dt]?frac\{(-?\d{1,30})\}\{(\d{1,30})\}")


def last_number(text: str) -> str | None:
    """The last number of a text as `canonical` writes it; None where there is none."""
    text = _LATEX.sub(r"\1/\2", text[-READ:].translate(_PLAIN))
    last = deque(_NUMBER.finditer(text), maxlen=1)
    return _value(last[0], text) if last else None


def canonical(text: str) -> str:
    """One spelling for equal answers: a number in lowest terms, other text in lower case with single spaces."""
    text = text[-READ:]
    words = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    plain = _LATEX.sub(r"\1/\2", text.strip().rstrip(".").translate(_PLAIN))
    bare = "".join(character for character in plain if not _is_sign(character)).strip()
    match = _NUMBER.fullmatch(bare.removeprefix("-").removeprefix("+"))
    number = None if match is None else _value(match, match.string)
    if number is None:
        return words
    return _negated(number) if bare.startswith("-") else number


def _value(match: re.Match[str], text: str) -> str | None:
    if match.end() - match.start() > LONGEST:
        return None
    if match["over"]:
        if int(match["under"]) == 0:
            return None
        value = int(match["whole"] or 0) + Fraction(int(match["over"]), int(match["under"]))
    else:
        # Fraction reads the digits of any script, as int does.
        value = Fraction(match["decimal"].replace(",", ""))
    return _negated(str(value)) if _is_negative(text, match.start()) else str(value)


def _negated(number: str) -> str:
    return str(-Fraction(number))


def _is_negative(text: str, start: int) -> bool:
    """Whether a minus stands before the number, perhaps with a currency between the two."""
    while start and unicodedata.category(text[start - 1]) == "Sc":
        start -= 1
    if not text[:start].endswith("-"):
        return False
    before = text[start - 2 : start - 1] if start > 1 else ""
    return not (before.isalnum() or before in tuple(")]}%-"))


def _is_sign(character: str) -> bool:
    return character == "%" or unicodedata.category(character) == "Sc"
