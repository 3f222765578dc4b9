"""A recogniser that needs nothing installed: digits are phone numbers."""

from __future__ import annotations

import re

import pytest

from configs.screening import PrivacyConfig
from orchestration.inputs import screen
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
