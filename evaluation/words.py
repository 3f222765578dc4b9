"""The words of a text in any script, for Rouge-L.

Latin text is cut and stemmed exactly as rouge-score does it (runs of a-z and 0-9, Porter's stems), so numbers compare
with the literature. Letters and digits of other scripts, of which rouge-score knows none, are cut into runs; scripts
that put no space between words (Chinese, Japanese, Thai, Lao, Khmer, Burmese) into single characters, as is the custom
where nobody segments them. Which script a character has is Unicode's own property.
"""

from __future__ import annotations

import unicodedata

import re2
from rouge_score.tokenizers import DefaultTokenizer

_WITHOUT_SPACES = ("Han", "Hiragana", "Katakana", "Bopomofo", "Thai", "Lao", "Khmer", "Myanmar")
_SHARED = "〇ーｰ"
"""A digit and the marks of a long vowel, which Unicode gives to no script."""

# A double negation is how RE2 says "both": a letter, and of this script. The marks above and below a letter go with it.
_CHARACTER = "|".join(rf"[^\P{{L}}\P{{{script}}}]" for script in _WITHOUT_SPACES) + f"|[{_SHARED}]"
_ELSEWHERE = r"\P{L}\p{Latin}\p{Common}" + "".join(rf"\p{{{script}}}" for script in _WITHOUT_SPACES) + _SHARED
_OTHER = rf"[^{_ELSEWHERE}]|[^\P{{Nd}}0-9]"
_WORD = re2.compile(rf"[a-z0-9]+|(?:{_CHARACTER})\p{{M}}*|(?:{_OTHER})(?:{_OTHER}|\p{{M}})*")


class Words(DefaultTokenizer):  # type: ignore[misc]  # rouge-score has no types
    """What `rouge_score.rouge_scorer.RougeScorer` asks for the words of a text."""

    def __init__(self) -> None:
        super().__init__(use_stemmer=True)

    def tokenize(self, text: str) -> list[str]:
        """The words of a text: lower case, stemmed where they are Latin."""
        words: list[str] = []
        # Half a pair of surrogates, which RE2 does not take, belongs to no word.
        for word in _WORD.findall(text.lower().encode(errors="replace").decode()):
            # One letter may be written in several ways: half-width kana, a syllable of Hangul or its parts.
            words += super().tokenize(word) if word.isascii() else [unicodedata.normalize("NFKC", word)]
        return words
