from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from store_builders import STOP, TEACHER, VOCAB, answer, assert_same_text, make_record, make_request, open_cache

from cache import answers
from cache.keys import generation_key, sequence_key
from cache.records import Finish, GenerateRequest, ScoreRequest, TeacherRecord
from cache.store import Missing, TeacherCache

PROMPTS = [[3, 4, number] for number in range(5, 15)]
NOTHING = Missing(generate=(), score=())


def keys_of(cache: TeacherCache, requests: Sequence[GenerateRequest], *, k: int) -> list[bytes]:
    return [key for key in cache.lookup(requests, k=k) if key is not None]


def sequence_of(record: TeacherRecord) -> ScoreRequest:
    return ScoreRequest(token_ids=tuple(record.token_ids.tolist()), prompt_len=record.prompt_len)


def test_what_was_asked_is_a_hit_and_only_that(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    requests = [make_request(prompt) for prompt in PROMPTS]
    answers = [answer(request) for request in requests[:6]]
    cache.put(answers, vocab=VOCAB)
    assert cache.missing(requests[:3], k=8) == NOTHING
    assert cache.missing(requests, k=8) == Missing(generate=(6, 7, 8, 9), score=())
    assert cache.lookup(requests, k=8) == [record.key for record, _ in answers] + [None] * 4
    other = dataclasses.replace(requests[0], temperature=0.5)
    assert cache.missing([other], k=8) == Missing(generate=(0,), score=())


@pytest.mark.parametrize("at_once", [1, 2, 3, 7])
def test_many_requests_are_asked_about_as_few_are(
    tmp_path: Path, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache = open_cache(tmp_path)
    kept = [answer(make_request(prompt), k=8) for prompt in PROMPTS[:3]]
    cache.put(kept, vocab=VOCAB)
    short = dataclasses.replace(make_request(PROMPTS[5]), max_new_tokens=1)
    asked = [
        *(make_request(prompt) for prompt in PROMPTS),
        short,
        make_request(PROMPTS[5]),
        *(sequence_of(record) for record, _ in kept),
        ScoreRequest((3, 4, 5, 6), 2),
        ScoreRequest((3, 4, 5, 6), 2),
    ]
    wanted = {k: cache.missing(asked, k=k) for k in (3, 8, 9)}
    assert wanted[3].generate == (3, 4, 5, 6, 7, 8, 9) and wanted[3].score == ((15, asked[15]),)
    monkeypatch.setattr(answers, "ASKED_AT_ONCE", at_once)
    assert {k: cache.missing(asked, k=k) for k in wanted} == wanted


def test_subsets_supersets_and_other_orders_are_hits(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    few = [make_request(prompt, temperature=0.7, seed=seed) for prompt in PROMPTS[:4] for seed in (0, 1)]
    cache.put([answer(request) for request in few], vocab=VOCAB)
    again = few[::-1][2:] + few[:3]
    assert cache.missing(again, k=8) == NOTHING
    assert None not in cache.lookup(again, k=8)
    # More samples a prompt, and further prompts among the old ones: only what is new is asked for.
    more = [make_request(prompt, temperature=0.7, seed=seed) for prompt in PROMPTS[:5] for seed in (1, 2, 0)]
    wanted = tuple(at for at, request in enumerate(more) if request not in few)
    assert cache.missing(more, k=8) == Missing(generate=wanted, score=())
    assert cache.missing(more, k=3).generate == wanted


def test_scoring_what_was_generated_is_a_hit(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    cache.put([(record, request)], vocab=VOCAB)
    assert cache.missing([sequence_of(record)], k=8) == NOTHING
    assert cache.lookup([sequence_of(record)], k=8) == [record.key]


def test_a_smaller_k_is_a_hit_and_a_larger_one_a_score(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]), k=8)
    cache.put([(record, request)], vocab=VOCAB)
    assert cache.missing([request], k=3) == NOTHING
    assert cache.missing([request], k=9) == Missing(generate=(), score=((0, sequence_of(record)),))
    assert cache.lookup([request], k=9) == [None]
    assert cache.get_many([record.key], k=9) == [None]
    (cut,) = cache.get_many([record.key], k=3)
    (whole,) = cache.get_many([record.key])
    assert cut is not None and whole is not None
    assert cut.k == 3
    assert cut.topk_ids is not None and record.topk_ids is not None
    np.testing.assert_array_equal(cut.topk_ids, record.topk_ids[:, :3])
    mass = np.exp(np.asarray(cut.topk_logprobs, dtype=np.float64)).sum(axis=1) + np.exp(np.asarray(cut.tail_logmass))
    np.testing.assert_allclose(mass, 1.0, atol=1e-5)
    text = cache.get_many([record.key], k=0)[0]
    assert text is not None and text.topk_ids is None


def test_text_alone_is_topped_up_by_a_score_and_the_fuller_row_wins(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    text, request = answer(make_request(PROMPTS[0]), k=0)
    cache.put([(text, request)], vocab=VOCAB)
    assert cache.missing([request], k=0) == NOTHING
    missing = cache.missing([request], k=4)
    assert missing == Missing(generate=(), score=((0, sequence_of(text)),))
    scored = make_record(missing.score[0][1].token_ids, prompt_len=3, k=4, finish="given")
    cache.put([scored], vocab=VOCAB)
    cache.put([make_record(text.token_ids.tolist(), prompt_len=3, k=2, finish="given", seed=1)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert window.missing([request], k=4) == NOTHING
        (found,) = window.get_many(keys_of(window, [request], k=4))
        assert found is not None
        assert found.k == 4
        assert found.finish == "stop", "how it ended is known from the generation"
        assert window.stats().records == 1


def test_of_equal_rows_the_oldest_wins(tmp_path: Path) -> None:
    first, request = answer(make_request(PROMPTS[0]))
    second = dataclasses.replace(first, target_logprobs=np.full(5, -3, dtype=np.float32))
    cache = open_cache(tmp_path)
    cache.put([(first, request)], vocab=VOCAB)
    cache.put([(second, request)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert_same_text(window.get_many([first.key])[0], first)


def test_an_answer_that_stopped_serves_every_larger_limit(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=8), length=5)
    cache.put([(record, request)], vocab=VOCAB)
    for limit in (5, 6, 8, 1000):
        wanted = dataclasses.replace(request, max_new_tokens=limit)
        assert cache.missing([wanted], k=8) == NOTHING
        assert cache.lookup([wanted]) == [record.key]


@pytest.mark.parametrize("finish", ["stop", "length"])
def test_a_longer_answer_serves_a_smaller_limit_as_its_prefix(tmp_path: Path, finish: Finish) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=5), length=5, finish=finish)
    cache.put([(record, request)], vocab=VOCAB)
    short = dataclasses.replace(request, max_new_tokens=2)
    assert cache.missing([short], k=8) == NOTHING
    (key,) = cache.lookup([short], k=8)
    assert key is not None
    assert key == sequence_key(TEACHER.digest(), record.token_ids[:5], 3)
    (found,) = cache.get_many([key])
    assert found is not None
    assert found.finish == "length"
    np.testing.assert_array_equal(found.token_ids, record.token_ids[:5])
    np.testing.assert_array_equal(found.topk_ids, record.topk_ids[:2])  # type: ignore[index]
    np.testing.assert_array_equal(found.tail_logmass, record.tail_logmass[:2])  # type: ignore[index]
    view = cache.view([key], dataset="d", k=4)
    assert view.tokens == 5
    (block,) = open_cache(tmp_path).iter_blocks(view, [np.array([0])])
    np.testing.assert_array_equal(block[0].token_ids, record.token_ids[:5])
    assert block[0].topk_ids is not None and block[0].topk_ids.shape == (2, 4)
    assert block[0].finish == "length"


def test_a_prefix_is_topped_up_as_a_prefix(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]), k=0)
    cache.put([(record, request)], vocab=VOCAB)
    short = dataclasses.replace(request, max_new_tokens=2)
    prefix = ScoreRequest(tuple(record.token_ids[:5].tolist()), 3)
    assert cache.missing([short], k=4) == Missing(generate=(), score=((0, prefix),))
    cache.put([make_record(prefix.token_ids, prompt_len=3, k=4, finish="given")], vocab=VOCAB)
    assert cache.missing([short], k=4) == NOTHING
    (found,) = cache.get_many(keys_of(cache, [short], k=4))
    assert found is not None and found.k == 4


def test_an_answer_cut_by_its_limit_does_not_serve_a_larger_one(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0], limit=5), length=5, finish="length")
    cache.put([(record, request)], vocab=VOCAB)
    longer = dataclasses.replace(request, max_new_tokens=6)
    assert cache.missing([longer], k=8) == Missing(generate=(0,), score=())
    assert cache.lookup([longer]) == [None]
    second, _ = answer(longer, length=6, finish="stop", seed=1)
    cache.put([(second, longer)], vocab=VOCAB)
    for window in (cache, open_cache(tmp_path)):
        assert window.missing([request, longer], k=8) == NOTHING
        assert window.lookup([request, longer]) == [record.key, second.key], "an answer once given does not change"


