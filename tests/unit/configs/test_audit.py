"""Audits that a run ends with, and canaries that it plants: what is refused, and what it is written as."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from configs.audit import AUDITED_ROWS, AUDITS, AskedAudits, AuditConfig, CanariesConfig, TaskAudits


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


@pytest.mark.parametrize(
    ("run", "wanted"), [("all", AUDITS), (["bias", "privacy"], ("privacy", "bias")), ("refusals", ("refusals",))]
)
def test_audits_are_named_one_by_one_or_all_and_made_in_their_order(run: Any, wanted: tuple[str, ...]) -> None:
    asked = AskedAudits.model_validate({"run": run})
    assert asked.wanted == wanted and asked.rows == AUDITED_ROWS
    assert AskedAudits.model_validate(asked.model_dump(mode="json")) == asked


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({}, "asks for nothing: set run: all, or some of privacy, bias, refusals, or remove the block"),
        ({"rows": 64}, "rows=64 is of audits, and run names none: set run: all"),
        ({"pairs": ["a.csv"], "canaries": {}}, r"pairs=\['a.csv'\] is of audits, and run names none"),
    ],
)
def test_a_block_that_asks_nothing_is_refused(values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        AuditConfig.model_validate(values)


def test_canaries_alone_are_written_as_they_were_before_there_was_anything_else() -> None:
    assert set(AuditConfig.model_validate({"canaries": {}}).model_dump(mode="json")) == {"canaries"}


def test_a_task_names_groups_by_fields_of_its_rows_and_takes_no_sentences() -> None:
    """Groups alone are a reason for the block: whoever audits by hand finds them there."""
    alone = TaskAudits.model_validate_json('{"groups": ["gender", "who.Age"]}')
    assert alone.groups == ("gender", "who.Age") and alone.wanted == ()
    assert TaskAudits.model_validate_json('{"run": "bias"}').model_dump(mode="json") == {"run": ["bias"]}
    with pytest.raises(ValidationError, match="students of a task give labels: remove it, or name groups"):
        TaskAudits.model_validate_json('{"run": "bias", "pairs": ["more.csv"]}')
    with pytest.raises(ValidationError, match="names a field twice: name it once"):
        TaskAudits.model_validate_json('{"groups": ["gender", "gender"]}')
