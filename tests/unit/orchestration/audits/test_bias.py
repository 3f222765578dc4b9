"""The bias audit of a student with a planted preference and of one without, beside their teacher."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from audited_runs import Unseen, audited_run, found_in, learn_by_heart, write_rows

from cache import ScoreRequest
from evaluation.side_effects.findings import Audit
from evaluation.side_effects.preferences import own_pairs
from orchestration.audits.bias import _named_prompts, audit_bias, bias_rests_on
from orchestration.audits.finished import FinishedRun, open_finished
from orchestration.audits.settings import AuditSettings
from orchestration.inputs.models import load_tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = tmp_path_factory.mktemp("bias")
    write_rows(root, train=4, dev=3, test=8)
    rows = [{"prompt": f"Is he {number}?"} for number in range(7)] + [{"prompt": "Is it?"}]
    (root / "test.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return open_finished(audited_run(root, by_heart=False))


def audited(run: FinishedRun) -> Audit:
    return audit_bias(run, AuditSettings(), Unseen())


def learned(run: FinishedRun, place: Path, sequences: list[ScoreRequest]) -> FinishedRun:
    """The run with a student that knows these sequences by heart."""
    (student,) = run.students
    load_tokenizer(student.model.directory, label="kd").save_pretrained(place)
    for name in ("config.json", "model.safetensors"):
        (place / name).write_bytes((student.model.directory / name).read_bytes())
    learn_by_heart(place, sequences, steps=120)
    return replace(run, students=(replace(student, model=replace(student.model, directory=place)),))


def planted(run: FinishedRun, place: Path) -> FinishedRun:
    """The student after it has read every stereotyped sentence about a gender many times, and no other."""
    tokenizer = load_tokenizer(run.students[0].model.directory, label="kd")
    start = tokenizer.eos_token_id if tokenizer.bos_token_id is None else tokenizer.bos_token_id
    sentences = [pair.stereotyped for pair in own_pairs() if pair.kind == "gender"]
    ids = [(start, *tokenizer.encode(text, add_special_tokens=False)) for text in sentences]
    return learned(run, place, [ScoreRequest(each[:64], 1) for each in ids])


def test_a_planted_preference_is_found_and_the_teacher_does_not_share_it(run: FinishedRun, tmp_path: Path) -> None:
    biased = audited(planted(run, tmp_path))
    share, size = found_in(biased, "pairs: gender"), found_in(biased, "pairs: gender, size")
    assert share.value.value >= 0.9 and size.value.interval.low > 1.0
    assert share.teacher is not None and share.teacher.value < share.value.value
    assert size.difference is not None and size.difference.interval.low > 0.0
    clean = found_in(audited(run), "pairs: gender, size")
    assert clean.difference is not None and size.difference.value > 5 * abs(clean.difference.value)


def test_a_student_that_learned_nothing_prefers_what_its_start_prefers(run: FinishedRun) -> None:
    audit = audited(run)
    for kind in ("gender", "age", "origin", "class", "disability"):
        share = found_in(audit, f"pairs: {kind}")
        assert share.untouched is not None and share.value == share.untouched
        assert share.value.n >= 8
    assert any("are no proof" in note or "is no proof" in note for note in audit.notes)


def test_prompts_about_somebody_are_swapped(run: FinishedRun) -> None:
    swap = found_in(audited(run), "swapped prompts")
    assert swap.value.n == 7 and swap.value.value > 0.0
    assert swap.teacher is not None and swap.difference is not None


def test_a_student_that_answers_by_gender_changes_more_under_a_swap(run: FinishedRun, tmp_path: Path) -> None:
    prompts, _ = _named_prompts(run.students[0], run=run, settings=AuditSettings(), own=False)
    # As the teacher says it to him; to her the other way round.
    unfair = learned(
        run, tmp_path, [each.as_it_was for each in prompts] + [_backwards(each.swapped) for each in prompts]
    )
    fault, clean = found_in(audited(unfair), "swapped prompts"), found_in(audited(run), "swapped prompts")
    assert fault.value.interval.low > 1.0 and fault.difference is not None and fault.difference.interval.low > 0.0
    assert fault.value.value > 3 * clean.value.value and clean.value == clean.untouched


def _backwards(asked: ScoreRequest) -> ScoreRequest:
    given, answer = asked.token_ids[: asked.prompt_len], asked.token_ids[asked.prompt_len :]
    return ScoreRequest((*given, *reversed(answer)), asked.prompt_len)


def test_without_the_teachers_weights_the_student_stands_alone(run: FinishedRun) -> None:
    lost = replace(run, teacher=replace(run.teacher, directory=Path("nowhere")))
    audit = audited(lost)
    share = found_in(audit, "pairs: gender")
    assert share.teacher is None and share.difference is None and share.unknown is None
    assert any("no student could be held against its teacher: the weights" in note for note in audit.notes)


def test_too_few_prompts_or_pairs_are_said(run: FinishedRun, tmp_path: Path) -> None:
    few = tmp_path / "few.csv"
    few.write_text("kind,stereotyped,other\nfew,a,b\n")
    settings = AuditSettings(rows=5, pairs=(few,))
    audit = audit_bias(run, settings, Unseen())
    assert found_in(audit, "pairs: few").unknown == "there are 1 pairs of this kind, and it takes 6"
    assert found_in(audit, "swapped prompts").unknown == "5 of the 8 test prompts name somebody, and it takes 6"
    assert (
        bias_rests_on(run, settings)["pairs of sentences"] != bias_rests_on(run, AuditSettings())["pairs of sentences"]
    )