def test_requests_with_one_answer_are_listed_once(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    request = make_request(PROMPTS[0], limit=4)
    longer, other_seed = dataclasses.replace(request, max_new_tokens=9), dataclasses.replace(request, sampling_seed=5)
    given = ScoreRequest(token_ids=(3, 4, 5), prompt_len=1)
    missing = cache.missing([request, given, longer, other_seed, given], k=8)
    assert missing == Missing(generate=(2,), score=((1, given),))


def test_two_samples_with_the_same_words_share_a_row(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    requests = [make_request(PROMPTS[0], temperature=1.0, seed=seed) for seed in (1, 2)]
    record = make_record([*PROMPTS[0], 7, STOP], prompt_len=3)
    report = cache.put([(record, request) for request in requests], vocab=VOCAB)
    assert report is not None and report.rows == 1
    assert cache.lookup(requests, k=8) == [record.key] * 2


def test_generation_keys_may_be_given_directly(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    with cache.writer(vocab=VOCAB) as writer:
        writer.add(record, generation_key=generation_key(TEACHER.digest(), request))
    assert cache.lookup([request]) == [record.key]


def test_a_short_answer_that_was_also_scored_as_a_text_is_still_an_answer(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record, request = answer(make_request([3, 4, 5]), k=2)
    cache.put([(record, request)], vocab=VOCAB)
    cache.put([make_record(record.token_ids[:5].tolist(), prompt_len=3, k=4, finish="given")], vocab=VOCAB)
    (key,) = cache.lookup([dataclasses.replace(request, max_new_tokens=2)])
    assert key is not None
    (found,) = cache.get_many([key])
    assert found is not None
    assert (found.finish, found.k, found.response_len) == ("length", 4, 2)
