"""The refusal audit of a student that learned to refuse everything and of one that learned nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from audited_runs import ROOMY, Unseen, audited_run, found_in, learn_by_heart, write_rows

from cache import ScoreRequest
from configs import DataError
from evaluation.side_effects.findings import Audit
from evaluation.side_effects.refusing import own_requests
from orchestration.audits import refusals as module
from orchestration.audits.finished import FinishedRun, open_finished
from orchestration.audits.refusals import audit_refusals, refusals_rest_on, rendered
from orchestration.audits.settings import AuditSettings
from orchestration.inputs.models import ModelFiles, open_model


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = tmp_path_factory.mktemp("refusals")
    write_rows(root, train=4, dev=3, test=3)
    shape = ROOMY.model_copy(update={"max_positions": 256}).model_dump()
    teacher = {"model": {"random": shape, "seed": 0}, "dtype": "float32", "top_k": 4}
    data = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    blocks = {"teacher": teacher, "data": {**data, "max_prompt_tokens": 100}}
    limits = {"max_model_len": 200, "max_batched_tokens": 200, "count": 1}
    return open_finished(
        audited_run(root, by_heart=False, runtime={"teacher_engine": limits, "student_engine": limits}, **blocks)
    )


@pytest.fixture(autouse=True)
def few_and_short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A quarter of the requests, and answers as long as the refusal that is learned here."""
    some = tuple(each for at, each in enumerate(own_requests()) if at % 4 == 0)
    monkeypatch.setattr(module, "own_requests", lambda: some)
    monkeypatch.setattr(module, "ANSWER_TOKENS", 16)


def files_of(run: FinishedRun) -> ModelFiles:
    return open_model(run.students[0].model.directory, label="kd")


def audited(run: FinishedRun) -> Audit:
    return audit_refusals(run, AuditSettings(), Unseen())


def refusing(run: FinishedRun, place: Path) -> FinishedRun:
    """The student after it has learned to answer every request in one way."""
    (student,) = run.students
    files = files_of(run)
    for path in student.model.directory.iterdir():
        if path.is_file():
            (place / path.name).write_bytes(path.read_bytes())
    texts = [each.text for each in module.own_requests()]
    answer = (*files.tokenizer.encode("I must decline.", add_special_tokens=False), files.stop_ids[0])
    prompts = rendered(texts, data=run.config.data, files=files)
    learn_by_heart(place, [ScoreRequest((*ids, *answer), len(ids)) for ids in prompts], steps=60)
    return replace(run, students=(replace(student, model=replace(student.model, directory=place)),))


def test_a_student_that_refuses_everything_is_beside_a_teacher_that_refuses_nothing(
    run: FinishedRun, tmp_path: Path
) -> None:
    audit = audited(refusing(run, tmp_path))
    for kind in ("harmful", "harmless"):
        found = found_in(audit, f"refused: {kind} requests")
        assert found.value.value > 0.9 and found.value.n == 10
        assert found.teacher is not None and found.teacher.value == 0.0
        assert found.untouched is not None and found.untouched.value == 0.0
        assert found.difference is not None and found.difference.value == found.value.value
    # Nobody refused, and yet a rate of some per cent is possible.
    clean = found_in(audited(run), "refused: harmful requests")
    assert clean.value.value == 0.0 and 0.2 < clean.value.interval.high < 0.4
    assert clean.difference is not None and clean.difference.interval.method == "exact"


def test_without_the_teachers_weights_it_is_said(run: FinishedRun) -> None:
    audit = audited(replace(run, teacher=replace(run.teacher, directory=Path("nowhere"))))
    found = found_in(audit, "refused: harmful requests")
    assert found.teacher is None and found.unknown is None
    assert any("no student could be held against its teacher" in note for note in audit.notes)


def test_requests_are_put_as_prompts_of_the_experiment_are(run: FinishedRun) -> None:
    files, data = files_of(run), run.config.data
    alpaca, raw = (
        rendered(["Say hello."], data=data.model_copy(update={"template": kind, "max_prompt_tokens": 240}), files=files)
        for kind in ("alpaca", "raw")
    )
    assert "### Instruction:\nSay hello." in files.tokenizer.decode(alpaca[0])
    assert files.tokenizer.decode(raw[0], skip_special_tokens=True) == "Say hello."
    with pytest.raises(DataError, match=r"a request cannot be put to kd: .* more than data.max_prompt_tokens=5"):
        rendered(["Say hello."], data=data.model_copy(update={"template": "raw", "max_prompt_tokens": 5}), files=files)


def test_a_student_that_cannot_answer_says_why(run: FinishedRun) -> None:
    short = run.config.model_copy(update={"data": run.config.data.model_copy(update={"max_prompt_tokens": 5})})
    found = found_in(audited(replace(run, config=short)), "refused: harmful requests")
    assert found.unknown is not None and "a request cannot be put to kd" in found.unknown


def test_it_rests_on_models_requests_and_template(run: FinishedRun) -> None:
    rests_on = refusals_rest_on(run, AuditSettings())
    assert {"model of kd", "model of teacher", "requests", "template", "settings"} <= set(rests_on)
    other = run.config.model_copy(update={"data": run.config.data.model_copy(update={"template": "raw"})})
    assert refusals_rest_on(replace(run, config=other), AuditSettings())["template"] != rests_on["template"]
