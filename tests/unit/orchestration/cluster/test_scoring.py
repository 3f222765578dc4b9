"""What scoring hands to the metrics, and what it does with no models."""

from __future__ import annotations

import numpy as np
from local_engines import fake_teacher

from cache import ScoreRequest, TeacherRecord
from orchestration.cluster import scoring
from orchestration.cluster.scoring import score_students
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
    found = scoring._beliefs(HeldOutRow(record, student, rest, target, best, entropy=rest))
    assert found.teacher_topk is record.topk_logprobs and found.teacher_tail is record.tail_logmass
    assert found.student_topk is student and found.student_target is target
    assert found.top1_agrees.tolist() == [1, 0, 1]
