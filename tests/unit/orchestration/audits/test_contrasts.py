"""Two students that learned the same rows by other methods: the difference between them, not two to their teacher."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from audited_runs import Unseen, audited_run, learn_by_heart, write_rows

from cache import ScoreRequest
from configs import ModelError
from evaluation.report.before_shipping import before_shipping
from evaluation.side_effects.findings import Audited, Contrast
from orchestration.audits import contrasts
from orchestration.audits.finished import FinishedRun, open_finished
from orchestration.audits.learned import learned_by
from orchestration.audits.privacy import audit_privacy
from orchestration.audits.settings import AuditSettings


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    """Three students that learned nothing, of the same gold answers; two of them by the same method."""
    root = tmp_path_factory.mktemp("contrasts")
    write_rows(root, train=60, dev=60, test=8, answers=True)
    stages = {name: [{"objective": name, "source": "gold", "steps": 200, "dtype": "float32"}] for name in ("sft", "kd")}
    stages["twin"] = [{**stages["sft"][0], "learning_rate": 2e-4}]
    splits = {split: {"path": str(root / f"{split}.jsonl")} for split in ("train", "dev", "test")}
    students = {name: {"init": {"keep_layers": 1}, "stages": each} for name, each in stages.items()}
    data: dict[str, Any] = {**splits, "response_field": "response", "max_prompt_tokens": 32}
    return open_finished(audited_run(root, by_heart=False, students=students, data=data))


def contrast_in(run: FinishedRun) -> list[Contrast]:
    audit = audit_privacy(run, AuditSettings(rows=60), Unseen())
    assert any("differences between students" in note for note in audit.notes)
    page = str(before_shipping(["run"], [run.results], [Audited({"privacy": audit})]))
    assert "Method by method" in page and "sft - kd" in page
    return list(audit.contrasts)


def loss(found: list[Contrast], one: str, other: str) -> Contrast:
    (each,) = (c for c in found if (c.model, c.other_model, c.instrument) == (one, other, "membership: loss"))
    return each


def test_students_that_learned_nothing_are_not_told_apart(run: FinishedRun) -> None:
    found = contrast_in(run)
    # Each two of different methods, by five scores and by what their answers repeat (which are shorter than 8 words).
    assert {(each.model, each.other_model) for each in found} == {("sft", "kd"), ("kd", "twin")}
    assert len({each.instrument for each in found}) == 6
    same = loss(found, "sft", "kd")
    assert same.difference.value == 0.0 and not same.apart and same.value.n == 120


def test_who_knows_its_rows_by_heart_gives_away_more_than_the_other(run: FinishedRun, tmp_path: Path) -> None:
    sft = next(each for each in run.students if each.name == "sft")
    shutil.copytree(sft.model.directory, tmp_path / "learned")
    (learned,) = learned_by(sft, run)
    learn_by_heart(
        tmp_path / "learned",
        [ScoreRequest(tuple(each.token_ids.tolist()), each.prompt_len) for each in learned.members],
    )
    knows = replace(sft, model=replace(sft.model, directory=tmp_path / "learned"))
    students = tuple(knows if each is sft else each for each in run.students)
    found = loss(contrast_in(replace(run, students=students)), "sft", "kd")
    assert found.value.value > 0.9 and found.apart and found.difference.interval.low > 0.2


def test_two_that_cannot_be_compared_are_named(run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise ModelError("it reads too little")

    monkeypatch.setattr(contrasts, "believed", broken)
    audit = audit_privacy(run, AuditSettings(rows=60), Unseen())
    assert "sft and kd were not held against each other by membership: it reads too little" in audit.notes
    assert {each.instrument.split(":")[0] for each in audit.contrasts} == {"verbatim"}
