from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.audit import CanariesConfig


def canaries(**values: Any) -> CanariesConfig:
    return CanariesConfig.model_validate(values)


def test_the_space_is_what_the_alphabet_spells() -> None:
    assert canaries().space == 1_000_000
    assert canaries(alphabet="abcd", length=4).space == 256


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"alphabet": "aab"}, "has a character twice"),
        ({"alphabet": "a b"}, "or white space"),
        ({"repeats": [1, 1]}, "has a number twice"),
        ({"repeats": [601]}, "one above 600"),
        ({"where": ["answer", "answer"]}, "names a place twice"),
        ({"alphabet": "ab", "length": 7}, "length=7 over 2 characters makes 128 secrets, and fewer than 256 can be"),
        ({"count": 80}, "makes up to 640 canaries, and there are names for 600: lower count"),
        ({"count": 5}, "greater than or equal to 6"),
    ],
)
def test_canaries_that_could_be_guessed_or_not_be_told_apart_are_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        canaries(**values)
