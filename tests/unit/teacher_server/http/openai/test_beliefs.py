"""What a teacher believed where each token came, told so that it agrees with itself."""

from __future__ import annotations

import numpy as np
from doors import FIRST_CHARACTER, TEACHER, VOCAB
from hypothesis import given
from hypothesis import strategies as st

from cache.records import ScoreRequest, TeacherRecord
from teacher_server.http.openai.answer_bodies import LEAST
from teacher_server.http.openai.beliefs import (
    Belief,
    beliefs_of,
    chat_tokens,
    completion_logprobs,
    prompt_logprobs,
)
from teacher_server.http.pieces import Pieces

A, B = FIRST_CHARACTER + ord("a"), FIRST_CHARACTER + ord("b")
PIECES = Pieces({A: b"a", B: b"b", 7: b"a", 8: b"\xe2"}.get, names={2: "<eos>"})


def scored(*token_ids: int, k: int) -> TeacherRecord:
    [(_, record)] = TEACHER.score([ScoreRequest(token_ids, 1)], k=k)
    assert isinstance(record, TeacherRecord)
    return record


@given(st.lists(st.integers(0, VOCAB - 1), min_size=2, max_size=6), st.integers(0, 4))
def test_beliefs_are_the_teacher_s(token_ids: list[int], top: int) -> None:
    record = scored(*token_ids, k=4)
    everything = scored(*token_ids, k=VOCAB)
    assert everything.topk_ids is not None and everything.topk_logprobs is not None
    for at, belief in enumerate(beliefs_of(record, top=top)):
        ids, logprobs = everything.topk_ids[at].tolist(), everything.topk_logprobs[at].tolist()
        assert belief.token == token_ids[at + 1]
        assert belief.logprob == logprobs[ids.index(belief.token)] and belief.rank == 1 + ids.index(belief.token)
        assert belief.top == tuple(zip(ids[:top], logprobs[:top], strict=True))
        assert dict(belief.told) == dict(belief.top) | {belief.token: belief.logprob}


def record_of(*, token: int, logprob: float, rank: int, ids: list[int], logprobs: list[float]) -> TeacherRecord:
    """One response token, with numbers as a cache that rounds may give them."""
    return TeacherRecord(
        key=b"k" * 32,
        token_ids=np.array([1, token], dtype=np.int32),
        prompt_len=1,
        finish="given",
        origin="prefill",
        topk_ids=np.array([ids], dtype=np.int32),
        topk_logprobs=np.array([logprobs], dtype=np.float32),
        target_logprobs=np.array([logprob], dtype=np.float32),
        target_ranks=np.array([rank], dtype=np.int32),
        tail_logmass=np.array([-3.0], dtype=np.float32),
    )


@given(
    rank=st.integers(1, 6),
    target=st.floats(-5, 0, width=32),
    rounded=st.lists(st.floats(-5, 0, width=32), min_size=4, max_size=4),
)
def test_rounding_moves_no_token_past_the_one_that_came(rank: int, target: float, rounded: list[float]) -> None:
    """Whatever the cache's rounding did to those beside it, only the most likely token equals the maximum."""
    ids = [10, 11, 12, 13]
    token = ids[rank - 1] if rank <= 4 else 99
    record = record_of(token=token, logprob=target, rank=rank, ids=ids, logprobs=sorted(rounded, reverse=True))
    for top in range(5):
        [belief] = beliefs_of(record, top=top)
        told = dict(belief.told)
        assert told[token] == belief.logprob == target
        is_greedy = target == max(told.values())
        assert is_greedy == (rank == 1 or top == 0)
        for place, each in enumerate(ids[:top], 1):
            assert each == token or (told[each] > target) == (place < rank)


def test_what_is_impossible_is_very_unlikely() -> None:
    record = record_of(token=99, logprob=-np.inf, rank=5, ids=[10, 11], logprobs=[0.0, -np.inf])
    [belief] = beliefs_of(record, top=2)
    assert belief.logprob == LEAST and dict(belief.told) == {10: 0.0, 11: LEAST, 99: LEAST}


def test_completions_have_names_and_places() -> None:
    beliefs = [None, Belief(A, -1.0, 2, ((B, -0.5), (A, -1.0))), Belief(2, -2.0, 3, ((B, -0.5),))]
    told = completion_logprobs(beliefs, token_ids=[8, A, 2], offsets=[0, 0, 1], pieces=PIECES)
    assert told.tokens == ["bytes:\\xe2", "a", "<eos>"] and told.text_offset == [0, 0, 1]
    assert told.token_logprobs == [None, -1.0, -2.0]
    assert told.top_logprobs == [None, {"b": -0.5, "a": -1.0}, {"b": -0.5, "<eos>": -2.0}]


def test_two_tokens_of_one_name_stay_two() -> None:
    [first, second] = completion_logprobs(
        [Belief(A, -1.0, 2, ((7, -0.5),)), Belief(B, -1.0, 3, ((A, -0.5), (7, -0.7)))],
        token_ids=[A, B],
        offsets=[0, 1],
        pieces=PIECES,
    ).top_logprobs
    # The token that came has the name that `tokens` has; of others the more likely one keeps it.
    assert first == {"token_id:7": -0.5, "a": -1.0}
    assert second == {"a": -0.5, "token_id:7": -0.7, "b": -1.0}


def test_chats_have_bytes() -> None:
    [first, second] = chat_tokens([Belief(8, -1.0, 9, ((A, -0.5),)), Belief(2, -2.0, 1, ())], pieces=PIECES)
    assert (first.token, first.bytes, first.logprob) == ("bytes:\\xe2", [0xE2], -1.0)
    assert [each.model_dump() for each in first.top_logprobs] == [{"token": "a", "bytes": [97], "logprob": -0.5}]
    assert (second.token, second.bytes, second.top_logprobs) == ("<eos>", None, [])


def test_prompts_are_told_by_id_as_vllm_does() -> None:
    told = prompt_logprobs([None, Belief(A, -3.0, 7, ((B, -0.5), (2, -1.0)))], pieces=PIECES)
    assert told[0] is None and told[1] is not None
    assert {name: each.model_dump() for name, each in told[1].items()} == {
        str(B): {"logprob": -0.5, "rank": 1, "decoded_token": "b"},
        "2": {"logprob": -1.0, "rank": 2, "decoded_token": "<eos>"},
        str(A): {"logprob": -3.0, "rank": 7, "decoded_token": "a"},
    }
