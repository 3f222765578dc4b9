"""The mixture of teachers' sparse rows, against whole distributions in float64."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from cache.mixing import NO_TOKEN, mixed
from cache.records import TAIL_FLOOR, TeacherRecord, tail_logmass
from configs.errors import DataError

VOCAB, PROMPT, RESPONSE = 31, 3, 40
TOKENS = np.random.default_rng(0).integers(0, VOCAB, size=PROMPT + RESPONSE).astype(np.int32)


def whole(seed: int) -> NDArray[np.float64]:
    """A teacher's probabilities of every token, in float64 [S, V]."""
    logits = 2.0 * np.random.default_rng(seed).standard_normal((RESPONSE, VOCAB))
    powers = np.exp(logits)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def told(probabilities: NDArray[np.float64], *, k: int) -> TeacherRecord:
    """What a cache keeps of these, as exactly as it can."""
    logprobs = np.log(probabilities)
    order = np.argsort(-logprobs, axis=1)
    top, answers = np.take_along_axis(logprobs, order[:, :k], axis=1), TOKENS[PROMPT:]
    return TeacherRecord(
        key=bytes(32),
        token_ids=TOKENS,
        prompt_len=PROMPT,
        finish="stop",
        origin="prefill",
        topk_ids=order[:, :k].astype(np.int32),
        topk_logprobs=top.astype(np.float32),
        target_logprobs=logprobs[np.arange(RESPONSE), answers].astype(np.float32),
        target_ranks=(np.argmax(order == answers[:, None], axis=1) + 1).astype(np.int32),
        tail_logmass=tail_logmass(top, vocab=VOCAB),
    )


def head_of(probabilities: list[NDArray[np.float64]], ks: list[int], row: int) -> set[int]:
    """The tokens whose probability every teacher told: said once more, token by token."""
    ranked = [set(np.argsort(-p[row])[:k].tolist()) for p, k in zip(probabilities, ks, strict=True)]
    target = int(TOKENS[PROMPT + row])
    return set.intersection(*ranked) | ({target} if any(target in ids for ids in ranked) else set())


@pytest.mark.parametrize(("ks", "shares"), [([8, 8], [0.5, 0.5]), ([5, 9], [0.7, 0.3]), ([12, 6, 9], [0.2, 0.5, 0.3])])
def test_heads_are_exact_and_everything_else_is_the_tail(ks: list[int], shares: list[float]) -> None:
    probabilities = [whole(seed) for seed in range(len(ks))]
    expected = np.sum([w * p for w, p in zip(shares, probabilities, strict=True)], axis=0)
    made = mixed([told(p, k=k) for p, k in zip(probabilities, ks, strict=True)], shares=shares)
    assert made.topk_ids is not None and made.topk_logprobs is not None and made.tail_logmass is not None
    assert made.topk_ids.shape == (RESPONSE, min(ks) + (len(set(ks)) > 1))
    for row, (ids, logprobs) in enumerate(zip(made.topk_ids, made.topk_logprobs, strict=True)):
        held = ids != NO_TOKEN
        assert set(ids[held].tolist()) == head_of(probabilities, ks, row) and len(set(ids[held])) == held.sum()
        assert np.exp(logprobs[held].astype(np.float64)) == pytest.approx(expected[row, ids[held]], abs=1e-6)
        assert np.isneginf(logprobs[~held]).all() and (np.diff(logprobs[held]) <= 0).all()
        rest = expected[row].sum() - expected[row, ids[held]].sum()
        assert np.exp(float(made.tail_logmass[row])) == pytest.approx(rest, abs=1e-6)
    assert made.target_logprobs is not None
    answers = expected[np.arange(RESPONSE), TOKENS[PROMPT:]]
    assert np.exp(made.target_logprobs) == pytest.approx(answers, abs=1e-6)
    assert (made.topk_ids == NO_TOKEN).any(), "teachers that rank the same tokens say nothing of the rest"


