"""What membership inference of a run needs and lacks: matched rows, cached beliefs, the teacher's weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from audited_runs import audited_run, write_rows

from evaluation.side_effects.findings import Finding
from orchestration.audits.beliefs import Beliefs
from orchestration.audits.finished import FinishedRun, open_finished
from orchestration.audits.learned import Learned, learned_by
from orchestration.audits.membership import MEANINGS, membership_findings
from orchestration.inputs.models import load_tokenizer


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> FinishedRun:
    root = tmp_path_factory.mktemp("membership")
    write_rows(root, train=12, dev=8, test=8)
    return open_finished(audited_run(root, by_heart=False))


def asked(run: FinishedRun, learned: Learned, *, pairs: int = 100) -> dict[str, Finding]:
    (student,) = run.students
    tokenizer = load_tokenizer(student.model.directory, label="kd")
    found, _ = membership_findings(student, learned, run=run, beliefs=Beliefs("cpu"), tokenizer=tokenizer, pairs=pairs)
    return {each.instrument: each for each in found}


def without_beliefs(learned: Learned) -> Learned:
    members, others = (
        tuple(replace(record, target_logprobs=None) for record in records)
        for records in (learned.members, learned.others)
    )
    return replace(learned, members=members, others=others)


def test_every_score_has_an_area_and_a_rate(run: FinishedRun) -> None:
    (learned,) = learned_by(run.students[0], run)
    found = asked(run, learned)
    assert set(found) == {
        f"membership: {name}{end}" for name in MEANINGS for end in ("", ", found at 1 % false alarms")
    }
    assert found["membership: loss"].value.n == 24
    assert asked(run, learned, pairs=5)["membership: loss"].value.n == 10


def test_what_the_teacher_believes_is_from_the_cache_and_else_from_its_weights(run: FinishedRun) -> None:
    (learned,) = learned_by(run.students[0], run)
    cached, weighed = (
        asked(run, each)["membership: against the teacher"] for each in (learned, without_beliefs(learned))
    )
    assert cached.unknown is None and weighed.unknown is None
    # Engines that are fakes believe other things than the teacher's weights do.
    assert cached.value.value != weighed.value.value
    lost = replace(run, teacher=replace(run.teacher, directory=Path("nowhere")))
    missing = asked(lost, without_beliefs(learned))["membership: against the teacher"]
    assert missing.unknown is not None
    assert (
        "the cache holds no log-probabilities of these rows, and the weights of the teacher are not in"
        in missing.unknown
    )


def test_without_a_start_or_held_out_rows_it_is_not_known(run: FinishedRun) -> None:
    (learned,), (student,) = learned_by(run.students[0], run), run.students
    found = asked(replace(run, students=(replace(student, start=None),)), learned)
    assert found["membership: against the start"].unknown == "what it began as was not compared"
    assert found["membership: loss"].untouched is None and found["membership: loss"].unknown is None
    nothing = asked(run, replace(learned, others=()))
    assert {each.unknown for each in nothing.values()} == {"the run kept no held-out row with the teacher's answers"}
    assert len(nothing) == 2 * len(MEANINGS)


def test_members_that_the_student_finds_likelier_are_told(run: FinishedRun) -> None:
    (learned,), (student,) = learned_by(run.students[0], run), run.students

    class Known(Beliefs):
        def of(self, model: object, sequences: object) -> list[np.ndarray]:  # type: ignore[override]
            members = {record.token_ids.tobytes() for record in learned.members}
            return [
                np.full(len(each.token_ids) - each.prompt_len, -0.1 if _is_of(each, members) else -2.0, np.float32)
                for each in sequences  # type: ignore[attr-defined]
            ]

    tokenizer = load_tokenizer(student.model.directory, label="kd")
    found, _ = membership_findings(student, learned, run=run, beliefs=Known("cpu"), tokenizer=tokenizer, pairs=100)
    by_name = {each.instrument: each.value.value for each in found}
    assert by_name["membership: loss"] == by_name["membership: min-k"] == by_name["membership: zlib"] == 1.0


def _is_of(sequence: object, members: set[bytes]) -> bool:
    ids = np.array(sequence.token_ids, dtype=np.int32).tobytes()  # type: ignore[attr-defined]
    return any(each.startswith(ids) for each in members)
