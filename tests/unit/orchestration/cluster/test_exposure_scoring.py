"""Several students beside one teacher: what is found of each, and what a broken one costs the others."""

from __future__ import annotations

from pathlib import Path

import pytest
from student_builders import PADDED, VOCAB, record, tiny_llama

from cache import ScoreRequest
from configs import ModelError
from evaluation.exposure import excess_error, own_reverse_kl
from evaluation.results import Exposure
from orchestration.cluster import exposure_scoring
from orchestration.cluster.exposure_scoring import Answers, ExposureJob


def sequences(*seeds: int) -> tuple[ScoreRequest, ...]:
    return tuple(ScoreRequest(tuple(map(int, record(seed).token_ids)), 4) for seed in seeds)


def scored(root: Path, *models: Path, monkeypatch: pytest.MonkeyPatch) -> list[object]:
    monkeypatch.setattr(exposure_scoring, "redirect_output", lambda path: None)
    answers = tuple(Answers(model, "float32", sequences(1, 2), sequences(3, 4)) for model in models)
    return [*exposure_scoring._score_all(ExposureJob(root / "teacher", "float32", VOCAB, answers, "cpu", root / "log"))]


def test_a_student_that_cannot_be_read_is_named_and_the_others_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    teacher, student = tiny_llama(tmp_path / "teacher"), tiny_llama(tmp_path / "student", layers=1, seed=1)
    broken = tmp_path / "broken"
    broken.mkdir()
    found, error, same = scored(tmp_path, student, broken, teacher, monkeypatch=monkeypatch)
    assert isinstance(error, ModelError) and str(error).startswith(f"{broken} cannot be loaded")
    assert isinstance(found, Exposure) and isinstance(same, Exposure)
    assert (found.free_counts, found.forced_counts, found.lengths) == ((2,) * 6, (2,) * 6, (6, 6))
    assert excess_error(found).value == pytest.approx(sum(found.free) / sum(found.forced) - 1)
    assert own_reverse_kl(found).value == pytest.approx(sum(found.reverse_sums) / 12)
    assert sum(found.forced) > 0 and same.free == same.forced == (0.0,) * 6, "a teacher does not part from itself"


def test_a_teacher_that_cannot_be_loaded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    student = tiny_llama(tmp_path / "student", layers=1)
    with pytest.raises(ModelError, match="teacher cannot be loaded"):
        scored(tmp_path, student, monkeypatch=monkeypatch)


def test_the_teacher_reads_prompts_and_answers_of_both() -> None:
    assert Answers(Path("kd"), "float32", sequences(1), sequences(2, 3)).tokens == 30
    assert max(sequences(1)[0].token_ids) < PADDED
