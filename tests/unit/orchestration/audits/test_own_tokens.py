"""Audits of a student that cuts texts into other tokens than its teacher: it is asked in its own, about the same texts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from audited_runs import Unseen, audited_run, found_in, write_rows
from other_tokenizers import other_model

from evaluation.side_effects.findings import Audit
from orchestration.audits.bias import audit_bias
from orchestration.audits.finished import FinishedRun, open_finished
from orchestration.audits.learned import has_own_tokens, learned_by
from orchestration.audits.own_tokens import OwnTokens
from orchestration.audits.privacy import audit_privacy
from orchestration.audits.settings import AuditSettings


def opened(root: Path, *, by_heart: bool) -> FinishedRun:
    """A student with a tokenizer of its own that learns gold answers; some test prompts are about a man."""
    write_rows(root, train=110, dev=110, test=8, answers=True)
    rows = [{"prompt": f"Is he {number}?", "response": "agree"} for number in range(8)]
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    stages = [{"objective": "sft", "source": "gold", "steps": 200, "dtype": "float32"}]
    students: dict[str, Any] = {"kd": {"init": {"model": {"path": str(other_model(root / "other"))}}, "stages": stages}}
    splits = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    data = {**splits, "response_field": "response", "max_prompt_tokens": 32}
    return open_finished(audited_run(root, by_heart=by_heart, students=students, data=data))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    return opened(tmp_path_factory.mktemp("own"), by_heart=True)


@pytest.fixture(scope="module")
def audit(run: FinishedRun) -> Audit:
    return audit_privacy(run, AuditSettings(), Unseen())


def test_rows_are_the_same_texts_in_its_own_tokens(run: FinishedRun) -> None:
    (student,) = run.students
    assert has_own_tokens(student, run)
    (learned,) = learned_by(student, run)
    assert learned.told is not None and len(learned.members) == len(learned.others) == 110
    own = OwnTokens.of(student, run)
    for record in learned.members[:5]:
        told = learned.told[record.key]
        text = own.student.tokenizer.decode(record.response_ids, skip_special_tokens=True)
        assert text == own.teacher.tokenizer.decode(told.response_ids, skip_special_tokens=True) and len(text) == 5
        assert record.prompt_len != told.prompt_len and record.target_logprobs is None


@pytest.mark.parametrize("score", ["loss", "against the teacher", "against the start", "zlib", "min-k"])
def test_what_it_learned_by_heart_is_told_by_every_score(audit: Audit, score: str) -> None:
    area = found_in(audit, f"membership: {score}")
    assert area.value.value > 0.9 and area.value.interval.low > 0.8
    if score != "against the teacher":
        assert area.teacher is not None and 0.3 < area.teacher.value < 0.7


def test_that_whole_answers_are_compared_by_the_byte_is_said(audit: Audit) -> None:
    notes = " ".join(audit.notes)
    assert "kd: it was asked in its own tokens, about whole answers: likelihoods are of the same text" in notes
    assert "as many held-out rows with gold answers, whole, of nearly the same lengths" in notes


def test_its_prompts_are_swapped_in_both_tokenizers(run: FinishedRun) -> None:
    swap = found_in(audit_bias(run, AuditSettings(), Unseen()), "swapped prompts, by byte")
    assert swap.unknown is None and swap.value.n == 8 and swap.value.value > 0.0
    assert swap.teacher is not None and swap.difference is not None and swap.untouched is not None


def test_of_one_that_learned_nothing_nothing_can_be_told(tmp_path: Path) -> None:
    unlearned = audit_privacy(opened(tmp_path, by_heart=False), AuditSettings(), Unseen())
    for score in ("loss", "against the teacher"):
        interval = found_in(unlearned, f"membership: {score}").value.interval
        assert interval.low <= 0.5 <= interval.high
