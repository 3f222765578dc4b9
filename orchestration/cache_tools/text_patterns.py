"""Regular expressions of users, searched in time that grows with the text and with nothing else.

Python's own engine may take longer than the universe lasts for a pattern such as `(a+)+b`. RE2 does not backtrack; it
has no look-ahead, no look-behind and no references back, which its syntax page explains
(https://github.com/google/re2/wiki/Syntax).
"""

from __future__ import annotations

import unicodedata

import re2


class TextPattern:
    """A regular expression in RE2's syntax."""

    def __init__(self, text: str) -> None:
        """Read the expression.

        Raises:
            ValueError: in one line, when it is not one, is too large, or matches every text.
        """
        options = re2.Options()
        options.log_errors = False
        try:
            self._pattern = re2.compile(_encodable(text), options)
        except re2.error as error:
            reason = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error)
            raise ValueError(f"{text} is not a regular expression of RE2 ({reason})") from None
        if self.found_in(""):
            raise ValueError(f"{text} matches every text: name what is to go")
        self._text = text

    def folded(self) -> TextPattern:
        """The same for texts that have kept no case, and perhaps no accents."""
        bare = "".join(each for each in unicodedata.normalize("NFKD", self._text) if not unicodedata.combining(each))
        return TextPattern(f"(?i:{self._text})|(?i:{bare})")

    def found_in(self, text: str) -> bool:
        """Whether any part of the text matches."""
        return self._pattern.search(_encodable(text)) is not None


def _encodable(text: str) -> str:
    """The same without half characters (lone surrogates, which JSON can hold and UTF-8 cannot)."""
    return text.encode("utf-8", errors="replace").decode("utf-8")
