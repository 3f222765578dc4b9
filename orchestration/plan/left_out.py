"""What a plan leaves out, in words: what the teacher could not answer before, and what was forgotten."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from cache.erasures import forgotten_among

ASK_AGAIN = "`distill cache forget --failures --yes` with this config asks again"
"""How what could not be answered is asked once more."""


def left_out_in_words(refused: Mapping[Any, str], *, unanswered: str, what: str) -> list[str]:
    """A line for each kind of request that is not asked; `unanswered` says what became of those of the first kind."""
    forgotten = forgotten_among(refused)
    failed = len(refused) - forgotten
    lines = [f"{failed:,} {what} {unanswered}: {ASK_AGAIN}."] if failed else []
    return [*lines, *([forgotten_in_words(forgotten, what=what)] if forgotten else [])]


def forgotten_in_words(count: int, *, what: str) -> str:
    """How many were forgotten."""
    return f"{count:,} {what} were forgotten (`distill cache forget`), are not asked and are left out."
