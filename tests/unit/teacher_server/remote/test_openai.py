"""A teacher that somebody else serves: the conformance suite over a socket, what servers lack, and how they lie."""

from __future__ import annotations

import copy
import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import doors
import numpy as np
import pytest
from conformance import *  # noqa: F403
from conformance import PROMPTS, Subject, greedy, present, records, tokens
from open_app import listening
from openai_server import EOS, KEY, LIKE_VLLM, MAX_MODEL_LEN, VOCAB, Habits, Noise, encode, serving
from openai_server import tokens as remote_tokens

from cache.identity import RemoteTeacherIdentity
from cache.protocols import Failure
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs import EngineError
from configs.errors import BudgetReached
from teacher_server import FakeTeacher
from teacher_server.http.stepping import SteppedEngine
from teacher_server.remote.calls import ServerSettings
from teacher_server.remote.choices import LieError
from teacher_server.remote.openai import OpenAiTeacher, RemoteModel
from teacher_server.remote.spending import Prices, Purse
from teacher_server.remote.tokens import RemoteTokens

MODEL = RemoteModel("noise", "2026-11", "example", end_id=EOS, max_model_len=MAX_MODEL_LEN)
HELLO = tuple(encode("hello"))


@contextmanager
def teaching(
    habits: Habits, *, k: int = 8, model: RemoteModel = MODEL, purse: Purse | None = None, **settings: Any
) -> Iterator[OpenAiTeacher]:
    """A teacher at a server with these habits."""
    with (
        serving(habits) as url,
        OpenAiTeacher(
            ServerSettings(url, **{"key": KEY, "budget_s": 10.0} | settings), model, remote_tokens(), k=k, purse=purse
        ) as teacher,
    ):
        yield teacher


@pytest.fixture(scope="module")
def teacher() -> Iterator[OpenAiTeacher]:
    with teaching(Habits(), k=VOCAB) as opened:
        yield opened


@pytest.fixture
def subject(teacher: OpenAiTeacher) -> Subject:
    # Numbers come through as they are; the rank of a token beyond the best ones is told of given texts alone.
    return Subject(source=teacher, vocab=VOCAB, max_sequences=8, max_model_len=MAX_MODEL_LEN, tolerance=1e-9)


def test_it_says_what_the_model_behind_says(teacher: OpenAiTeacher) -> None:
    near = Noise(Habits())
    for ours, theirs in zip(
        records(teacher.generate([greedy(prompt) for prompt in PROMPTS], k=5)),
        records(near.generate([greedy(prompt) for prompt in PROMPTS], k=5)),
        strict=True,
    ):
        assert tokens(ours) == tokens(theirs)
        for name in ("topk_ids", "topk_logprobs", "target_logprobs", "target_ranks", "tail_logmass"):
            np.testing.assert_array_equal(present(getattr(ours, name)), present(getattr(theirs, name)))


def test_who_it_is_nobody_can_check(teacher: OpenAiTeacher) -> None:
    assert teacher.identity == RemoteTeacherIdentity("example", "noise", "2026-11", 1)
    assert not teacher.identity.verifiable
    [record] = records(teacher.generate([greedy(PROMPTS[0])], k=1))
    assert record.key != records(Noise(Habits()).generate([greedy(PROMPTS[0])], k=1))[0].key


def test_a_server_that_takes_texts_and_tells_strings() -> None:
    habits = Habits(fields=frozenset(), takes_ids=False, echoes=False, most_logprobs=5, ascii=True)
    with teaching(habits) as teacher:
        assert not teacher.abilities.takes_ids and not teacher.abilities.gives_ids
        assert teacher.abilities.most_k == 5
        prompt = (1, 3, *HELLO, 4)
        requests = [greedy(prompt, new=4, stop=(EOS,)), greedy(prompt, new=80, stop=(EOS,))]
        cut, ended = records(teacher.generate(requests, k=5))
        near = records(Noise(habits).generate(requests[:1], k=5))[0]
        # What it says of its words leads to ids; the end of an answer it does not name, so that row is its text.
        assert tokens(cut) == tokens(near) and (cut.finish, cut.k) == ("length", 5)
        np.testing.assert_array_equal(present(cut.topk_ids), present(near.topk_ids))
        assert (ended.finish, ended.k, ended.response_ids.tolist()[-1]) == ("stop", 0, EOS)
        with pytest.raises(EngineError, match="gives no log-probabilities of given texts"):
            teacher.score([ScoreRequest(HELLO, 1)], k=1)


