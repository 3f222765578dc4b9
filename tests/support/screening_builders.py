"""A recogniser and a guard that need nothing installed: digits are phone numbers, a word is not wanted."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import pytest

from configs.screening import PrivacyConfig
from orchestration.inputs import screen
from orchestration.inputs.exchanges import Exchange
from orchestration.inputs.private_spans import PrivateSpan


class DigitFinder:
    """Finds runs of three digits and more."""

    def __init__(self, config: PrivacyConfig) -> None:
        del config

    def find(self, text: str) -> list[PrivateSpan]:
        return [PrivateSpan(each.start(), each.end(), "PHONE") for each in re.finditer(r"\d{3,}", text)]


def find_digits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have what is private found by `DigitFinder`."""
    monkeypatch.setattr(screen, "SpanFinder", DigitFinder)


class WordGuard:
    """A guard of one word, which notes what it is asked and what it asks for."""

    said, digest = "content.guard: a word", "word"

    def __init__(self, word: str, *, at_once: bool = False) -> None:
        self._word, self._at_once = word, at_once
        self.told: list[str] = []
        self.read: list[Exchange] = []

    def reasons(
        self, exchanges: Sequence[Exchange], *, making_room: Callable[[], None] | None = None
    ) -> list[str | None]:
        if making_room is not None and not self._at_once:
            making_room()
        self.read += exchanges
        self.told.append(f"asked {len(exchanges)}")
        return ["the guard finds it" if self._word in each.turns[-1][1] else None for each in exchanges]

    def rest(self) -> None:
        self.told.append("rest")
