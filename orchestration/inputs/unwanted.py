"""Content that is not wanted: lines of a list, what a classifier rates offensive, what a guard finds unsafe.

The classifier is alt-profanity-check's, a linear model over words in the package itself. It knows words and not what is
meant: it flags some harmless uses of them, and misses what is said politely.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from configs import ConfigError
from configs.regular_files import UnreadableFileError, read_regular
from configs.screening import ContentConfig
from orchestration.inputs.exchanges import Exchange

LARGEST_LIST = 16 * 2**20
"""Bytes of a list at most."""

LINES_AT_ONCE = 1_000
"""Of one pattern."""


class Judge(Protocol):
    """Whoever says of a text why it is not wanted, at once: a list, a classifier of words."""

    def reason(self, text: str) -> str | None:
        """Why it is not wanted, in words that repeat nothing of it; None where it is."""
        ...


class Guard(Protocol):
    """A model that guards another one (`orchestration.inputs.model_guard`), which is asked about many at a time."""

    @property
    def said(self) -> str:
        """Who it is and under what licence, in a line for people."""
        ...

    @property
    def digest(self) -> str:
        """Of its weights and of how it is asked: all that decides what it finds."""
        ...

    def reasons(
        self, exchanges: Sequence[Exchange], *, making_room: Callable[[], None] | None = None
    ) -> list[str | None]:
        """Why each is not wanted, in words that repeat nothing of it; None where it is.

        `making_room` is called before the guard takes memory, and only if it has anything to read.
        """
        ...

    def rest(self) -> None:
        """Give back what it takes of the machine, until it is asked again."""
        ...


class Judges:
    """The judges that a block names, asked one after the other."""

    def __init__(self, config: ContentConfig) -> None:
        """Read the list, load the classifier.

        Raises:
            ConfigError: the list cannot be used, or the classifier is not installed.
        """
        self._judges: list[Judge] = []
        if config.blocklist is not None:
            self._judges.append(Blocklist.read(config.blocklist, key="content.blocklist"))
        if config.offensive is not None:
            self._judges.append(OffensiveRate(config.offensive))

    def reason(self, text: str) -> str | None:
        """See `Judge`: what the first one says that says anything."""
        return next((reason for judge in self._judges if (reason := judge.reason(text)) is not None), None)


class Blocklist:
    """Words and phrases, found as whole words in any case, with any space between the words of a phrase."""

    def __init__(self, phrases: list[str]) -> None:
        self._patterns = [
            re.compile("|".join(map(_whole, phrases[at : at + LINES_AT_ONCE])), re.IGNORECASE)
            for at in range(0, len(phrases), LINES_AT_ONCE)
        ]

    @classmethod
    def read(cls, path: Path, *, key: str) -> Blocklist:
        """The lines of a file, without empty ones and those that begin with `#`; `key` is where it is named.

        Raises:
            ConfigError: it is not a file of text, or has no line.
        """
        try:
            text = read_regular(path, at_most=LARGEST_LIST, links="follow").decode("utf-8")
        except (OSError, UnreadableFileError, UnicodeDecodeError) as error:
            raise ConfigError(f"{key}={path} cannot be read ({error}): name a UTF-8 file, a phrase a line") from error
        phrases = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("#")]
        if not phrases:
            raise ConfigError(f"{key}={path} has no phrase: put one on each line, or remove {key}")
        return cls(phrases)

    def reason(self, text: str) -> str | None:
        """See `Judge`."""
        held = any(pattern.search(text) for pattern in self._patterns)
        return "it holds a phrase of the blocklist" if held else None


class OffensiveRate:
    """How likely the words of a text are offensive, by alt-profanity-check, an optional part."""

    def __init__(self, threshold: float) -> None:
        """Load the classifier.

        Raises:
            ConfigError: it is not installed.
        """
        try:
            from profanity_check import predict_prob
        except ImportError:
            raise ConfigError(
                'content.offensive needs a classifier that is not installed: install "stillroom[content]", or leave '
                "offensive out"
            ) from None
        self._threshold, self._rate = threshold, predict_prob

    def reason(self, text: str) -> str | None:
        """See `Judge`."""
        offends = text.strip() and float(self._rate([text])[0]) >= self._threshold
        return f"it is rated offensive ({self._threshold:g} or more)" if offends else None


def _whole(phrase: str) -> str:
    """A pattern of a phrase that is no part of a longer word."""
    return r"(?<!\w)" + r"\s+".join(map(re.escape, phrase.split())) + r"(?!\w)"