def test_the_order_of_teachers_does_not_matter() -> None:
    one, two, three = (told(whole(seed), k=k) for seed, k in ((1, 9), (2, 6), (3, 9)))
    made, turned = mixed([one, two, three], shares=[0.5, 0.3, 0.2]), mixed([three, one, two], shares=[0.2, 0.5, 0.3])
    for name in ("topk_ids", "target_ranks"):
        assert np.array_equal(getattr(made, name), getattr(turned, name))
    for name in ("topk_logprobs", "tail_logmass", "target_logprobs"):
        assert getattr(made, name) == pytest.approx(getattr(turned, name), abs=1e-6)


def test_a_teacher_mixed_with_itself_says_what_it_said() -> None:
    alone = told(whole(4), k=8)
    assert alone.tail_logmass is not None
    # Rounded when it was stored, so that head and tail do not add up to one exactly.
    alone = replace(alone, tail_logmass=alone.tail_logmass + np.float32(0.01))
    made = mixed([alone, alone], shares=[0.5, 0.5])
    assert np.array_equal(made.topk_ids, alone.topk_ids)  # type: ignore[arg-type]
    for name in ("topk_logprobs", "tail_logmass", "target_logprobs"):
        assert getattr(made, name) == pytest.approx(getattr(alone, name), abs=1e-6)


def test_a_share_is_how_much_a_teacher_is_believed() -> None:
    one, two = whole(5), whole(6)
    made = mixed([told(one, k=VOCAB), told(two, k=VOCAB)], shares=[0.9, 0.1])
    assert made.topk_ids is not None and made.topk_logprobs is not None and made.tail_logmass is not None
    found = np.zeros_like(one)
    np.put_along_axis(found, made.topk_ids.astype(np.int64), np.exp(made.topk_logprobs.astype(np.float64)), axis=1)
    assert found == pytest.approx(0.9 * one + 0.1 * two, abs=1e-6)
    assert np.isneginf(made.tail_logmass).all(), "whole distributions leave nothing out"


def test_teachers_that_agree_on_no_token_leave_a_tail_alone() -> None:
    one, two = (np.full((RESPONSE, VOCAB), 0.1 / (VOCAB - 4)) for _ in range(2))
    target = TOKENS[PROMPT:]
    for row in range(RESPONSE):
        others = [token for token in range(VOCAB) if token != target[row]]
        one[row, others[:4]], two[row, others[4:8]] = 0.225, 0.225
    made = mixed([told(one, k=4), told(two, k=4)], shares=[0.5, 0.5])
    assert made.topk_ids is not None and made.tail_logmass is not None and made.target_ranks is not None
    assert (made.topk_ids == NO_TOKEN).all() and (made.target_ranks == 1).all()
    assert np.exp(made.tail_logmass) == pytest.approx(1.0, abs=1e-6)


def test_a_tail_is_never_below_what_records_keep() -> None:
    sure = np.full((RESPONSE, VOCAB), 1e-12)
    sure[:, 0] = 1.0 - 1e-12 * (VOCAB - 1)
    made = mixed([told(sure, k=2), told(sure, k=2)], shares=[0.5, 0.5])
    assert made.tail_logmass == pytest.approx(np.full(RESPONSE, np.log(TAIL_FLOOR)), abs=1e-5)


def test_records_of_other_sequences_and_without_beliefs_are_refused() -> None:
    one = told(whole(7), k=4)
    other = replace(one, token_ids=one.token_ids[::-1].copy())
    with pytest.raises(DataError, match="is about another sequence: fill again"):
        mixed([one, other], shares=[0.5, 0.5])
    bare = TeacherRecord(one.key, one.token_ids, one.prompt_len, "stop", "decode")
    with pytest.raises(DataError, match="holds no log-probabilities"):
        mixed([one, bare], shares=[0.5, 0.5])
