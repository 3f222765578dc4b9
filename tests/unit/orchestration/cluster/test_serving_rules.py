"""A door refuses what its experiment would not ask, and what it would change."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
from screening_builders import find_digits

from configs.screening import ContentConfig, PrivacyConfig
from orchestration.cluster.serving_rules import ScreenRules

PRIVATE = "it holds what is private (PHONE)"


def text(token_ids: Sequence[int]) -> str:
    """Ids are digits here, and 10 is a word."""
    return "".join("nutmeg" if token == 10 else str(token) for token in token_ids)


@pytest.mark.parametrize(
    ("prompts", "refused"), [("redact", PRIVATE), ("drop", PRIVATE), ("count", None), ("off", None)]
)
def test_what_would_be_redacted_or_dropped_is_refused(
    prompts: str, refused: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    find_digits(monkeypatch)
    privacy = PrivacyConfig.model_validate({"prompts": prompts, "answers": "drop"})
    rules = ScreenRules(privacy, None, text=text)
    assert rules.why_unasked([5, 5, 5]) == refused and rules.why_unasked([5, 5]) is None
    assert rules.why_withheld([5, 5, 5]) == PRIVATE


def test_a_blocklist_holds_for_prompts_and_answers_each_by_its_key(tmp_path: Path) -> None:
    (tmp_path / "blocked.txt").write_text("nutmeg")
    content = ContentConfig(blocklist=tmp_path / "blocked.txt", answers="off")
    rules = ScreenRules(None, content, text=text)
    assert rules.why_unasked([10]) == "it holds a phrase of the blocklist"
    assert rules.why_withheld([10]) is None
