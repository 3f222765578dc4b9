"""Text from strangers (prompts, answers, archives, models, file names) made safe to show.

Such text may hold terminal escapes that move the cursor or set the clipboard, marks that turn the reading direction
around, and characters that nobody sees. What is shown of it on a terminal, in a log or in a report shows these as
escapes; what is stored stays as it is. Markup is a matter of the medium: a terminal gets `rich.text.Text` or
`markup=False, emoji=False`, Markdown gets `markdown_text`.
"""

from __future__ import annotations

import re
import unicodedata

_HIDDEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Unicode's categories of control, format (bidi marks, zero width), surrogates, private, unassigned, separators."""

_BLANK = frozenset("\u034f\u115f\u1160\u17b4\u17b5\u180b\u180c\u180d\u180f\u2800\u3164\uffa0")
"""Letters and marks that are drawn as nothing at all; the variation selectors of a supplement are the rest."""

_SPELLING = "\u200c\u200d"
"""Joiners without which Persian, Hindi and many emoji are misspelt."""

REASON_CHARACTERS = 300
"""Of what others give as a reason; more of it is a dump."""

# What may stand before a marker of Markdown or HTML in running text, and the markers.
_MARKDOWN = re.compile(r"([\\`*_{}\[\]()#+!|<>~$&-])")


def visible(text: str, *, lines: bool = False, at_most: int | None = None) -> str:
    r"""`text` with every character that is not seen written as an escape (`\x1b`, `\u202e`).

    Args:
        text: Anything.
        lines: Whether line feeds and tabs stay as they are; otherwise they are escaped too.
        at_most: Cut to this many characters of the result, the last one an ellipsis.
    """
    kept = "\n\t" if lines else ""
    shown = "".join(char if char in kept or not _hidden(char) else _escape(char) for char in text)
    if at_most is not None and len(shown) > at_most:
        return shown[: max(at_most - 1, 0)] + "…"
    return shown


def markdown_text(text: str, *, at_most: int | None = None) -> str:
    """`text` as one line of Markdown (also a cell of a table) that shows it literally: no markup, links or HTML."""
    return _MARKDOWN.sub(r"\\\1", visible(text, at_most=at_most))


def first_line(error: BaseException) -> str:
    """What an error of somebody else's code says first, cut; the name of its kind where it says nothing."""
    return visible((str(error).strip().splitlines() or [type(error).__name__])[0], at_most=REASON_CHARACTERS)


def _hidden(char: str) -> bool:
    if char in _BLANK or "\U000e0100" <= char <= "\U000e01ef":
        return True
    return char not in _SPELLING and unicodedata.category(char) in _HIDDEN


def _escape(char: str) -> str:
    if char in "\n\t\r":
        return {"\n": "\\n", "\t": "\\t", "\r": "\\r"}[char]
    code = ord(char)
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
