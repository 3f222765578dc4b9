"""What the final comparison holds against what, and what it keeps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from configs import EngineError
from evaluation import HeldOutMetrics
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison import bench as evaluate
from orchestration.comparison.bench import (
    WARM_UP,
    Candidate,
    evaluate_student,
    evaluate_teacher,
    finished,
    shared_beliefs,
    teacher_tokens,
)
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.outputs.artifacts import Artifacts
from teacher_server import FakeTeacher

TOKENIZER = byte_tokenizer()


def record(answer: str) -> TeacherRecord:
    tokens = np.array([7, *TOKENIZER.encode(answer)], dtype=np.int32)
    return TeacherRecord(b"", tokens, 1, "stop", "decode")


def bench(*references: str, compared_tokens: int) -> evaluate.Bench:
    held = [record(text) for text in references]
    cache: Any = SimpleNamespace(iter_blocks=lambda view, pieces: iter([held]))
    view: Any = [None] * len(held)
    files: Any = SimpleNamespace(tokenizer=TOKENIZER)
    return evaluate.Bench(cache, view, (), files, 4, compared_tokens)


@pytest.mark.parametrize(
    ("answer", "reference", "expected"),
    [
        # Eleven bytes: what either says beyond them, the other was not allowed to say.
        ("one two six", "one two six and four more words", 100.0),
        ("one two six and four more words", "one two six", 100.0),
        ("one two", "one two six and four more words", 80.0),
        ("один д", "один да нет", 100.0),
    ],
)
def test_answers_are_compared_as_far_as_both_were_allowed_to_go(answer: str, reference: str, expected: float) -> None:
    cut = bench(reference, compared_tokens=11)
    assert cut.rouge_l([record(answer)]) == pytest.approx(expected)


def test_a_failed_answer_counts_as_an_empty_one() -> None:
    assert bench("one", "two", compared_tokens=9).rouge_l([record("one"), Failure("refused")]) == pytest.approx(50.0)


VOCAB, EOS = len(TOKENIZER), int(TOKENIZER.eos_token_id)
IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
K = 8
MEASURED = HeldOutMetrics(
    forward_kl=0.5, forward_kl_stderr=0.1, reverse_kl=0.75, top1_agreement=0.625, perplexity=3.0, tokens=40
)


def teacher(seed: int = 0) -> FakeTeacher:
    return FakeTeacher(IDENTITY, vocab=VOCAB, seed=seed, eos_id=EOS)


class FakePool:
    """Engines in this process, each of which takes two seconds over whatever it is asked."""

    def __init__(self, source: FakeTeacher) -> None:
        self.source = source
        self.asked: list[list[Any]] = []
        self.loaded: list[tuple[Path, TeacherIdentity]] = []

    def load(self, model_dir: Path, identity: TeacherIdentity) -> None:
        self.loaded.append((model_dir, identity))

    def answer(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        self.asked.append(list(requests))
        ask: Any = self.source.score if isinstance(requests[0], ScoreRequest) else self.source.generate
        outcomes = dict(ask(requests, k=k))
        return TimedAnswers(tuple(outcomes[at] for at in range(len(requests))), 2.0, "a fake")


class MutePool(FakePool):
    """Engines that refuse everything."""

    def answer(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        return TimedAnswers(tuple(Failure("too long") for _ in requests), 2.0, "a fake")


@pytest.fixture
def real(tmp_path: Path) -> evaluate.Bench:
    """Six prompts that the teacher answered, in a cache on disk."""
    requests = [GenerateRequest((40 + at, 50), (EOS,), max_new_tokens=12) for at in range(6)]
    said = [(record, requests[at]) for at, record in teacher().generate(requests, k=K)]
    cache = TeacherCache.open(tmp_path / "cache", IDENTITY)
    cache.put(said, vocab=VOCAB)  # type: ignore[arg-type]
    cache.refresh()
    keys = [key for key in cache.lookup(requests) if key is not None]
    files: Any = SimpleNamespace(tokenizer=TOKENIZER)
    return evaluate.Bench(cache, cache.view(keys, dataset="teacher-test", k=K), tuple(requests), files, K, 12)


@pytest.fixture
def artifacts(tmp_path: Path) -> Artifacts:
    return Artifacts(tmp_path / "runs", say=pytest.fail)


def candidate(name: str = "kd", role: str = "student", digest: str = "d" * 64) -> Candidate:
    return Candidate(name, role, digest, Path("models/kd"), IDENTITY, 1234)


def answers_of(source: FakeTeacher, bench: evaluate.Bench) -> list[TeacherRecord]:
    found = dict(source.generate(bench.requests, k=0))
    return [record for record in (found[at] for at in range(len(found))) if isinstance(record, TeacherRecord)]


def test_the_teacher_against_its_own_answers_is_the_noise_floor(real: evaluate.Bench, artifacts: Artifacts) -> None:
    pool: Any = FakePool(teacher())
    found = evaluate_teacher(candidate("teacher", "teacher"), bench=real, pool=pool, artifacts=artifacts)
    # What is left is the rounding of the cache's encoding.
    assert 0 <= found.forward_kl < 1e-3 and 0 <= found.reverse_kl < 1e-3
    assert (found.top1_agreement, found.rouge_l) == (1.0, 100.0)
    (scored,) = [dict(pool.source.score(part, k=K)) for part in pool.asked if isinstance(part[0], ScoreRequest)]
    nats = np.concatenate([record.target_logprobs for record in scored.values() if isinstance(record, TeacherRecord)])
    assert found.perplexity == pytest.approx(math.exp(-nats.mean()), rel=1e-6)
    written = sum(record.response_len for record in answers_of(teacher(), real))
    assert found.tokens_per_s == written / 2.0
    assert (found.measured_on, found.parameters, found.name) == ("a fake", 1234, "teacher")
    assert found.answers == real.texts(answers_of(teacher(), real))
    assert [len(part) for part in pool.asked] == [WARM_UP, 6, 6], "an engine is warm before its speed is measured"


def test_a_student_is_served_and_its_answers_stand_beside_its_metrics(
    real: evaluate.Bench, artifacts: Artifacts
) -> None:
    pool: Any = FakePool(teacher(seed=1))
    found = evaluate_student(candidate(), MEASURED, bench=real, pool=pool, artifacts=artifacts)
    assert pool.loaded == [(Path("models/kd"), IDENTITY)]
    assert found.metrics() == {
        "eval/test/forward_kl": 0.5,
        "eval/test/forward_kl_stderr": 0.1,
        "eval/test/reverse_kl": 0.75,
        "eval/test/top1_agreement": 0.625,
        "eval/test/perplexity": 3.0,
        "eval/test/rouge_l": real.rouge_l(answers_of(teacher(seed=1), real)),
        "eval/test/tokens_per_s": found.tokens_per_s,
        "eval/parameters": 1234.0,
    }
    assert found.rouge_l < 100


def test_what_was_measured_once_is_found_under_any_name(real: evaluate.Bench, artifacts: Artifacts) -> None:
    assert finished([candidate()], bench=real, artifacts=artifacts) == {}
    pool: Any = FakePool(teacher(seed=1))
    made = evaluate_student(candidate(), MEASURED, bench=real, pool=pool, artifacts=artifacts)
    others = [candidate("renamed"), candidate("other", digest="e" * 64)]
    assert finished(others, bench=real, artifacts=artifacts) == {"renamed": replace(made, name="renamed")}


def test_what_was_kept_with_other_fields_is_named_and_measured_again(real: evaluate.Bench, tmp_path: Path) -> None:
    said: list[str] = []
    artifacts = Artifacts(tmp_path / "runs", say=said.append)
    artifacts.write_evaluation(real.digest(candidate()), {"forward_kl": 0.5})
    assert finished([candidate()], bench=real, artifacts=artifacts) == {}
    assert len(said) == 1 and "is not an evaluation (Evaluated: 'answers' is missing or unknown)" in said[0]


def test_a_model_that_answers_nothing_says_why(real: evaluate.Bench, artifacts: Artifacts) -> None:
    pool: Any = MutePool(teacher())
    with pytest.raises(EngineError, match=r"^kd answered no test prompt: too long$"):
        evaluate_student(candidate(), MEASURED, bench=real, pool=pool, artifacts=artifacts)


def test_what_the_teachers_row_takes_at_most(real: evaluate.Bench) -> None:
    scored = sum(len(record.token_ids) for record in real.references())
    assert teacher_tokens(real) == (6 + WARM_UP) * (2 + 12) + scored


def test_an_evaluation_is_addressed_by_all_that_changes_it(real: evaluate.Bench) -> None:
    other_ids: Any = SimpleNamespace(tokenizer=byte_tokenizer())
    other_ids.tokenizer.add_tokens(["more"])
    identity = TeacherIdentity(weights_sha256="c" * 64, config_sha256="b" * 64, dtype="float32")
    digests = [
        real.digest(candidate()),
        real.digest(candidate(digest="e" * 64)),
        real.digest(candidate(role="untouched")),
        real.digest(replace(candidate(), identity=identity)),
        replace(real, requests=real.requests[:5]).digest(candidate()),
        replace(real, requests=tuple(replace(each, max_new_tokens=9) for each in real.requests)).digest(candidate()),
        replace(real, tokenizer_of=other_ids).digest(candidate()),
        replace(real, compared_tokens=11).digest(candidate()),
    ]
    assert len(set(digests)) == len(digests)
    assert real.digest(replace(candidate("renamed"), directory=Path("moved"), parameters=1)) == digests[0]


def top_two(ids: tuple[int, int], probabilities: tuple[float, float], *, tail: float) -> TeacherRecord:
    return TeacherRecord(
        b"", np.array([7, ids[0]], np.int32), 1, "stop", "prefill",
        topk_ids=np.array([ids], np.int32),
        topk_logprobs=np.log(np.array([probabilities], np.float32)),
        target_logprobs=np.log(np.array([probabilities[0]], np.float32)),
        tail_logmass=np.array([math.log(tail) if tail else -math.inf], np.float32),
    )  # fmt: skip


def test_rows_are_compared_on_the_ids_that_both_name() -> None:
    """All else, an id that only one of them names included, lies in one bucket."""
    cached, live = top_two((5, 9), (0.5, 0.25), tail=0.25), top_two((9, 3), (0.4, 0.3), tail=0.3)
    found = shared_beliefs(cached, live)
    assert np.exp(found.teacher_topk).tolist() == [[0.0, 0.25]]
    assert np.exp(found.student_topk)[0] == pytest.approx([0.0, 0.4])
    assert np.exp(found.teacher_tail)[0] == pytest.approx(0.75)
    assert np.exp(found.student_tail)[0] == pytest.approx(0.6)
    assert np.exp(found.student_target)[0] == pytest.approx(0.4)
    assert found.top1_agrees.tolist() == [0]


def test_rows_that_name_the_whole_vocabulary_have_no_bucket() -> None:
    found = shared_beliefs(top_two((0, 1), (0.75, 0.25), tail=0), top_two((1, 0), (0.6, 0.4), tail=0))
    assert np.isneginf(found.teacher_tail).all() and np.isneginf(found.student_tail).all()
    assert np.exp(found.student_topk)[0] == pytest.approx([0.4, 0.6])
