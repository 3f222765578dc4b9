"""What is private and what is not wanted: blocks that look at nothing are refused, and digests know both."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pipeline_builders import experiment
from pydantic import ValidationError

from configs.screening import ContentConfig, GuardConfig, PrivacyConfig

GUARD: dict[str, Any] = {"model": {"path": "guard"}, "unsafe": ["unsafe"], "safe": ["safe"]}
ASKED = {"ask_prompt": "{prompt}?", "ask_answer": "{answer}?"}


def test_a_block_by_itself_counts_what_is_private_and_leaves_out_what_is_not_wanted() -> None:
    privacy, content = PrivacyConfig(), ContentConfig(offensive=0.9)
    assert (privacy.prompts, privacy.answers, privacy.names) == ("count", "count", None)
    assert "SECRET" in privacy.find and len(privacy.find) == 8
    assert (content.prompts, content.answers) == ("drop", "drop")


@pytest.mark.parametrize(
    ("block", "values", "reason"),
    [
        (PrivacyConfig, {"prompts": "off", "answers": "off"}, "look at nothing"),
        (PrivacyConfig, {"answers": "redact"}, "'off', 'count' or 'drop'"),
        (PrivacyConfig, {"find": []}, "at least 1 item"),
        (PrivacyConfig, {"find": ["SHOE_SIZE"]}, "EMAIL"),
        (PrivacyConfig, {"threshold": 0.0}, "greater than 0"),
        (ContentConfig, {}, "set blocklist, offensive or guard"),
        (ContentConfig, {"prompts": "off", "answers": "off", "offensive": 0.5}, "look at nothing"),
        (ContentConfig, {"offensive": 1.0}, "less than 1"),
        (GuardConfig, GUARD | {"safe": ["unsafe"]}, "unsafe and safe both name 'unsafe'"),
        (GuardConfig, GUARD | {"unsafe": []}, "at least 1 item"),
        (GuardConfig, GUARD | {"unsafe": [""]}, "at least 1 character"),
        (GuardConfig, GUARD | {"ask_prompt": "{prompt}?"}, "ask_answer not set"),
        (GuardConfig, GUARD | {"template": "raw"}, "ask_prompt and ask_answer not set"),
        (GuardConfig, GUARD | {"ask_prompt": "?", "ask_answer": "{answer}"}, r"ask_prompt has no \{prompt\}"),
        (GuardConfig, GUARD | ASKED | {"ask_answer": "{prompt}?"}, r"ask_answer has no \{answer\}"),
        (GuardConfig, GUARD | ASKED | {"template": "raw", "template_kwargs": {"a": 1}}, "template_kwargs is only"),
    ],
)
def test_what_makes_no_sense_is_refused(block: Any, values: dict[str, Any], reason: str) -> None:
    with pytest.raises(ValidationError, match=reason):
        block.model_validate(values)


def test_an_experiment_without_them_is_written_and_addressed_as_before(tmp_path: Path) -> None:
    plain = experiment(tmp_path)
    assert {"privacy", "content"}.isdisjoint(plain.model_dump())
    blocks = [{"privacy": {}}, {"privacy": {"prompts": "redact"}}, {"content": {"offensive": 0.5}}]
    blocks += [{"content": {"offensive": 0.5, "guard": GUARD}}, {"content": {"guard": GUARD | {"threshold": 0.6}}}]
    assert len({plain.digest(), *(experiment(tmp_path, **block).digest() for block in blocks)}) == 6
    assert "guard" not in ContentConfig(offensive=0.5).model_dump()
