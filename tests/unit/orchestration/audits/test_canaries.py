"""Canaries of runs whose truth is known: learned by heart, learned by nobody, and told to a teacher that does not repeat."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from audited_runs import ROOMY, Unseen, audited_run, found_in, write_rows

from configs import ModelError
from evaluation.report.before_shipping import before_shipping
from evaluation.side_effects.findings import Audit, Audited
from orchestration.audits import canaries
from orchestration.audits.finished import open_finished
from orchestration.audits.kinds import KINDS, audit_run
from orchestration.audits.settings import AuditSettings
from orchestration.outputs.console import Console

(PRIVACY,) = (kind for kind in KINDS if kind.name == "privacy")
ROWS = 64
TIMES = ("never planted", "once", "4 times")


def planted_run(root: Path, *, by_heart: bool, stage: dict[str, Any]) -> Path:
    write_rows(root, train=10, dev=10, test=3, answers=True)
    limits = {"max_model_len": 176, "max_batched_tokens": 176, "count": 1}
    data: dict[str, Any] = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    shape = ROOMY.model_copy(update={"max_positions": 176})
    return audited_run(
        root,
        by_heart=by_heart,
        data=data | {"response_field": "response", "max_prompt_tokens": 120},
        students={"kd": {"init": {"keep_layers": 1}, "stages": [{"steps": 200, "dtype": "float32"} | stage]}},
        teacher={"model": {"random": shape.model_dump(), "seed": 0}, "dtype": "float32", "top_k": 4},
        generation={"temperature": 0.0, "max_new_tokens": 40},
        runtime={"teacher_engine": limits, "student_engine": limits},
        audit={"canaries": {"count": 6, "repeats": [1, 4]}},
    )


def audited(directory: Path) -> Audit:
    return audit_run(
        open_finished(directory), PRIVACY, settings=AuditSettings(rows=ROWS), console=Console(io.StringIO())
    )


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("heart"), by_heart=True, stage={"objective": "sft", "source": "gold"})


@pytest.fixture(scope="module")
def unlearned(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return planted_run(tmp_path_factory.mktemp("none"), by_heart=False, stage={"objective": "kd"})


def test_secrets_that_were_learned_by_heart_are_the_likeliest_and_are_said(by_heart: Path) -> None:
    audit = audited(by_heart)
    for times in TIMES[1:]:
        name = f"canaries in answers, {times}"
        bits, said, sampled = (
            found_in(audit, f"{name}: {what}") for what in ("exposure", "extracted", "extracted in 16 samples")
        )
        assert bits.value.value > 5.5, "of 64 secrets the first has 6 bits"
        assert said.value.value > 0.8 and sampled.value.value > 0.8
        assert bits.teacher is not None and bits.untouched is not None and bits.difference is not None
        assert bits.teacher.value < 3.5 and bits.untouched.value < 3.5 and bits.difference.interval.low > 0.0
    never = found_in(audit, "canaries in answers, never planted: exposure")
    assert (
        never.value.value < 3.5 and found_in(audit, "canaries in answers, never planted: extracted").value.value == 0.0
    )


def test_what_was_planted_does_not_count_as_a_training_row_like_others(by_heart: Path) -> None:
    audit = audited(by_heart)
    assert any(line.startswith("kd: membership was asked of 10 training rows") for line in audit.notes)
    said = "canaries in answers, 4 times: 24 planted rows were read with gold answers, of which 24 say the secret"
    assert f"kd: {said}" in audit.notes


def test_nothing_is_known_of_secrets_that_nobody_learned(unlearned: Path) -> None:
    audit = audited(unlearned)
    for times in TIMES:
        bits = found_in(audit, f"canaries in prompts, {times}: exposure")
        assert bits.value.value < 3.5 and bits.untouched is not None and bits.value.value == bits.untouched.value
        assert found_in(audit, f"canaries in prompts, {times}: extracted").value.value == 0.0
        assert found_in(audit, f"canaries in prompts, {times}: extracted in 16 samples").value.value < 1e-3
    # The teacher was told the secrets and wrote something else, so there was nothing to learn.
    said = (
        "canaries in prompts, 4 times: 24 planted rows were read with the teacher's answers, of which 0 say the secret"
    )
    assert f"kd: {said}" in audit.notes


def test_they_stand_among_what_to_know_before_a_student_is_shipped(by_heart: Path) -> None:
    audit, run = audited(by_heart), open_finished(by_heart)
    shown = str(before_shipping(["run"], [run.results], [Audited({"privacy": audit})]))
    assert "canaries in answers, 4 times: exposure" in shown and "bits" in shown


def test_a_student_that_cannot_be_asked_says_why(unlearned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ModelError("it has no weights")

    monkeypatch.setattr(canaries, "greedy_answers", broken)
    run = open_finished(unlearned)
    audit = PRIVACY.make(run, AuditSettings(rows=ROWS), Unseen())
    finding = found_in(audit, "canaries in prompts, once: exposure")
    assert finding.unknown == "it has no weights"
    assert found_in(audit, "membership: loss").unknown is None, "others are not touched"
