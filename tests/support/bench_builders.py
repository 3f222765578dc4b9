"""A bench on disk, and engines in this process that answer it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from cache import GenerateRequest, ScoreRequest, TeacherCache, TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.bench import Bench
from orchestration.comparison.examination import Candidate
from orchestration.inputs.random_models import byte_tokenizer
from teacher_server import FakeTeacher

TOKENIZER = byte_tokenizer()
VOCAB, EOS = len(TOKENIZER), int(TOKENIZER.eos_token_id)
IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
K = 8


def bench_teacher(seed: int = 0) -> FakeTeacher:
    """A teacher; of another seed, a model that says other things."""
    return FakeTeacher(IDENTITY, vocab=VOCAB, seed=seed, eos_id=EOS)


class BenchPool:
    """Engines in this process, each of which takes two seconds over whatever it is asked."""

    def __init__(self, source: FakeTeacher) -> None:
        self.source = source
        self.asked: list[list[Any]] = []

    def answer(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        self.asked.append(list(requests))
        ask: Any = self.source.score if isinstance(requests[0], ScoreRequest) else self.source.generate
        outcomes = dict(ask(requests, k=k))
        return TimedAnswers(tuple(outcomes[at] for at in range(len(requests))), 2.0, "a fake")


class MutePool(BenchPool):
    """Engines that refuse everything."""

    def answer(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        return TimedAnswers(tuple(Failure("too long") for _ in requests), 2.0, "a fake")


def real_bench(root: Path) -> Bench:
    """Six prompts that the teacher answered, in a cache on disk."""
    requests = [GenerateRequest((40 + at, 50), (EOS,), max_new_tokens=12) for at in range(6)]
    said: list[Any] = [(record, requests[at]) for at, record in bench_teacher().generate(requests, k=K)]
    cache = TeacherCache.open(root / "cache", IDENTITY)
    cache.put(said, vocab=VOCAB)
    cache.refresh()
    keys = [key for key in cache.lookup(requests) if key is not None]
    files: Any = SimpleNamespace(tokenizer=TOKENIZER, vocab=VOCAB)
    view = cache.view(keys, dataset="teacher-test", k=K)
    return Bench(cache, view, view, view.digest, tuple(requests), tuple(requests), files, K, 12)


def bench_candidate(name: str = "kd", role: str = "student", digest: str = "d" * 64) -> Candidate:
    """A model to be examined."""
    return Candidate(name, role, digest, Path("models/kd"), IDENTITY, 1234)


def answers_of(source: FakeTeacher, bench: Bench) -> list[TeacherRecord]:
    """What a model answers to the prompts of the bench."""
    found = dict(source.generate(bench.requests, k=0))
    return [record for record in (found[at] for at in range(len(found))) if isinstance(record, TeacherRecord)]
