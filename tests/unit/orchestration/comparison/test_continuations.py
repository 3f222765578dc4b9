"""Continuations: tokens as a harness counts them, sums of log-probabilities, greedy or not, cut answers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from task_files import SpeakingPool, tiny_model

from cache import ScoreRequest, TeacherRecord
from cache.protocols import Failure
from configs import DataError, EngineError
from orchestration.cluster.engines import TimedAnswers
from orchestration.comparison.continuations import (
    Continuations,
    Wanted,
    cut_before,
    is_greedy,
    rolling_windows,
    split_pair,
    wanted_of,
)
from orchestration.inputs.models import ModelFiles
from orchestration.inputs.random_models import byte_tokenizer


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    return tiny_model(tmp_path_factory.mktemp("models"))


class ScoringPool(SpeakingPool):
    """Finds token t as likely as -t nats; the likeliest is as likely as `best` says."""

    def __init__(self, *, best: float) -> None:
        super().__init__()
        self.best = best

    def _outcome(self, request: Any) -> TeacherRecord | Failure:
        self.last = request
        return scored(request, best=self.best)


def scored(request: ScoreRequest, *, best: float) -> TeacherRecord:
    targets = -np.array(request.token_ids[request.prompt_len :], np.float32)
    return TeacherRecord(
        b"", np.array(request.token_ids, np.int32), request.prompt_len, "given", "prefill",
        target_logprobs=targets, topk_logprobs=np.full((len(targets), 1), best, np.float32),
    )  # fmt: skip


def test_white_space_moves_to_the_continuation() -> None:
    tokenizer = byte_tokenizer()
    before, more = split_pair(tokenizer, "a b \n", "c", prefix=7)
    assert (tokenizer.decode(before, skip_special_tokens=True), tokenizer.decode(more)) == ("a b", " \nc")


@pytest.mark.parametrize("context", ["", "  "])
def test_an_empty_context_is_the_prefix(context: str) -> None:
    tokenizer = byte_tokenizer()
    before, more = split_pair(tokenizer, context, "c", prefix=7)
    assert (before, tokenizer.decode(more)) == ((7,), context + "c")


def test_a_continuation_that_begins_with_the_prefix_is_not_given_it_twice() -> None:
    tokenizer = byte_tokenizer()
    first, *rest = tokenizer.encode("xyz", add_special_tokens=False)
    assert split_pair(tokenizer, "", "xyz", prefix=first) == ((first,), tuple(rest))


@pytest.mark.parametrize("length", [0, 1, 4, 5, 8, 9, 11, 12])
def test_windows_score_every_token_once(length: int) -> None:
    ids = list(range(100, 100 + length))
    windows = list(rolling_windows(ids, prefix=1, longest=5))
    assert [token for each in windows for token in each.token_ids[each.prompt_len :]] == ids
    assert all(len(each.token_ids) <= 5 and each.prompt_len >= 1 for each in windows)
    # Context and continuation stand in the text as they stand here.
    text = [1, *ids]
    starts = [text.index(each.token_ids[0]) for each in windows]
    assert [tuple(text[at : at + len(each.token_ids)]) for at, each in zip(starts, windows, strict=True)] == [
        each.token_ids for each in windows
    ]


def test_windows_are_those_of_the_harness() -> None:
    utils = pytest.importorskip("lm_eval.utils")
    for length in range(1, 30):
        ids = list(range(length))
        theirs = map(utils.make_disjoint_window, utils.get_rolling_token_windows(ids, 99, 4, 1))
        ours = [
            (list(each.token_ids[: each.prompt_len]), list(each.token_ids[each.prompt_len :]))
            for each in rolling_windows(ids, prefix=99, longest=5)
        ]
        assert ours == list(theirs)


def test_likelihoods_are_sums_in_the_order_of_the_pairs(files: ModelFiles) -> None:
    pool = SpeakingPool(likes=lambda prompt, more: [-float(len(prompt))] * len(more))
    pool._outcome = lambda request: _with_best(SpeakingPool._outcome(pool, request))  # type: ignore[method-assign]
    found = Continuations(files, pool, longest=256).likelihoods([("ab", "cde"), ("a", "c")])
    lengths = [request.prompt_len for request in pool.asked]
    assert [request.token_ids[request.prompt_len :] for request in pool.asked] == [
        tuple(files.tokenizer.encode(more, add_special_tokens=False)) for more in ("cde", "c")
    ]
    assert lengths[0] == lengths[1] + 1
    assert found[0][0] < found[1][0] < 0


def _with_best(record: TeacherRecord | Failure) -> TeacherRecord:
    assert isinstance(record, TeacherRecord) and record.target_logprobs is not None
    return TeacherRecord(
        b"", record.token_ids, record.prompt_len, "given", "prefill",
        target_logprobs=record.target_logprobs, topk_logprobs=record.target_logprobs[:, None],
    )  # fmt: skip


def test_a_token_that_ties_with_the_likeliest_is_greedy_and_one_that_has_a_rival_is_not() -> None:
    request = ScoreRequest((9, 3, 3), 1)
    assert is_greedy(scored(request, best=-3.0))
    assert not is_greedy(scored(request, best=-2.9))
    assert not is_greedy(scored(ScoreRequest((9, 3, 4), 1), best=-3.0))


def test_a_context_that_does_not_fit_loses_its_beginning_and_is_counted(files: ModelFiles) -> None:
    pool = ScoringPool(best=0.0)
    asked = Continuations(files, pool, longest=10)
    asked.likelihoods([("0123456789abcdef", "gh")])
    # Ten, less the one that an engine samples on top.
    assert files.tokenizer.decode(pool.last.token_ids) == "9abcdefgh"
    assert asked.shortened == 1
    with pytest.raises(DataError, match=r"a continuation of 9 tokens cannot be scored: the engine takes 1 to 8"):
        asked.likelihoods([("a", "x" * 9)])
    with pytest.raises(DataError, match="a continuation of 0 tokens"):
        asked.likelihoods([("a", "")])


def test_a_text_is_as_likely_as_its_tokens_together(files: ModelFiles) -> None:
    text = "0123456789abcdef"
    ids = files.tokenizer.encode(text, add_special_tokens=False)
    assert Continuations(files, ScoringPool(best=0.0), longest=7).rolling([text, ""]) == [-sum(ids), 0.0]


def test_answers_are_cut_before_what_ends_them(files: ModelFiles) -> None:
    pool = SpeakingPool(lambda prompt, seed: "yes\nno.")
    asked = Continuations(files, pool, longest=64)
    wanted = [("q", Wanted(("\n",), 20)), ("q", Wanted((".", "no"), 20)), ("q", Wanted(("",), 3))]
    assert asked.written(wanted) == ["yes", "yes\n", "yes"]
    assert {(one.temperature, one.stop_ids) for one in pool.asked} == {(0.0, files.stop_ids)}
    with pytest.raises(DataError, match="answers of 64 tokens leave no room"):
        asked.written([("q", Wanted((), 64))])


def test_what_is_not_answered_is_an_error(files: ModelFiles) -> None:
    pool = SpeakingPool(lambda prompt, seed: Failure("too long"), likes=lambda prompt, more: Failure("too odd"))
    asked = Continuations(files, pool, longest=64)
    with pytest.raises(EngineError, match="a question was not answered: too long"):
        asked.written([("q", Wanted((), 5))])
    with pytest.raises(EngineError, match="too odd"):
        asked.likelihoods([("a", "b")])


@pytest.mark.parametrize(
    ("text", "until", "left"),
    [("a b c", ["c", "b"], "a "), ("abc", [], "abc"), ("abc", ["", "z"], "abc"), ("abc", ["a"], "")],
)
def test_the_first_end_counts(text: str, until: list[str], left: str) -> None:
    assert cut_before(text, until) == left


@pytest.mark.parametrize(
    ("settings", "wanted"),
    [
        ({}, Wanted((), 256)),
        ({"until": "\n", "max_gen_toks": 8, "do_sample": False, "temperature": 0.7}, Wanted(("\n",), 8)),
        ({"until": ["a", "b"], "max_new_tokens": 9, "do_sample": True, "temperature": 0.0}, Wanted(("a", "b"), 9)),
    ],
)
def test_settings_of_a_task(settings: dict[str, Any], wanted: Wanted) -> None:
    assert wanted_of(settings) == wanted


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"temperature": 0.5}, {"do_sample": True, "temperature": 1}])
def test_sampled_answers_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="wants sampled answers"):
        wanted_of(settings)


def test_many_requests_go_in_batches(files: ModelFiles, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("orchestration.comparison.continuations.BATCH", 2)
    sizes: list[int] = []

    class Pool(SpeakingPool):
        def answer(self, requests: Any, *, k: int) -> TimedAnswers:
            sizes.append(len(requests))
            return super().answer(requests, k=k)

    pool = Pool(lambda prompt, seed: prompt[-1])
    assert Continuations(files, pool, longest=64).written([(c, Wanted((), 5)) for c in "abcde"]) == list("abcde")
    assert sizes == [2, 2, 1]
