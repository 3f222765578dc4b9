"""From a body to requests: what the teacher could not answer is refused before anything is asked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from doors import EOS, FACTS, IDENTITY, VOCAB, Gated, ToyTokenizer, scored, written

from cache import TeacherCache
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.http.bodies import GenerateBody, ScoreBody
from teacher_server.http.refusals import Refusal
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served, scored_requests, written_requests
from teacher_server.http.texts import Texts

LIMITS = DoorLimits(most_rows=3, most_tokens=60, most_numbers=100)


@pytest.fixture
def served(tmp_path: Path) -> Served:
    desk = SequenceDesk(TeacherCache.open(tmp_path, IDENTITY), Gated(), DeskTerms(vocab=VOCAB, most_k=8))
    return Served(desk, FACTS, Texts(ToyTokenizer(), stop_ids=(EOS,)))


def asked(served: Served, *rows: dict[str, Any], k: int = 2) -> list[Any]:
    """What these rows ask, of either kind."""
    if "max_new_tokens" in rows[0]:
        body = GenerateBody.model_validate({"k": k, "requests": list(rows)})
        return written_requests(body, served=served, limits=LIMITS)
    return scored_requests(ScoreBody.model_validate({"k": k, "requests": list(rows)}), served=served, limits=LIMITS)


def test_rows_become_requests(served: Served) -> None:
    assert asked(served, scored(1, 9, 5, prompt_len=2)) == [ScoreRequest((1, 9, 5), 2)]
    assert asked(served, written(1, 5, new=7)) == [GenerateRequest((1, 5), (EOS,), 7)]


def test_every_field_of_the_sampling_arrives(served: Served) -> None:
    sampling = {
        "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "presence_penalty": 1.0, "frequency_penalty": -1.0,
        "repetition_penalty": 2.0, "sampling_seed": 2**62, "replicate": 4, "grammar": "start: /a/",
    }  # fmt: skip
    [request] = asked(served, written(1, stop_ids=[9, 2, 9], **sampling))
    assert request == GenerateRequest((1,), (2, 9), 4, **sampling)


def test_an_answer_may_have_no_stops(served: Served) -> None:
    assert asked(served, written(1, stop_ids=[]))[0].stop_ids == ()


def test_texts_become_the_ids_that_the_tokenizer_makes_of_them(served: Served) -> None:
    assert served.texts is not None
    [completed, answered] = asked(
        served,
        {"prompt": "ab", "completion": "c"},
        {"messages": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
    )
    assert completed == ScoreRequest(*served.texts.completed("ab", "c"))
    assert answered.token_ids[-1] == EOS and answered.prompt_len == len(answered.token_ids) - 2
    [plain, talk] = asked(
        served,
        {"prompt": "ab", "max_new_tokens": 2},
        {"messages": [{"role": "user", "content": "a"}], "max_new_tokens": 2},
    )
    assert plain.prompt_ids == served.texts.prompt("ab")
    assert talk.prompt_ids == answered.token_ids[: answered.prompt_len]


@pytest.mark.parametrize(
    ("rows", "k", "status", "code", "said"),
    [
        ([scored(1, 2)], 9, 422, "k_too_large", "k=9 is more than the 8 that this teacher gives"),
        ([scored(1, 2)] * 4, 1, 413, "too_many_rows", "requests: 4 rows at once are more than 3"),
        ([written(1, new=30)] * 2, 0, 413, "too_many_tokens", "requests: 62 tokens at once are more than 60"),
        ([written(1, new=21)], 5, 413, "too_many_log_probabilities", "k: 105 log-probabilities at once are more than 100"),
        ([scored(*range(1, 35))], 4, 413, "too_many_log_probabilities", "k: 132 log-probabilities"),
        ([scored(1, 2), scored(1, 151)], 1, 422, "invalid_request", "requests[1]: token id 151 is outside the vocabulary of 151"),
        ([written(1, 151)], 1, 422, "invalid_request", "requests[0]: token id 151 is outside"),
        ([written(1, stop_ids=[151])], 1, 422, "invalid_request", "requests[0]: stop id 151 is outside the vocabulary of 151"),
        ([scored(1, 2, prompt_len=2)], 1, 422, "invalid_request", "requests[0]: prompt_len=2 leaves no prompt or no response"),
        ([scored()], 1, 422, "invalid_request", "requests[0]: prompt_len=1 leaves no prompt"),
        ([scored(*[1] * 64)], 1, 422, "invalid_request", "requests[0]: a sequence of 64 tokens needs max_model_len >= 65, which is 64"),
        ([written(new=1)], 1, 422, "invalid_request", "requests[0]: the prompt is empty"),
        ([written(1, 2, new=63)], 1, 422, "invalid_request", "requests[0]: 2 prompt tokens and max_new_tokens=63 exceed max_model_len=64"),
        ([written(1, temperature=0.001)], 1, 422, "invalid_request", "requests[0]: temperature=0.001 must be 0 or at least 0.01"),
        ([{"prompt": "<eos>", "max_new_tokens": 1}], 1, 422, "invalid_text", "requests[0]: a text spells the special token"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_its_field_value_and_limit(
    served: Served, rows: list[dict[str, Any]], k: int, status: int, code: str, said: str
) -> None:
    with pytest.raises(Refusal) as refused:
        asked(served, *rows, k=k)
    assert (refused.value.status, refused.value.code) == (status, code)
    assert refused.value.reason.startswith(said)


@pytest.mark.parametrize(
    "row",
    [{"prompt": "a", "max_new_tokens": 1}, {"prompt": "a", "completion": "b"}],
)
def test_without_a_tokenizer_texts_are_refused_and_ids_are_not(served: Served, row: dict[str, Any]) -> None:
    bare = replace(served, texts=None)
    with pytest.raises(Refusal, match=r"requests\[0\]: the tokenizer of this teacher is not here: give token ids"):
        asked(bare, row)
    assert asked(bare, scored(1, 2)) == [ScoreRequest((1, 2), 1)]


@pytest.mark.parametrize("most", [lambda: scored(*[1] * 60, prompt_len=50), lambda: written(1, new=50)])
def test_as_much_as_the_limits_say_is_let_in(served: Served, most: Callable[[], dict[str, Any]]) -> None:
    assert len(asked(served, most())) == 1
