"""Speeds of an engine whose times are known."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from results_builders import finished_run
from tiny_llama import save_tiny_llama

from cache import GenerateRequest, TeacherIdentity
from cache.protocols import Failure
from configs import EngineError
from configs.architecture import read_architecture
from configs.schema import EngineSettings
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.examination import Candidate
from orchestration.comparison.speed_examination import PROMPT_TOKENS, RUNS, TOKENS, SpeedExamination
from teacher_server.occupancy import Occupancy

IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
PROMPTS = tuple(tuple(range(start, start + 20)) for start in range(3))
ROW = replace(finished_run(prompts=1).models[0], serving=None)


@dataclass
class Pool:
    """An engine that takes 0.1 s to read a prompt, 0.5 s a step, and 0.2 s more each time that it is asked."""

    asked: list[list[GenerateRequest]] = field(default_factory=list)
    forgot: int = 0
    refuses: str | None = None
    joules: float = 0.0

    def answer_alone(self, requests: Sequence[GenerateRequest], *, k: int) -> TimedAnswers:
        assert k == 0 and self.forgot == len(self.asked) + 1, "it was asked without being told to forget"
        self.asked.append(list(requests))
        self.joules += 9.0
        seconds = 0.1 * len(requests) + 0.5 * requests[0].max_new_tokens
        outcomes = (Failure(self.refuses),) if self.refuses else ()
        return TimedAnswers(outcomes, seconds, "2 of 2 CPUs")

    def forget_prefixes(self) -> None:
        self.forgot += 1

    def occupancy(self) -> Occupancy:
        return Occupancy(len(self.asked), 0)


@pytest.fixture
def candidate(tmp_path: Path) -> Candidate:
    save_tiny_llama(tmp_path / "model", seed=0)
    return Candidate("kd", "student", "d" * 64, tmp_path / "model", IDENTITY, 1234)


def examination(tmp_path: Path, pool: Pool | None = None, **changes: Any) -> SpeedExamination:
    return SpeedExamination(
        prompts=changes.pop("prompts", PROMPTS),
        folder=tmp_path / "serving",
        settings=lambda _: EngineSettings(**changes),
        accelerator="cpu",
        joules=lambda: math.nan if pool is None else pool.joules,
    )


def run(speed: SpeedExamination, candidate: Candidate, pool: Pool) -> None:
    speed.run(candidate, pool)  # type: ignore[arg-type]


def test_first_token_and_later_ones_are_told_apart(tmp_path: Path, candidate: Candidate) -> None:
    pool = Pool()
    speed = examination(tmp_path, pool)
    assert speed.due(candidate)
    run(speed, candidate, pool)
    serving = speed.add(ROW, candidate).serving
    assert serving is not None and serving.measured_on == "2 of 2 CPUs"
    assert [each.batch for each in serving.speeds] == [1, 8, 32]
    eight = serving.speeds[1]
    first = eight.first_token_s
    assert (first.median, first.low, first.high) == pytest.approx((1.3, 1.3, 1.3)) and first.runs == RUNS
    assert eight.token_s.median == pytest.approx(0.5)
    assert eight.tokens_per_s.median == pytest.approx(8 * TOKENS / (0.8 + 0.5 * TOKENS))
    assert serving.joules_per_token == pytest.approx(9.0 * 2 * RUNS / (RUNS * 32 * (1 + TOKENS)))
    assert (serving.peak_host_bytes, serving.peak_gpu_bytes) == (len(pool.asked), 0.0)


def test_no_two_prompts_of_a_batch_begin_alike(tmp_path: Path, candidate: Candidate) -> None:
    pool = Pool()
    run(examination(tmp_path, prompts=(*PROMPTS, tuple(range(9, 9 + 2 * PROMPT_TOKENS)))), candidate, pool)
    for batch in pool.asked:
        assert len({request.prompt_ids for request in batch}) == len(batch)
        assert all(len(request.prompt_ids) <= PROMPT_TOKENS and request.stop_ids == () for request in batch)


def test_models_of_one_shape_share_a_measurement(tmp_path: Path, candidate: Candidate) -> None:
    speed = examination(tmp_path)
    run(speed, candidate, Pool())
    other = replace(candidate, name="other", digest="e" * 64)
    # As text, for a NaN is unlike itself.
    assert not speed.due(other) and repr(speed.kept(other)) == repr(speed.kept(candidate))
    assert speed.due(replace(candidate, identity=replace(IDENTITY, dtype="bfloat16")))
    assert examination(tmp_path, max_sequences=16).due(candidate)
    assert not examination(tmp_path).due(candidate), "it is kept for later experiments"


def test_an_engine_gets_no_larger_batch_than_it_holds(tmp_path: Path, candidate: Candidate) -> None:
    speed = examination(tmp_path, max_sequences=8)
    run(speed, candidate, Pool())
    serving = speed.kept(candidate)
    assert serving is not None and [each.batch for each in serving.speeds] == [1, 8]
    assert math.isnan(serving.joules_per_token)


def test_it_asks_for_no_more_than_it_says(tmp_path: Path, candidate: Candidate) -> None:
    pool = Pool()
    speed = examination(tmp_path)
    run(speed, candidate, pool)
    taken = sum(len(each.prompt_ids) + each.max_new_tokens for batch in pool.asked for each in batch)
    assert taken <= speed.teacher_tokens()


def test_an_engine_that_does_not_answer_is_not_fast(tmp_path: Path, candidate: Candidate) -> None:
    with pytest.raises(EngineError, match="no speed was measured: too long"):
        run(examination(tmp_path), candidate, Pool(refuses="too long"))
    assert examination(tmp_path).due(candidate)


def test_what_was_edited_is_measured_anew(
    tmp_path: Path, candidate: Candidate, caplog: pytest.LogCaptureFixture
) -> None:
    speed = examination(tmp_path)
    run(speed, candidate, Pool())
    (path,) = (tmp_path / "serving").iterdir()
    path.write_text(json.dumps(json.loads(path.read_text()) | {"peak_host_bytes": 1.0}))
    assert speed.due(candidate) and "measured anew" in caplog.text


def test_without_prompts_nothing_is_measured(tmp_path: Path, candidate: Candidate) -> None:
    speed = examination(tmp_path, prompts=())
    assert not speed.due(candidate) and speed.add(ROW, candidate).serving is None


def test_a_model_of_another_vocabulary_is_asked_ids_that_it_has(tmp_path: Path, candidate: Candidate) -> None:
    pool = Pool()
    run(examination(tmp_path, pool, prompts=((10**6, 5, 10**6 + 1),)), candidate, pool)
    vocab = read_architecture(candidate.directory).shape.vocab
    asked = {token for requests in pool.asked for request in requests for token in request.prompt_ids}
    assert asked == {10**6 % vocab, 5, (10**6 + 1) % vocab}