def test_a_server_of_conversations() -> None:
    habits = Habits(chat_only=True, ascii=True, most_logprobs=20)
    with teaching(habits, model=replace(MODEL, bos_id=1)) as teacher:
        assert teacher.abilities.chat and teacher.abilities.most_k == 8
        asked = [greedy(prompt, new=5, stop=(EOS,)) for prompt in (HELLO, (3, *HELLO), (1, *HELLO))]
        outcomes = dict(teacher.generate(asked, k=4))
        record, refused, begun = outcomes[0], outcomes[1], outcomes[2]
        assert isinstance(record, TeacherRecord) and (record.k, record.response_len) == (4, 5)
        # What stands before every text the server writes itself.
        assert isinstance(begun, TeacherRecord) and begun.response_ids.tolist() == record.response_ids.tolist()
        assert habits.asked[-1]["messages"] == habits.asked[-2]["messages"]
        assert isinstance(refused, Failure) and "without the chat template" in refused.reason


def test_ids_that_cannot_be_told_leave_the_text_alone() -> None:
    # Bytes that are no characters have one name for all: nothing can be learned of which was meant.
    with teaching(Habits(fields=frozenset(), ascii=False), k=1) as teacher:
        outcome = dict(teacher.generate([greedy(HELLO, new=8, stop=(EOS,))], k=0))[0]
    assert isinstance(outcome, Failure) and "cannot be written in tokens" in outcome.reason


def test_what_a_server_would_ignore_is_not_asked() -> None:
    hot = replace(greedy(HELLO, stop=(EOS,)), temperature=1.0)
    with teaching(Habits(fields=frozenset({"return_token_ids"}), strict=False, ascii=True)) as teacher:
        assert teacher.abilities.samplers == frozenset() and not teacher.abilities.takes_stops
        bad: list[tuple[GenerateRequest, str]] = [
            (replace(hot, top_k=3), "does not heed top_k=3"),
            (replace(hot, min_p=0.5), "does not heed min_p=0.5"),
            (replace(hot, repetition_penalty=1.2), "no repetition_penalty=1.2"),
            (replace(hot, grammar="start: WORD"), "no grammars"),
            (replace(hot, stop_ids=()), "ends its answers itself"),
        ]
        outcomes = dict(teacher.generate([request for request, _ in bad], k=0))
    for at, (_, part) in enumerate(bad):
        outcome = outcomes[at]
        assert isinstance(outcome, Failure) and part in outcome.reason


def test_an_end_that_is_no_stop_of_the_request_is_not_taken_for_one() -> None:
    habits = Habits(fields=LIKE_VLLM - {"ignore_eos"}, strict=False, ascii=True)
    with teaching(habits) as teacher:
        outcome = dict(teacher.generate([GenerateRequest((1, 3, *HELLO, 4), (encode("Q")[0],), 80)], k=0))[0]
    assert isinstance(outcome, Failure) and f"ended the answer at token {EOS}, which is no stop" in outcome.reason


def test_a_door_of_ours_is_such_a_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Fixed texts are as long as their letters here.
    near = FakeTeacher(doors.IDENTITY, vocab=doors.VOCAB, eos_id=doors.EOS, max_model_len=128)
    monkeypatch.setattr(doors, "FACTS", replace(doors.FACTS, max_model_len=128))
    engine = SteppedEngine(near)
    opened = doors.make_door(tmp_path, engine)
    toy = doors.ToyTokenizer()
    pieces = [chr(at - doors.FIRST_CHARACTER).encode() if at in range(20, 148) else None for at in range(doors.VOCAB)]
    names = {number: name for name, number in doors.SPECIAL.items()}
    known = RemoteTokens(pieces, names, encode=lambda text: toy.encode(text, add_special_tokens=False))
    model = RemoteModel("noise", "1", "loopback", end_id=doors.EOS, max_model_len=128)
    with listening(opened.app) as url:
        settings = ServerSettings(f"{url}/v1", key=opened.tokens.new("test", scopes=["ask"]), budget_s=10.0)
        with OpenAiTeacher(settings, model, known, k=4) as teacher:
            assert (teacher.abilities.takes_ids, teacher.abilities.takes_stops) == (True, True)
            assert teacher.abilities.scoring == "prompt_logprobs"
            requests = [GenerateRequest((1, 90, 91), (doors.EOS,), 6), GenerateRequest((1, 92), (), 5)]
            ours = records(teacher.generate(requests, k=0))
            scored = [ScoreRequest(tokens(each), each.prompt_len) for each in ours]
            rows = records(teacher.score(scored, k=4))
    engine.close()
    for one, other in zip(ours, records(near.generate(requests, k=0)), strict=True):
        assert (tokens(one), one.finish) == (tokens(other), other.finish)
    for one, other in zip(rows, records(near.score(scored, k=4)), strict=True):
        np.testing.assert_array_equal(present(one.topk_ids), present(other.topk_ids))
        np.testing.assert_allclose(present(one.topk_logprobs), present(other.topk_logprobs), atol=1e-6)


