"""From a body of OpenAI's protocol to requests: what the teacher could not answer is refused before it is asked."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from doors import EOS, FACTS, IDENTITY, VOCAB, Gated, ToyTokenizer
from hypothesis import given
from hypothesis import strategies as st

from cache import TeacherCache
from cache.records import GenerateRequest, ScoreRequest
from teacher_server.http.bodies import ChatMessage
from teacher_server.http.openai.bodies import ChatBody, CompletionBody
from teacher_server.http.openai.questions import CHAT_TOKENS, COMPLETION_TOKENS, Inquiry, asked_chat, asked_completions
from teacher_server.http.refusals import Refusal
from teacher_server.http.sequence_desk import DeskTerms, SequenceDesk
from teacher_server.http.served import DoorLimits, Served
from teacher_server.http.texts import Texts

LIMITS = DoorLimits(most_rows=4, most_tokens=200, most_numbers=100)
TEXTS = Texts(ToyTokenizer(), stop_ids=(EOS,))


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    cache = TeacherCache.open(tmp_path_factory.mktemp("cache"), IDENTITY)
    yield Served(SequenceDesk(cache, Gated(), DeskTerms(vocab=VOCAB, most_k=8)), FACTS, TEXTS)


def completions(served: Served, limits: DoorLimits = LIMITS, **fields: Any) -> Inquiry:
    body = CompletionBody.model_validate({"model": "noise", "prompt": [1, 5]} | fields)
    return asked_completions(body, served=served, limits=limits)


def chat(served: Served, **fields: Any) -> Inquiry:
    body = ChatBody.model_validate({"model": "noise", "messages": [{"role": "user", "content": "Hi"}]} | fields)
    return asked_chat(body, served=served, limits=LIMITS)


def test_what_is_not_said_is_as_openai_has_it(served: Served) -> None:
    inquiry = completions(served)
    assert inquiry.requests == [GenerateRequest((1, 5), (EOS,), COMPLETION_TOKENS, temperature=1.0)]
    assert (inquiry.k, inquiry.top, inquiry.prompt_top, inquiry.stops, inquiry.echo) == (0, None, None, (), False)
    assert (inquiry.stream, inquiry.usage_streamed, inquiry.token_ids) == (False, False, False)


def test_every_field_of_the_sampling_arrives(served: Served) -> None:
    sampling = {
        "temperature": 0.5, "top_p": 0.25, "top_k": 3, "min_p": 0.125, "presence_penalty": 1.0, "frequency_penalty": -1.0,
        "repetition_penalty": 2.0,
    }  # fmt: skip
    inquiry = completions(served, seed=2**62, stop_token_ids=[9, 5, 9], max_tokens=3, **sampling)
    assert inquiry.requests == [GenerateRequest((1, 5), (EOS, 5, 9), 3, sampling_seed=2**62, **sampling)]  # type: ignore[arg-type]
    assert completions(served, ignore_eos=True, stop_token_ids=[9]).requests[0].stop_ids == (9,)  # type: ignore[union-attr]
    assert completions(served, top_k=-1).requests == completions(served).requests


def test_several_answers_are_draws_of_one_seed_and_the_same_ones_each_time(served: Served) -> None:
    inquiry = completions(served, n=3, seed=7)
    assert [(each.sampling_seed, each.replicate) for each in inquiry.requests] == [(7, 0), (7, 1), (7, 2)]  # type: ignore[union-attr]
    assert inquiry == completions(served, n=3, seed=7)
    assert inquiry.requests[0] == completions(served, seed=7).requests[0] != completions(served, seed=8).requests[0]


def test_without_a_temperature_all_that_does_not_matter_is_the_same(served: Served) -> None:
    one = completions(served, temperature=0).requests
    assert completions(served, temperature=0, seed=5, top_p=0.5, top_k=3, min_p=0.1).requests == one
    assert completions(served, temperature=0, n=2).requests == one * 2


@given(data=st.data())
def test_prompts_become_questions_in_their_order(served: Served, data: st.DataObject) -> None:
    texts = st.text(alphabet="ab ", max_size=5)
    ids = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=5)
    many = data.draw(st.booleans())
    kind = texts if data.draw(st.booleans()) else ids
    prompts: list[Any] = data.draw(st.lists(kind, min_size=1, max_size=4)) if many else [data.draw(kind)]
    n = data.draw(st.integers(1, 4 // len(prompts)))
    echo, logprobs = data.draw(st.booleans()), data.draw(st.none() | st.integers(0, 2))
    most = data.draw(st.integers(0 if echo else 1, 3))
    inquiry = completions(
        served, prompt=prompts if many else prompts[0], n=n, echo=echo, logprobs=logprobs, max_tokens=most
    )
    expected = [TEXTS.prompt(each) if isinstance(each, str) else tuple(each) for each in prompts]
    assert [question.prompt_ids for question in inquiry.questions] == expected
    assert [question.place for question in inquiry.questions] == (
        [f"prompt[{at}]" for at in range(len(prompts))] if many else ["prompt"]
    )
    scores = echo and logprobs is not None
    for question in inquiry.questions:
        alone = len(question.prompt_ids) == 1
        assert question.scored == (ScoreRequest(question.prompt_ids, 1) if scores and not alone else None)
        assert [each.prompt_ids for each in question.written] == [question.prompt_ids] * (n if most else 0)
    assert inquiry.k == (0 if logprobs is None else max(1, logprobs))
    assert inquiry.requests == [each for question in inquiry.questions for each in question.requests]


def test_echo_of_nothing_written_is_scoring_alone(served: Served) -> None:
    assert completions(served, echo=True, max_tokens=0, logprobs=1).requests == [ScoreRequest((1, 5), 1)]
    assert completions(served, echo=True, max_tokens=0).requests == []
    both = completions(served, echo=True, max_tokens=1, logprobs=1, temperature=0)
    assert both.requests == [ScoreRequest((1, 5), 1), GenerateRequest((1, 5), (EOS,), 1)]


def test_log_probabilities_of_prompts_are_asked_for_alone_or_beside_others(served: Served) -> None:
    alone = completions(served, prompt_logprobs=0, max_tokens=2)
    assert (alone.k, alone.top, alone.prompt_top) == (1, None, 0) and alone.requests[0] == ScoreRequest((1, 5), 1)
    assert completions(served, prompt_logprobs=2, logprobs=5, max_tokens=2).k == 5


def test_a_stop_is_a_text_or_several(served: Served) -> None:
    assert completions(served, stop="a").stops == ("a",)
    assert completions(served, stop=["a", "b"]).stops == ("a", "b")


def test_a_conversation_is_written_by_the_teacher_s_template(served: Served) -> None:
    parts = [{"type": "text", "text": "H"}, {"type": "text", "text": "i"}]
    inquiry = chat(
        served, messages=[{"role": "developer", "content": "Be"}, {"role": "user", "content": parts}], max_tokens=5
    )
    ids = TEXTS.conversation([ChatMessage(role="system", content="Be"), ChatMessage(role="user", content="Hi")])
    assert inquiry.requests == [GenerateRequest(ids, (EOS,), 5, temperature=1.0)]


def test_a_chat_s_answer_has_an_end(served: Served) -> None:
    [request] = chat(served).requests
    assert isinstance(request, GenerateRequest)
    # The toy's longest sequence leaves less than the bound.
    assert request.max_new_tokens == FACTS.max_model_len - len(request.prompt_ids) < CHAT_TOKENS
    roomy = replace(served, facts=replace(FACTS, max_model_len=10_000))
    limits = replace(LIMITS, most_tokens=10_000)
    body = ChatBody.model_validate({"model": "noise", "messages": [{"role": "user", "content": "Hi"}]})
    [request] = asked_chat(body, served=roomy, limits=limits).requests
    assert isinstance(request, GenerateRequest) and request.max_new_tokens == CHAT_TOKENS


@pytest.mark.parametrize("fields", [{"max_tokens": 5}, {"max_completion_tokens": 5}, {"max_tokens": 5, "max_completion_tokens": 5}])  # fmt: skip
def test_both_names_of_a_chat_s_bound_are_known(served: Served, fields: dict[str, int]) -> None:
    assert chat(served, **fields).requests[0].max_new_tokens == 5  # type: ignore[union-attr]


def test_chats_ask_for_log_probabilities_by_two_fields(served: Served) -> None:
    assert (chat(served).k, chat(served).top) == (0, None)
    assert (chat(served, logprobs=True).k, chat(served, logprobs=True).top) == (1, 0)
    most = chat(served, logprobs=True, top_logprobs=5, max_tokens=5)
    assert (most.k, most.top) == (5, 5)
    assert chat(served, top_logprobs=0).top is None


@pytest.mark.parametrize(
    ("fields", "status", "code", "param", "said"),
    [
        ({"max_tokens": 0}, 422, "invalid_request", "max_tokens", "max_tokens=0 writes nothing: give at least 1, or echo"),
        ({"best_of": 3, "n": 2}, 422, "invalid_request", "best_of", "best_of=3 is not n=2"),
        ({"logprobs": 9}, 422, "k_too_large", "logprobs", "logprobs=9 is more than the 8 that this teacher gives"),
        ({"prompt_logprobs": 9}, 422, "k_too_large", "prompt_logprobs", "prompt_logprobs=9 is more than the 8"),
        ({"stream_options": {}}, 422, "invalid_request", "stream_options", "stream_options needs stream=true"),
        ({"prompt_logprobs": 1, "stream": True}, 422, "invalid_request", "prompt_logprobs", "prompt_logprobs=1 is not streamed"),
        ({"max_tokens": 63}, 422, "context_length_exceeded", "max_tokens", "max_tokens=63: prompt has 2 tokens, and with 63 more exceeds max_model_len=64"),
        ({"prompt": [[1], [1] * 64], "max_tokens": 1}, 422, "context_length_exceeded", "max_tokens", "max_tokens=1: prompt[1] has 64 tokens"),
        ({"prompt": [1] * 64, "max_tokens": 0, "echo": True}, 422, "context_length_exceeded", "max_tokens", "max_tokens=0: prompt has 64 tokens, and with 1 more"),
        ({"prompt": [[1], [VOCAB]]}, 422, "invalid_request", "prompt[1]", "prompt[1]: token id 151 is outside the vocabulary of 151"),
        ({"prompt": [VOCAB], "echo": True, "max_tokens": 0}, 422, "invalid_request", "prompt", "prompt: token id 151 is outside"),
        ({"prompt": [[1], []]}, 422, "invalid_request", "prompt[1]", "prompt[1]: the prompt is empty"),
        ({"prompt": ["a", "b<eos>"]}, 422, "invalid_text", "prompt[1]", "prompt[1]: a text spells the special token <eos>"),
        ({"stop_token_ids": [VOCAB]}, 422, "invalid_request", "prompt", "prompt: stop id 151 is outside the vocabulary"),
        ({"temperature": 0.001}, 422, "invalid_request", "prompt", "prompt: temperature=0.001 must be 0 or at least 0.01"),
        ({"prompt": [[1]] * 3, "n": 2}, 413, "too_many_rows", "prompt", "prompt: 6 rows at once are more than 4"),
        ({"prompt": [[1]] * 4, "max_tokens": 50}, 413, "too_many_tokens", "prompt", "prompt: 204 tokens at once are more than 200"),
        ({"logprobs": 8, "max_tokens": 13}, 413, "too_many_log_probabilities", "logprobs", "logprobs: 104 log-probabilities at once"),
    ],
)  # fmt: skip
def test_what_cannot_be_answered_is_refused_with_its_field_value_and_limit(
    served: Served, fields: dict[str, Any], status: int, code: str, param: str, said: str
) -> None:
    with pytest.raises(Refusal) as refused:
        completions(served, **fields)
    assert (refused.value.status, refused.value.code, refused.value.param) == (status, code, param)
    assert refused.value.reason.startswith(said)


@pytest.mark.parametrize(
    ("fields", "status", "code", "param", "said"),
    [
        ({"top_logprobs": 2}, 422, "invalid_request", "top_logprobs", "top_logprobs=2 needs logprobs=true"),
        ({"logprobs": True, "top_logprobs": 9}, 422, "k_too_large", "top_logprobs", "top_logprobs=9 is more than the 8"),
        ({"max_tokens": 1, "max_completion_tokens": 2}, 422, "invalid_request", "max_tokens", "max_tokens=1 is not max_completion_tokens=2"),
        ({"max_completion_tokens": 60}, 422, "context_length_exceeded", "max_completion_tokens", "max_completion_tokens=60: messages has 6 tokens"),
        ({"messages": [{"role": "user", "content": "a" * 70}]}, 422, "context_length_exceeded", "messages", "messages has 74 tokens, and with 1 more exceeds max_model_len=64"),
        ({"messages": [{"role": "tool", "content": "a"}]}, 422, "invalid_text", "messages", "messages: the chat template refuses the messages"),
        ({"messages": [{"role": "user", "content": "<eos>"}]}, 422, "invalid_text", "messages", "messages: a text spells the special token"),
        ({"n": 5}, 413, "too_many_rows", "n", "n: 5 rows at once are more than 4"),
    ],
)  # fmt: skip
def test_so_are_chats(served: Served, fields: dict[str, Any], status: int, code: str, param: str, said: str) -> None:
    with pytest.raises(Refusal) as refused:
        chat(served, **fields)
    assert (refused.value.status, refused.value.code, refused.value.param) == (status, code, param)
    assert refused.value.reason.startswith(said)


def test_without_a_tokenizer_texts_are_refused_and_ids_are_not(served: Served) -> None:
    bare = replace(served, texts=None)
    for ask in (lambda: completions(bare, prompt="a"), lambda: chat(bare)):
        with pytest.raises(Refusal, match="the tokenizer of this teacher is not here: give token ids"):
            ask()
    assert completions(bare).requests == completions(served).requests
