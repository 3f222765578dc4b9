"""Rollouts from the mixture of two fake engines: the distribution, the order of work, and what is refused."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
from local_engines import IDENTITY

from cache import GenerateRequest, ScoreRequest, TeacherRecord, validate_record
from cache.keys import engine_seed, generation_key, sequence_key
from cache.protocols import Outcome
from configs import EngineError
from orchestration.rollouts.mixture import Tally, sample_rollout
from orchestration.rollouts.sequence import RolloutPrompt, Sampled, Sampling
from orchestration.rollouts.turns import Answered, Tagged, Turns
from teacher_server import FakeTeacher
from teacher_server.requests import Asked

VOCAB, EOS, K = 8, 2, 4
STUDENT = replace(IDENTITY, weights_sha256="c" * 64)
SAMPLES = 2500


@dataclass
class Engine(Turns):
    """An engine that writes down what it is asked, turn by turn, and can die or refuse."""

    source: FakeTeacher
    turns: list[list[Tagged]] = field(default_factory=list)
    dies_at: int | None = None

    def __post_init__(self) -> None:
        super().__init__(self)

    def work(self, asked: Iterable[Asked | None]) -> Iterator[list[Outcome]]:  # type: ignore[override]
        return self.source.work(asked)

    def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
        self.turns.append(list(asked))
        if self.dies_at == len(self.turns):
            raise EngineError("it died")
        return super().turn(asked, leave=leave)

    def asked(self, kind: type) -> list[tuple[int, GenerateRequest | ScoreRequest]]:
        return [(tag, each.request) for turn in self.turns for tag, each in turn if isinstance(each.request, kind)]


@dataclass
class Pool:
    """A `RolloutPool` of one or more of them."""

    members: list[Engine]
    block_tokens: int = 4
    capacity: int = 64
    shares_processor: bool = False

    def engines(self) -> list[Engine]:
        return self.members


def pool(*, seed: int, count: int = 1, identity: object = IDENTITY, max_model_len: int = 64, **arguments: int) -> Pool:
    sources = [
        FakeTeacher(identity, vocab=VOCAB, seed=seed, eos_id=EOS, max_model_len=max_model_len)  # type: ignore[arg-type]
        for _ in range(count)
    ]
    return Pool([Engine(source) for source in sources], **arguments)


def student(**arguments: int) -> Pool:
    return pool(seed=1, identity=STUDENT, **arguments)


def teacher(**arguments: int) -> Pool:
    return pool(seed=2, **arguments)


def sample(
    count: int,
    *,
    pools: tuple[Pool, Pool] | None = None,
    prompt: tuple[int, ...] = (5, 6, 7),
    alpha: float = 0.3,
    seed: tuple[int, ...] = (1,),
    length: int = 12,
    stop_ids: tuple[int, ...] = (EOS,),
) -> tuple[list[Sampled], Tally]:
    learner, master = pools or (student(), teacher())
    prompts = [RolloutPrompt(prompt, number=number) for number in range(count)]
    sampling = Sampling(alpha=alpha, seed=seed, version=7, max_new_tokens=length, stop_ids=stop_ids, k=K)
    return sample_rollout(prompts, student=learner, teacher=master, sampling=sampling)


def tokens(sampled: Sequence[Sampled]) -> list[tuple[int, ...]]:
    return [tuple(each.record.response_ids.tolist()) for each in sampled]


def probabilities(pool: Pool, prefix: tuple[int, ...]) -> np.ndarray:
    """What an engine believes at a prefix, over the whole vocabulary."""
    [(_, record)] = pool.members[0].source.score([ScoreRequest((*prefix, 3), len(prefix))], k=VOCAB)
    assert isinstance(record, TeacherRecord) and record.topk_ids is not None and record.topk_logprobs is not None
    probs = np.empty(VOCAB)
    probs[record.topk_ids[0]] = np.exp(record.topk_logprobs[0].astype(np.float64))
    return probs / probs.sum()


def chi_square(counts: np.ndarray, probs: np.ndarray) -> float:
    """Standard deviations by which the statistic exceeds its mean."""
    expected = counts.sum() * probs
    statistic = ((counts - expected) ** 2 / expected).sum()
    return float((statistic - (len(probs) - 1)) / np.sqrt(2 * (len(probs) - 1)))


@pytest.fixture(scope="module")
def drawn() -> list[Sampled]:
    return sample(SAMPLES, length=3)[0]


def test_every_token_follows_the_mixture_of_probabilities(drawn: list[Sampled]) -> None:
    p, q = teacher(), student()
    texts = tokens(drawn)
    worst = {"mixture": [], "logits": [], "student": []}  # type: ignore[var-annotated]
    prefixes = [(), *(prefix for prefix, _ in Counter(each[:1] for each in texts if len(each) > 1).most_common(4))]
    for prefix in prefixes:
        counts = Counter(
            each[len(prefix)] for each in texts if each[: len(prefix)] == prefix and len(each) > len(prefix)
        )
        seen = np.array([counts[token] for token in range(VOCAB)])
        theirs, ours = probabilities(p, (5, 6, 7, *prefix)), probabilities(q, (5, 6, 7, *prefix))
        geometric = theirs**0.3 * ours**0.7
        worst["mixture"].append(chi_square(seen, 0.3 * theirs + 0.7 * ours))
        worst["logits"].append(chi_square(seen, geometric / geometric.sum()))
        worst["student"].append(chi_square(seen, ours))
    assert max(worst["mixture"]) < 4.5
    # Another distribution would have been found out.
    assert max(worst["logits"]) > 10 and max(worst["student"]) > 10


def test_each_source_draws_from_its_own_model_with_probability_alpha(drawn: list[Sampled]) -> None:
    by_teacher = np.array([each.sources[0] for each in drawn])
    assert abs(by_teacher.mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / SAMPLES)
    first = np.array([each.record.response_ids[0] for each in drawn])
    for chosen, model in ((by_teacher, teacher()), (~by_teacher, student())):
        assert chi_square(np.bincount(first[chosen], minlength=VOCAB), probabilities(model, (5, 6, 7))) < 4.5


def test_records_are_the_teacher_s_scores_of_what_was_sampled() -> None:
    learner, master = student(), teacher()
    sampled, tally = sample(40, pools=(learner, master))
    for each in sampled:
        record = each.record
        validate_record(record, vocab=VOCAB)
        assert (record.policy_version, record.origin, record.k) == (7, "prefill", K)
        assert record.key == sequence_key(IDENTITY.digest(), record.token_ids, record.prompt_len)
        assert len(each.sources) == len(each.student_logprobs) == record.response_len
        assert (np.isnan(each.student_logprobs) == each.sources).all()
        for at in np.flatnonzero(~each.sources):
            prefix = tuple(record.token_ids[: record.prompt_len + at].tolist())
            truth = np.log(probabilities(learner, prefix)[record.response_ids[at]])
            assert each.student_logprobs[at] == pytest.approx(truth, abs=1e-5)
    by_teacher = sum(int(each.sources.sum()) for each in sampled)
    assert tally.teacher_tokens == by_teacher
    assert tally.student_tokens == sum(each.record.response_len for each in sampled) - by_teacher
    assert tally.scored_tokens == sum(len(each.record.token_ids) for each in sampled)


def test_a_sequence_ends_at_a_stop_or_at_its_length() -> None:
    sampled, _ = sample(200, length=6)
    stopped = [each.record.finish == "stop" for each in sampled]
    assert 0 < sum(stopped) < 200
    for each, stop in zip(tokens(sampled), stopped, strict=True):
        assert EOS not in each[:-1] and (each[-1] == EOS) == stop
        assert len(each) == 6 or stop
    # Both engines draw stops.
    assert {bool(each.sources[-1]) for each, stop in zip(sampled, stopped, strict=True) if stop} == {True, False}


def test_on_a_shared_processor_one_role_works_at_a_time() -> None:
    working: list[str] = []

    class Watched(Engine):
        def turn(self, asked: Sequence[Tagged], *, leave: int) -> list[Answered]:
            role = "student" if self.source.identity == STUDENT else "teacher"
            assert set(working) <= {role}
            working.append(role)
            try:
                return super().turn(asked, leave=leave)
            finally:
                working.remove(role)

    pools = student(count=2, shares_processor=True), teacher(count=2, shares_processor=True)
    for each in pools:
        each.members = [Watched(engine.source) for engine in each.members]
    assert len(sample(40, pools=pools)[0]) == 40


def test_without_mixing_the_teacher_only_scores() -> None:
    master = teacher()
    sampled, tally = sample(30, pools=(student(), master), alpha=0.0)
    assert master.members[0].asked(GenerateRequest) == []
    assert tally.teacher_tokens == 0 and not any(each.sources.any() for each in sampled)


@pytest.mark.parametrize("shares_processor", [False, True])
@pytest.mark.parametrize("alpha", [0.0, 0.3])
def test_each_sequence_is_scored_once_and_while_others_grow(alpha: float, shares_processor: bool) -> None:
    learner, master = student(shares_processor=shares_processor), teacher(shares_processor=shares_processor)
    sampled, tally = sample(64, pools=(learner, master), alpha=alpha, length=30)
    scored = master.members[0].asked(ScoreRequest)
    assert sorted(tag for tag, _ in scored) == list(range(64))
    assert {request.token_ids for _, request in scored} == {tuple(each.record.token_ids.tolist()) for each in sampled}  # type: ignore[union-attr]
    assert tally.scoring_passes == 1.0 and tally.scored_sequences == 64
    scoring_turns = [
        turn for turn in master.members[0].turns if any(isinstance(each.request, ScoreRequest) for _, each in turn)
    ]
    assert len(scoring_turns) > 2
    assert len(learner.members[0].turns) > 2


def test_no_two_requests_share_noise() -> None:
    """Two engines of one identity, two rollouts by the same weights: no prefix is ever asked twice with one seed."""
    seeds: list[int] = []
    for seed in ((1,), (2,)):
        learner, master = pool(seed=1), pool(seed=1)
        sample(50, pools=(learner, master), seed=seed)
        for engine in (learner.members[0], master.members[0]):
            requests = [each for _, each in engine.asked(GenerateRequest)]
            seeds += [engine_seed(generation_key(IDENTITY.digest(), each)) for each in requests]  # type: ignore[arg-type]
    assert len(set(seeds)) == len(seeds) > 200


def test_the_seed_decides_everything() -> None:
    first, again, other = (sample(30, seed=seed)[0] for seed in ((1,), (1,), (2,)))
    assert tokens(first) == tokens(again) != tokens(other)
    crowded = sample(30, pools=(student(capacity=4, count=2), teacher(count=3)))[0]
    assert tokens(crowded) == tokens(first)
    alternating = student(count=2, shares_processor=True), teacher(count=2, shares_processor=True)
    assert tokens(sample(30, pools=alternating)[0]) == tokens(first)


def test_a_run_is_one_request_and_blocks_are_counted() -> None:
    learner, master = student(), teacher()
    [one], tally = sample(1, pools=(learner, master), alpha=0.5, length=20, stop_ids=())
    runs = 1 + sum(a != b for a, b in pairwise(one.sources.tolist()))
    asked = [each for pool in (learner, master) for _, each in pool.members[0].asked(GenerateRequest)]
    assert len(asked) == runs > 4
    held, again = {True: 0, False: 0}, 0
    for at in range(one.record.response_len):
        source = bool(one.sources[at])
        if at == 0 or one.sources[at - 1] != one.sources[at]:
            again += held[source] % 4
        held[source] = one.record.prompt_len + at
    assert tally.recomputed_tokens == again > 0


def test_a_sequence_stays_with_one_engine_and_only_so_many_grow() -> None:
    learner, master = student(count=2, capacity=6), teacher(count=3)
    sample(30, pools=(learner, master))
    for members in (learner.members, master.members):
        for index, engine in enumerate(members):
            assert {tag % len(members) for turn in engine.turns for tag, _ in turn} == {index}
    assert max(len(turn) for engine in (*learner.members, *master.members) for turn in engine.turns) <= 6


def test_what_an_engine_refuses_is_dropped_and_counted() -> None:
    prompts = [RolloutPrompt((5, 6, 7), number=0), RolloutPrompt((5,) * 60, number=1), RolloutPrompt((6, 5), number=2)]
    sampling = Sampling(alpha=0.3, seed=(1,), version=0, max_new_tokens=20, stop_ids=(), k=K)
    sampled, tally = sample_rollout(prompts, student=student(), teacher=teacher(), sampling=sampling)
    assert [each.record.prompt_len for each in sampled] == [3, 2]
    [(reason, count)] = tally.failures.items()
    assert count == 1 and "max_model_len=64" in reason


@pytest.mark.parametrize("who", ["student", "teacher"])
def test_a_dying_engine_ends_the_rollout_and_the_next_begins_afresh(who: str) -> None:
    learner, master = pools = student(), teacher()
    dying = {"student": learner, "teacher": master}[who].members[0]
    dying.dies_at = 3
    with pytest.raises(EngineError, match="it died"):
        sample(40, pools=pools)
    dying.dies_at = None
    assert tokens(sample(40, pools=pools)[0]) == tokens(sample(40)[0])
