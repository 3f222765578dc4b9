"""The words of a text in any script.

Latin text is cut and stemmed exactly as rouge-score does it (runs of a-z and 0-9, Porter's stems), so numbers compare
with the literature. Letters and digits of other scripts, of which rouge-score knows none, are cut into runs; scripts
that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) into single characters, as is the custom
where nobody segments them. Which script a character has is Unicode's own property.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from typing import Literal

import re2

_WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar")
_SHARED = "〇ーｰ"
"""A digit and the marks of a long vowel, which Unicode gives to no script."""

# A double negation is how RE2 says "both": a letter, and of this script. The marks above and below a letter go with it.
_CHARACTER = "|".join(rf"[^\P{{L}}\P{{{script}}}]" for script in _WITHOUT_SPACES) + f"|[{_SHARED}]"
_ELSEWHERE = r"\P{L}\p{Latin}\p{Common}" + "".join(rf"\p{{{script}}}" for script in _WITHOUT_SPACES) + _SHARED
_OTHER = rf"[^{_ELSEWHERE}]|[^\P{{Nd}}0-9]"
_WORD = re2.compile(rf"[a-z0-9]+|(?:{_CHARACTER})\p{{M}}*|(?:{_OTHER})(?:{_OTHER}|\p{{M}})*")
_ASCII_WORD = re.compile("[a-z0-9]+")
_UNSPACED = re2.compile(_CHARACTER)
_LATIN = re2.compile(r"[^\P{L}\P{Latin}]")

Script = Literal["latin", "spaced", "unspaced"]
"""Latin letters, other letters between spaces, letters without spaces."""


def words_of(text: str) -> list[str]:
    """The words of a text, in lower case, as they stand; characters of scripts without spaces are words."""
    if text.isascii():
        return _ASCII_WORD.findall(text.lower())
    # Half a pair of surrogates, which RE2 does not take, belongs to no word.
    words: list[str] = _WORD.findall(text.lower().encode(errors="replace").decode())
    # One letter may be written in several ways: half-width kana, a syllable of Hangul or its parts.
    return [word if word.isascii() else unicodedata.normalize("NFKC", word) for word in words]


def with_spaces(text: str) -> str:
    """The text with spaces around every character of a script that has none."""
    spaced: str = _UNSPACED.sub(r" \g<0> ", text.encode(errors="replace").decode())
    return spaced


def script_of(text: str) -> Script:
    """What most letters of a text are; Latin where it has none."""
    kinds: Counter[Script] = Counter()
    for character, times in Counter(text.encode(errors="replace").decode()).items():
        if _UNSPACED.fullmatch(character):
            kinds["unspaced"] += times
        elif character.isalpha():
            kinds["latin" if _LATIN.fullmatch(character) else "spaced"] += times
    return max(("latin", "spaced", "unspaced"), key=lambda kind: kinds[kind])


class Words:
    """What `rouge_score.rouge_scorer.RougeScorer` asks for the words of a text."""

    def __init__(self) -> None:
        # Not before words are stemmed: what stands behind rouge-score takes five seconds to load.
        from rouge_score.tokenizers import DefaultTokenizer

        self._latin = DefaultTokenizer(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text: lower case, stemmed where they are Latin."""
        words: list[str] = []
        for word in words_of(text):
            words += self._latin.tokenize(word) if word.isascii() else [word]
        return words
