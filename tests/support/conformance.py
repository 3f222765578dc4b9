"""What every `SequenceSource` promises. A test file imports all of this and defines the fixture `subject`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.keys import sequence_key
from cache.protocols import Failure, Outcome, SequenceSource
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord, validate_record
from configs.errors import EngineError

PROMPTS: tuple[tuple[int, ...], ...] = (
    (1, 17, 23, 99, 4),
    (1, 140, 6),
    (1, *range(10, 50)),
    (7,),
    (1, 17, 23, 99, 5, 61, 62, 63),
    (1, 88, 88, 88, 12),
)


@dataclass(frozen=True, slots=True)
class Subject:
    """An engine under test. `tolerance` is the allowed |Δ log p| between writing and scoring, in nats."""

    source: SequenceSource
    vocab: int
    max_sequences: int
    max_model_len: int
    tolerance: float


def greedy(prompt: tuple[int, ...], *, new: int = 12, stop: tuple[int, ...] = ()) -> GenerateRequest:
    return GenerateRequest(prompt_ids=prompt, stop_ids=stop, max_new_tokens=new)


def records(outcomes: Iterable[Outcome]) -> list[TeacherRecord]:
    found: dict[int, TeacherRecord] = {}
    for position, outcome in outcomes:
        assert isinstance(outcome, TeacherRecord), outcome
        assert position not in found
        found[position] = outcome
    assert sorted(found) == list(range(len(found)))
    return [found[position] for position in range(len(found))]


def tokens(record: TeacherRecord) -> tuple[int, ...]:
    return tuple(record.token_ids.tolist())


def present(array: NDArray[Any] | None) -> NDArray[Any]:
    """An array of a record that is known to have its rows."""
    assert array is not None
    return array


class Counted(Iterator[GenerateRequest]):
    """An iterator that knows how many requests were drawn from it."""

    def __init__(self, requests: Iterable[GenerateRequest]) -> None:
        self._requests = iter(requests)
        self.drawn = 0

    def __next__(self) -> GenerateRequest:
        request = next(self._requests)
        self.drawn += 1
        return request


def test_written_records_are_valid_and_named_by_their_tokens(subject: Subject) -> None:
    requests = [greedy(prompt, new=3 + place) for place, prompt in enumerate(PROMPTS)]
    for request, record in zip(requests, records(subject.source.generate(requests, k=8)), strict=True):
        validate_record(record)
        assert tokens(record)[: record.prompt_len] == request.prompt_ids
        assert (record.response_len, record.finish, record.origin) == (request.max_new_tokens, "length", "decode")
        assert record.k == 8
        assert record.key == sequence_key(subject.source.identity.digest(), tokens(record), record.prompt_len)


def test_scored_records_are_valid_and_have_one_row_a_response_token(subject: Subject) -> None:
    requests = [ScoreRequest((*prompt, 3, 9, 27), prompt_len=len(prompt)) for prompt in PROMPTS]
    for request, record in zip(requests, records(subject.source.score(requests, k=5)), strict=True):
        validate_record(record)
        assert tokens(record) == request.token_ids
        assert (record.response_len, record.finish, record.origin, record.k) == (3, "given", "prefill", 5)
        assert record.key == sequence_key(subject.source.identity.digest(), request.token_ids, request.prompt_len)


def test_greedy_takes_the_most_likely_token(subject: Subject) -> None:
    for record in records(subject.source.generate([greedy(prompt) for prompt in PROMPTS], k=4)):
        assert present(record.topk_ids)[:, 0].tolist() == record.response_ids.tolist()
        assert set(present(record.target_ranks).tolist()) == {1}
        np.testing.assert_array_equal(present(record.target_logprobs), present(record.topk_logprobs)[:, 0])


def test_the_stop_token_is_kept_with_its_row(subject: Subject) -> None:
    [free] = records(subject.source.generate([greedy(PROMPTS[0], new=20)], k=4))
    written = free.response_ids.tolist()
    stop = written[5]
    [stopped] = records(subject.source.generate([greedy(PROMPTS[0], new=20, stop=(stop,))], k=4))
    assert stopped.finish == "stop"
    assert stopped.response_ids.tolist() == written[: written.index(stop) + 1]
    assert len(present(stopped.target_logprobs)) == written.index(stop) + 1
    validate_record(stopped)


def test_a_stop_token_at_the_limit_counts_as_a_stop(subject: Subject) -> None:
    [free] = records(subject.source.generate([greedy(PROMPTS[0], new=1)], k=0))
    stop = int(free.response_ids[0])
    [stopped] = records(subject.source.generate([greedy(PROMPTS[0], new=1, stop=(stop,))], k=0))
    assert (stopped.finish, stopped.response_len) == ("stop", 1)


def test_no_logprobs_means_text_alone(subject: Subject) -> None:
    with_rows = records(subject.source.generate([greedy(prompt) for prompt in PROMPTS], k=4))
    without = records(subject.source.generate([greedy(prompt) for prompt in PROMPTS], k=0))
    assert [tokens(record) for record in without] == [tokens(record) for record in with_rows]
    assert {record.k for record in without} == {0}
    assert {record.target_logprobs is None for record in without} == {True}


def test_a_shorter_answer_is_a_prefix_of_a_longer_one(subject: Subject) -> None:
    [longer] = records(subject.source.generate([greedy(PROMPTS[1], new=12)], k=0))
    [shorter] = records(subject.source.generate([greedy(PROMPTS[1], new=5)], k=0))
    assert tokens(shorter) == tokens(longer)[: len(tokens(shorter))]


@pytest.mark.parametrize("temperature", [0.0, 0.7, 1.0])
def test_scoring_what_was_written_gives_the_same_rows(subject: Subject, temperature: float) -> None:
    requests = [replace(greedy(prompt), temperature=temperature) for prompt in PROMPTS]
    written = records(subject.source.generate(requests, k=6))
    again = records(subject.source.score([ScoreRequest(tokens(record), record.prompt_len) for record in written], k=6))
    for one, other in zip(written, again, strict=True):
        assert one.key == other.key
        np.testing.assert_allclose(
            present(one.target_logprobs), present(other.target_logprobs), rtol=0, atol=subject.tolerance
        )
        np.testing.assert_allclose(
            present(one.topk_logprobs), present(other.topk_logprobs), rtol=0, atol=subject.tolerance
        )
        # A tail is a small difference of large sums: compare its mass, not its logarithm.
        np.testing.assert_allclose(
            np.exp(present(one.tail_logmass)), np.exp(present(other.tail_logmass)), rtol=0, atol=subject.tolerance
        )
        if subject.tolerance == 0:
            np.testing.assert_array_equal(present(one.topk_ids), present(other.topk_ids))
            np.testing.assert_array_equal(present(one.target_ranks), present(other.target_ranks))


def test_an_unlikely_target_lies_outside_the_topk(subject: Subject) -> None:
    [best] = records(subject.source.score([ScoreRequest((*PROMPTS[0], 3), len(PROMPTS[0]))], k=subject.vocab))
    worst = int(present(best.topk_ids)[0, -1])
    [record] = records(subject.source.score([ScoreRequest((*PROMPTS[0], worst), len(PROMPTS[0]))], k=2))
    assert worst not in present(record.topk_ids)
    assert present(record.target_logprobs)[0] < present(record.topk_logprobs)[0, -1]
    # A model may know ids that its tokenizer does not; they count where nobody asked for their names.
    assert int(present(record.target_ranks)[0]) >= subject.vocab


def test_the_whole_vocabulary_has_no_tail(subject: Subject) -> None:
    [record] = records(subject.source.score([ScoreRequest((*PROMPTS[0], 3, 9), len(PROMPTS[0]))], k=subject.vocab))
    assert np.sort(present(record.topk_ids), axis=1).tolist() == [list(range(subject.vocab))] * 2
    assert np.isneginf(present(record.tail_logmass)).all()
    np.testing.assert_allclose(np.exp(present(record.topk_logprobs).astype(np.float64)).sum(axis=1), 1.0, atol=5e-3)


def test_the_same_seed_writes_the_same_and_another_seed_another(subject: Subject) -> None:
    base = replace(greedy(PROMPTS[2], new=16), temperature=1.0)
    requests = [base, replace(base, sampling_seed=1), replace(base, replicate=1)]
    first = [tokens(record) for record in records(subject.source.generate(requests, k=0))]
    assert len(set(first)) == 3
    assert [tokens(record) for record in records(subject.source.generate(requests, k=0))] == first


def test_top_k_of_one_and_a_tiny_top_p_are_greedy(subject: Subject) -> None:
    hot = replace(greedy(PROMPTS[0]), temperature=1.5)
    requests = [greedy(PROMPTS[0]), replace(hot, top_k=1), replace(hot, top_p=1e-6), replace(hot, min_p=1.0)]
    assert len({tokens(record) for record in records(subject.source.generate(requests, k=0))}) == 1


def test_what_cannot_be_answered_fails_alone(subject: Subject) -> None:
    good = greedy(PROMPTS[0])
    bad = [
        (greedy(()), "empty"),
        (greedy((1, subject.vocab)), f"token id {subject.vocab} is outside"),
        (greedy((1, -1)), "token id -1 is outside"),
        (greedy((1,) * 10, new=subject.max_model_len - 9), "max_model_len"),
        (replace(good, max_new_tokens=0), "max_new_tokens=0"),
        (replace(good, temperature=-1.0), "temperature=-1.0"),
        (replace(good, temperature=1.0, top_p=0.0), "top_p=0.0"),
    ]
    outcomes = dict(subject.source.generate([good, *(request for request, _ in bad), good], k=2))
    assert isinstance(outcomes.pop(0), TeacherRecord) and isinstance(outcomes.pop(len(bad) + 1), TeacherRecord)
    for position, (_, part) in enumerate(bad, start=1):
        outcome = outcomes[position]
        assert isinstance(outcome, Failure) and part in outcome.reason and "\n" not in outcome.reason


def test_what_cannot_be_scored_fails_alone(subject: Subject) -> None:
    good = ScoreRequest((1, 5, 6), 1)
    longest = ScoreRequest((1,) * (subject.max_model_len - 1), 1)
    bad = [
        ScoreRequest((), 0),
        ScoreRequest((1, 5), 0),
        ScoreRequest((1, 5), 2),
        ScoreRequest((1, subject.vocab), 1),
        ScoreRequest((1,) * subject.max_model_len, 1),
    ]
    outcomes = dict(subject.source.score([good, *bad, longest], k=2))
    assert isinstance(outcomes[0], TeacherRecord) and isinstance(outcomes[len(bad) + 1], TeacherRecord)
    assert all(isinstance(outcomes[1 + place], Failure) for place in range(len(bad)))


def test_requests_are_drawn_as_there_is_room(subject: Subject) -> None:
    total = 3 * subject.max_sequences + 2
    requests = Counted(greedy((1, 5 + place), new=4 + place % 3) for place in range(total))
    answered = 0
    for _ in subject.source.generate(requests, k=0):
        assert requests.drawn - answered <= subject.max_sequences
        answered += 1
    assert answered == requests.drawn == total


def test_an_iterator_that_is_given_up_leaves_the_engine_usable(subject: Subject) -> None:
    outcomes = subject.source.generate([greedy(prompt, new=30) for prompt in PROMPTS], k=2)
    next(outcomes)
    outcomes.close()  # type: ignore[attr-defined]
    assert len(records(subject.source.generate([greedy(prompt) for prompt in PROMPTS], k=2))) == len(PROMPTS)


def test_nothing_asked_is_nothing_answered(subject: Subject) -> None:
    assert list(subject.source.generate([], k=2)) == []
    assert list(subject.source.score([], k=2)) == []


def test_a_k_that_the_engine_cannot_return_is_an_error(subject: Subject) -> None:
    with pytest.raises(EngineError, match=f"k={subject.vocab + 1}"):
        list(subject.source.generate([greedy(PROMPTS[0])], k=subject.vocab + 1))
    with pytest.raises(EngineError, match="k=0"):
        list(subject.source.score([ScoreRequest((1, 5, 6), 1)], k=0))
