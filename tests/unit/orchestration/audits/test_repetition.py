"""What a student repeats of its training text is beside what its teacher repeats; the truth is planted."""

from __future__ import annotations

from dataclasses import replace

import pytest
from audited_runs import audited_run, write_rows

from orchestration.audits.finished import AuditedStudent, FinishedRun, open_finished
from orchestration.audits.learned import learned_by
from orchestration.audits.repetition import LONGEST, SHARE, repetition_findings

SECRET = "the quick brown fox jumps over the lazy dog again and again"


class Spelling:
    """Stands for a tokenizer under which every part of a row says the secret."""

    def batch_decode(self, ids: list[object], *, skip_special_tokens: bool) -> list[str]:
        return [SECRET] * len(ids)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = tmp_path_factory.mktemp("repetition")
    write_rows(root, train=4, dev=3, test=3)
    return open_finished(audited_run(root, by_heart=False))


def said(run: FinishedRun, **answers: tuple[str, ...]) -> tuple[AuditedStudent, FinishedRun]:
    """The run as if these had been the answers."""
    models = tuple(replace(row, answers=answers[row.name]) for row in run.results.models)
    (student,) = run.students
    row = next(row for row in models if row.name == "kd")
    return replace(student, row=row), replace(run, results=replace(run.results, models=models))


def test_who_repeats_training_text_is_found_and_who_does_not_is_not(run: FinishedRun) -> None:
    other = ("nothing of that kind stands in any text of mine",) * 3
    student, told = said(run, teacher=other, untouched=other, kd=(f"I say {SECRET}",) * 3)
    share, longest = repetition_findings(student, learned_by(student, told), run=told, tokenizer=Spelling())  # type: ignore[arg-type]
    # Of 14 words 12 are the secret: 7 runs of 8 words, of which those that begin with the secret are 5.
    assert share.instrument == SHARE.name and share.value.value == pytest.approx(5 / 7)
    assert share.teacher is not None and share.teacher.value == 0.0
    assert share.difference is not None and share.difference.value == pytest.approx(5 / 7)
    assert longest.instrument == LONGEST.name and longest.value.value == 12.0
    assert longest.untouched is not None and longest.untouched.value == 0.0


def test_without_answers_it_is_not_known(run: FinishedRun) -> None:
    student, told = said(run, teacher=(), untouched=(), kd=())
    found = repetition_findings(student, learned_by(student, told), run=told, tokenizer=Spelling())  # type: ignore[arg-type]
    assert {each.unknown for each in found} == {"its answers to the test prompts were not measured"}
