"""A live teacher that is the same agrees with its cache up to the encoding; another one does not."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from local_engines import EOS, IDENTITY, MAX_MODEL_LEN, VOCAB, fake_teacher
from pipeline_builders import SHAPE, experiment

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherRecord
from cache.protocols import Failure
from configs import CacheError, DistillConfig, EngineError
from orchestration.cache_tools import rescoring
from orchestration.cache_tools.rescoring import CONTROL_ROWS, _cached, rescore, score_twice
from orchestration.cluster.engines import EngineSpec, TimedAnswers
from orchestration.inputs.teachers import open_cache, open_teachers
from teacher_server import FakeTeacher

ROWS, K = 7, 4


class FakePool:
    """Engines in this process; notes the prompts of each batch."""

    def __init__(self, source: FakeTeacher) -> None:
        self.source = source
        self.batches: list[list[tuple[int, ...]]] = []

    def answer(self, requests: Sequence[ScoreRequest], *, k: int) -> TimedAnswers:
        self.batches.append([request.token_ids for request in requests])
        found = dict(self.source.score(requests, k=k))
        return TimedAnswers(tuple(found[at] for at in range(len(requests))), 1.0, "a fake")


@pytest.fixture
def cache(tmp_path: Path) -> TeacherCache:
    requests = [GenerateRequest((3, 4 + at), (EOS,), max_new_tokens=9) for at in range(ROWS)]
    said: Any = [(record, requests[at]) for at, record in fake_teacher().generate(requests, k=K)]
    made = TeacherCache.open(tmp_path / "cache", IDENTITY)
    made.put(said, vocab=VOCAB)
    made.refresh()
    return made


def test_the_same_teacher_says_what_the_cache_keeps(cache: TeacherCache) -> None:
    pool: Any = FakePool(fake_teacher())
    cached = _cached(cache, rows=ROWS, seed=0)
    found = score_twice(cached, pool=pool, name="second", identity=IDENTITY, seed=0)
    assert (found.name, found.identity, found.rows, found.k) == ("second", IDENTITY.digest(), ROWS, K)
    assert found.tokens == sum(record.response_len for record in cached)
    assert 0 <= found.kl < 1e-3 and found.top1_agreement == 1.0
    assert (found.control_kl, found.control_top1_agreement) == (0.0, 1.0)


def test_the_control_asks_for_the_same_rows_in_other_batches(cache: TeacherCache) -> None:
    pool: Any = FakePool(fake_teacher())
    score_twice(_cached(cache, rows=ROWS, seed=0), pool=pool, name="second", identity=IDENTITY, seed=0)
    whole, *parts = pool.batches
    assert len(whole) == ROWS and all(len(part) <= CONTROL_ROWS for part in parts)
    again = [prompt for part in parts for prompt in part]
    assert sorted(again) == sorted(whole) and again != whole


def test_another_teacher_is_far_from_the_cache_and_near_to_itself(cache: TeacherCache) -> None:
    other = FakeTeacher(IDENTITY, vocab=VOCAB, seed=1, eos_id=EOS, max_model_len=MAX_MODEL_LEN)
    pool: Any = FakePool(other)
    found = score_twice(_cached(cache, rows=ROWS, seed=0), pool=pool, name="second", identity=IDENTITY, seed=0)
    assert found.kl > 0.03 and found.top1_agreement < 0.5
    assert found.control_kl == 0.0


def test_a_sequence_that_it_cannot_score_any_more_is_an_error(cache: TeacherCache) -> None:
    class Refusing(FakePool):
        def answer(self, requests: Sequence[ScoreRequest], *, k: int) -> TimedAnswers:
            return TimedAnswers(tuple(Failure("too long") for _ in requests), 1.0, "a fake")

    pool: Any = Refusing(fake_teacher())
    with pytest.raises(EngineError, match=r"^the teacher could not score [0-9a-f]{12} again: too long$"):
        score_twice(_cached(cache, rows=2, seed=0), pool=pool, name="second", identity=IDENTITY, seed=0)


def test_only_rows_with_log_probabilities_are_taken(cache: TeacherCache) -> None:
    request = GenerateRequest((9, 9), (EOS,), max_new_tokens=9)
    ((_, record),) = fake_teacher().generate([request], k=0)
    assert isinstance(record, TeacherRecord)
    cache.put([(record, request)], vocab=VOCAB)
    cache.refresh()
    found = _cached(cache, rows=99, seed=0)
    assert len(found) == ROWS and all(each.topk_ids is not None for each in found)
    assert [each.key for each in _cached(cache, rows=3, seed=5)] == [
        each.key for each in _cached(cache, rows=3, seed=5)
    ]


def of_two(root: Path) -> DistillConfig:
    """An experiment with two teachers, the second of which keeps more log-probabilities."""
    second = {"model": {"random": SHAPE.model_dump(), "seed": 1}, "dtype": "float32", "top_k": K + 2}
    return experiment(root, teachers={"second": second})


def told(config: DistillConfig, *names: str) -> dict[str, FakeTeacher]:
    """What teachers of these names are, by identity; each has answered something of its own."""
    found = {}
    for seed, (name, teacher) in enumerate(open_teachers(config).items()):
        vocab, eos = teacher.files.vocab, teacher.files.stop_ids[0]
        fake = FakeTeacher(teacher.identity, vocab=vocab, seed=seed, eos_id=eos, max_model_len=64)
        found[teacher.identity.digest()] = fake
        if name in names:
            requests = [GenerateRequest((3, 4 + at), (eos,), max_new_tokens=9) for at in range(ROWS + seed)]
            k = config.every_teacher[name].top_k
            said: Any = [(record, requests[at]) for at, record in fake.generate(requests, k=k)]
            open_cache(config.of_teacher(name), teacher).put(said, vocab=vocab)
    return found


class EngineOf(FakePool):
    """The engine of a spec, which notes when it begins and ends."""

    def __init__(self, spec: EngineSpec, *, fakes: dict[str, FakeTeacher], noted: list[str]) -> None:
        super().__init__(fakes[spec.identity.digest()])
        self.name, self.noted = spec.identity.digest(), noted
        noted.append(f"{self.name} up, k={spec.max_logprobs}")

    def release(self) -> None:
        self.noted.append(f"{self.name} down")


def test_every_teacher_is_held_against_its_own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, noted = of_two(tmp_path), list[str]()
    fakes = told(config, "teacher", "second")
    monkeypatch.setattr(rescoring, "cluster", lambda **_: nullcontext())
    monkeypatch.setattr(rescoring, "EnginePool", lambda spec: EngineOf(spec, fakes=fakes, noted=noted))
    found = rescore(config, config_dir=tmp_path, rows=99, log_dir=tmp_path / "logs")
    one, two = fakes
    # Each is asked as widely as its cache holds, and is gone before the next one comes.
    assert noted == [f"{one} up, k={K}", f"{one} down", f"{two} up, k={K + 2}", f"{two} down"]
    assert [(each.name, each.identity, each.rows, each.k) for each in found] == [
        ("teacher", one, ROWS, K), ("second", two, ROWS + 1, K + 2)
    ]  # fmt: skip
    assert all(each.kl < 1e-3 and each.top1_agreement == 1.0 for each in found)
    (alone,) = rescore(config, config_dir=tmp_path, rows=2, log_dir=tmp_path / "logs", prefix=two[:8])
    assert (alone.name, alone.rows) == ("second", 2) and len(noted) == 6


def test_a_teacher_that_was_never_asked_is_named_before_an_engine_starts(tmp_path: Path) -> None:
    config = of_two(tmp_path)
    _, second = told(config, "teacher")
    words = rf"holds no log-probabilities of second {second[:12]}: name the --config .* identity of another"
    with pytest.raises(CacheError, match=words):
        rescore(config, config_dir=tmp_path, rows=2, log_dir=tmp_path / "logs")
