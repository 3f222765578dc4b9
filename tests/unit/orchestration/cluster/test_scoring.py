"""What scoring hands to the metrics, and what it does with no models and with a broken one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from belief_builders import random_beliefs
from local_engines import fake_teacher

from cache import ScoreRequest, TeacherRecord
from configs import ModelError
from evaluation.closeness import COLUMNS, closeness_of
from evaluation.results import Closeness
from orchestration.cluster import scoring
from orchestration.cluster.scoring import ScoringJob, score_students
from student_train.scoring import HeldOutRow


def test_without_models_nothing_is_started() -> None:
    assert score_students([], cpus=2) == []


def test_a_row_pairs_what_teacher_and_student_believe_and_counts_where_their_best_tokens_agree() -> None:
    [(_, record)] = fake_teacher().score([ScoreRequest((3, 4, 5, 6, 7), prompt_len=2)], k=4)
    assert isinstance(record, TeacherRecord) and record.topk_ids is not None
    best = record.topk_ids[:, 0].copy()
    best[1] += 1
    student, target = np.full((3, 4), -1.5, dtype=np.float32), np.array([-1.0, -2.0, -3.0], dtype=np.float32)
    rest = np.full(3, -0.25, dtype=np.float32)
    own = np.stack([best, best + 1], axis=1)
    found = scoring._beliefs(HeldOutRow(record, student, rest, target, own, own_best=rest, entropy=rest))
    assert found.teacher_topk is record.topk_logprobs and found.teacher_tail is record.tail_logmass
    assert found.student_topk is student and found.student_target is target
    assert found.target_ids.tolist() == [5, 6, 7]
    assert (found.teacher_ids is record.topk_ids, found.own_ids is own, found.own_best is rest) == (True, True, True)
    top1 = dict(zip(COLUMNS, closeness_of([found]).sums[0], strict=True))["top1"]
    assert top1 == 2


def test_a_model_that_cannot_be_scored_is_named_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = closeness_of([random_beliefs(1, rows=3)])

    def score(job: ScoringJob) -> Closeness:
        if job.model_dir.name == "broken":
            raise ModelError("broken: has no weights")
        return good

    monkeypatch.setattr(scoring, "_score", score)
    monkeypatch.setattr(scoring, "redirect_output", lambda path: None)
    jobs = [
        ScoringJob(tmp_path / name, tmp_path, fake_teacher().identity, tmp_path, 9, "float32", "cpu", tmp_path / "log")
        for name in ("one", "broken", "two")
    ]
    one, error, two = scoring._score_all(jobs)
    assert one == two == good
    assert isinstance(error, ModelError) and str(error) == "broken: has no weights"