def swap_rows(answer: dict[str, Any]) -> None:
    tables = answer["choices"][0]["logprobs"]["top_logprobs"]
    tables[0], tables[1] = tables[1], tables[0]


def lose_row(answer: dict[str, Any]) -> None:
    for rows in answer["choices"][0]["logprobs"].values():
        rows.pop()


def no_number(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["token_logprobs"][0] = math.nan


def too_likely(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"]["token_logprobs"][0] = 0.7


def no_logprobs(answer: dict[str, Any]) -> None:
    answer["choices"][0]["logprobs"] = None


def another_model(answer: dict[str, Any]) -> None:
    answer["model"] = "cheaper"


def another_tokenizer(answer: dict[str, Any]) -> None:
    answer["usage"]["prompt_tokens"] += 1


def strange_id(answer: dict[str, Any]) -> None:
    answer["choices"][0]["token_ids"][0] = VOCAB


def no_choice(answer: dict[str, Any]) -> None:
    answer["choices"] = []


@pytest.mark.parametrize(
    ("lie", "said"),
    [
        (swap_rows, "the rows do not belong to the tokens"),
        (lose_row, "3 rows of log-probabilities for 4 tokens"),
        (no_number, "nan is no log-probability"),
        (too_likely, "0.7 is no log-probability"),
        (no_logprobs, "no log-probabilities, which were asked for"),
        (another_model, "'cheaper' answers in place of 'noise'"),
        (another_tokenizer, "reads 6 tokens where the tokenizer that is here has 5"),
        (strange_id, f"{VOCAB} is no token id of a vocabulary of {VOCAB}"),
        (no_choice, "without exactly one choice"),
    ],
)
def test_a_server_that_begins_to_lie_ends_it(lie: Callable[[dict[str, Any]], None], said: str) -> None:
    lying = False

    def spoil(_: str, answer: dict[str, Any]) -> dict[str, Any]:
        answer = copy.deepcopy(answer)
        if lying:
            lie(answer)
        return answer

    with teaching(Habits(spoil=spoil)) as teacher:
        lying = True
        with pytest.raises(LieError, match=said):
            list(teacher.generate([GenerateRequest(HELLO, (EOS,), 4)], k=3))


def test_rows_of_a_given_text_that_are_shifted_are_noticed() -> None:
    lying = False

    def spoil(_: str, answer: dict[str, Any]) -> dict[str, Any]:
        if lying and "prompt_logprobs" in answer["choices"][0]:
            rows = answer["choices"][0]["prompt_logprobs"]
            rows[1:] = [*rows[2:], rows[1]]
        return answer

    with teaching(Habits(spoil=spoil)) as teacher:
        assert teacher.abilities.scoring == "prompt_logprobs"
        lying = True
        with pytest.raises(LieError, match="the rows do not belong to the tokens"):
            list(teacher.score([ScoreRequest((*HELLO, 99, 101), 2)], k=3))


def test_a_budget_in_money_is_never_exceeded() -> None:
    paid: list[float] = []
    purse = Purse(Prices(read=1.0, written=10.0), budget=0.002, spent=0.001, pay=paid.append)
    habits = Habits()
    with teaching(habits, purse=purse, at_once=4) as teacher:
        before = len(habits.asked)
        requests = [greedy((*HELLO, n), new=10) for n in range(5, 45)]
        done = []
        with pytest.raises(BudgetReached, match=r"of the budget of 0\.002 are spent"):
            for outcome in teacher.generate(requests, k=0):
                done.append(outcome)
        assert 0.001 + sum(paid) == pytest.approx(purse.spent) and purse.spent <= 0.002
        # Whatever was paid came back, also what was under way when the next one was refused.
        assert len(done) == len(paid) == len(habits.asked) - before < 10


def test_no_row_is_to_blame_for_a_key_that_is_refused() -> None:
    with pytest.raises(EngineError, match="status 401") as error, teaching(Habits(), key="sk-wrong"):
        pass
    # Some servers repeat what they were given.
    assert "sk-wrong" not in str(error.value)


def test_a_model_that_is_not_there_is_told() -> None:
    with (
        pytest.raises(EngineError, match="status 404, The model other does not exist"),
        teaching(Habits(), model=replace(MODEL, name="other")),
    ):
        pass


def test_the_key_is_seen_nowhere(teacher: OpenAiTeacher, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    records(teacher.generate([greedy(PROMPTS[0])], k=1))
    assert KEY not in caplog.text + repr(teacher) + repr(ServerSettings("http://127.0.0.1", key=KEY))
