"""The start-up check lets the right engine pass and names what is wrong with others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from engine_checks import check_engine
from tiny_llama import VOCAB, full_logprobs, save_tiny_llama

from cache.identity import TeacherIdentity
from cache.protocols import Failure, Outcome
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord
from configs.errors import EngineError
from teacher_server.answers import make_record
from teacher_server.logprob_rows import TopkRows
from teacher_server.startup_check import NEW_TOKENS, check_prompts

BOS = 1
PROMPTS = tuple(
    (BOS, *(int(token) for token in np.random.default_rng(each).integers(3, VOCAB, size=24))) for each in range(2)
)

Damage = Callable[[TeacherRecord], TeacherRecord]


class PlainSource:
    """An engine made of forward passes of transformers, with a place to plant mistakes."""

    def __init__(
        self,
        model_dir: Path,
        *,
        damage_written: Damage | None = None,
        damage_scored: Damage | None = None,
        drop_first: bool = False,
    ) -> None:
        self.identity = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64, dtype="float32")
        self._model_dir = model_dir
        self._damage_written = damage_written
        self._damage_scored = damage_scored
        self._drop_first = drop_first

    def generate(self, requests: Iterable[GenerateRequest], *, k: int) -> Iterator[Outcome]:
        for position, request in enumerate(requests):
            tokens = request.prompt_ids
            for _ in range(request.max_new_tokens):
                tokens = (*tokens, int(self._logprobs((*tokens, 0))[-1].argmax()))
            record = self._record(tokens, prompt_len=len(request.prompt_ids), k=k)
            yield position, record if self._damage_written is None else self._damage_written(record)

    def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
        for position, request in enumerate(requests):
            record = self._record(request.token_ids, prompt_len=request.prompt_len, k=k)
            yield position, record if self._damage_scored is None else self._damage_scored(record)

    def _logprobs(self, tokens: tuple[int, ...]) -> np.ndarray:
        return full_logprobs(self._model_dir, tokens)[:, :VOCAB]

    def _record(self, tokens: tuple[int, ...], *, prompt_len: int, k: int) -> TeacherRecord:
        seen = tokens[1:] if self._drop_first else tokens
        logprobs = self._logprobs(seen)[-(len(tokens) - prompt_len) :]
        targets = np.array(tokens[prompt_len:], dtype=np.int32)
        best = np.argsort(-logprobs, axis=1)[:, :k].astype(np.int32)
        chosen = logprobs[np.arange(len(targets)), targets]
        rows = TopkRows(
            topk_ids=best,
            topk_logprobs=np.take_along_axis(logprobs, best, axis=1),
            target_logprobs=chosen,
            target_ranks=1 + (logprobs > chosen[:, None]).sum(axis=1, dtype=np.int32),
        )
        return make_record(
            rows,
            identity_digest=self.identity.digest(),
            token_ids=tokens,
            prompt_len=prompt_len,
            finish="given",
            origin="prefill",
            vocab=VOCAB,
        )


def shifted(record: TeacherRecord) -> TeacherRecord:
    """Every row stands one position too early."""
    assert record.topk_ids is not None and record.target_logprobs is not None
    return replace(
        record, topk_ids=np.roll(record.topk_ids, -1, axis=0), target_logprobs=np.roll(record.target_logprobs, -1)
    )


def not_a_number(record: TeacherRecord) -> TeacherRecord:
    assert record.target_logprobs is not None
    return replace(record, target_logprobs=np.full_like(record.target_logprobs, np.nan))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_llama(tmp_path_factory.mktemp("model"), seed=0)


def test_the_model_itself_passes(model_dir: Path) -> None:
    writing, scoring = check_engine(PlainSource(model_dir), model_dir=model_dir, prompts=PROMPTS, expected_bos=BOS)
    assert writing.mean_nats < 1e-4 and scoring.mean_nats < 1e-4
    assert writing.top1 == scoring.top1 == 1.0
    assert (writing.rows, scoring.rows) == (2 * 8, 2 * (25 + 8 - 2))


def test_bfloat16_rounding_passes(model_dir: Path, tmp_path: Path) -> None:
    rounded = save_tiny_llama(tmp_path, seed=0, dtype=torch.bfloat16)
    writing, scoring = check_engine(PlainSource(rounded), model_dir=model_dir, prompts=PROMPTS)
    assert min(writing.top1, scoring.top1) > 0.8


def test_shifted_rows_of_scoring_are_caught(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=r"when scoring.*shifted rows"):
        check_engine(PlainSource(model_dir, damage_scored=shifted), model_dir=model_dir, prompts=PROMPTS)


def test_shifted_rows_of_writing_are_caught(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=r"when writing.*shifted rows"):
        check_engine(PlainSource(model_dir, damage_written=shifted), model_dir=model_dir, prompts=PROMPTS)


def test_a_lost_first_token_is_caught(model_dir: Path) -> None:
    with pytest.raises(EngineError, match="missing first token"):
        check_engine(PlainSource(model_dir, drop_first=True), model_dir=model_dir, prompts=PROMPTS)


def test_other_weights_are_caught(model_dir: Path, tmp_path: Path) -> None:
    other = save_tiny_llama(tmp_path, seed=1)
    with pytest.raises(EngineError, match=r"\d+\.\d+ nats .*at most 0\.15"):
        check_engine(PlainSource(other), model_dir=model_dir, prompts=PROMPTS)


def test_numbers_that_are_none_are_caught(model_dir: Path) -> None:
    with pytest.raises(EngineError, match="nan nats"):
        check_engine(PlainSource(model_dir, damage_scored=not_a_number), model_dir=model_dir, prompts=PROMPTS)


def test_a_prompt_without_its_first_token_is_named(model_dir: Path) -> None:
    with pytest.raises(EngineError, match=f"starts with token 99, not with the model's first token {BOS}"):
        check_engine(PlainSource(model_dir), model_dir=model_dir, prompts=[(99, 5, 6, 7)], expected_bos=BOS)


def test_a_doubled_first_token_is_named(model_dir: Path) -> None:
    with pytest.raises(EngineError, match="starts twice"):
        check_engine(PlainSource(model_dir), model_dir=model_dir, prompts=[(BOS, BOS, 6, 7)], expected_bos=BOS)


def test_prompts_must_be_long_enough_to_say_anything(model_dir: Path) -> None:
    for prompts in ([], [(BOS, 5)]):
        with pytest.raises(EngineError, match="more than 2 tokens"):
            check_engine(PlainSource(model_dir), model_dir=model_dir, prompts=prompts)


def test_an_engine_that_refuses_its_check_is_named(model_dir: Path) -> None:
    class Refusing(PlainSource):
        def score(self, requests: Iterable[ScoreRequest], *, k: int) -> Iterator[Outcome]:
            return ((position, Failure("too tired")) for position, _ in enumerate(requests))

    with pytest.raises(EngineError, match="too tired"):
        check_engine(Refusing(model_dir), model_dir=model_dir, prompts=PROMPTS)


def test_the_longest_prompts_are_compared_cut_to_what_the_engine_takes() -> None:
    prompts = [tuple(range(3, 3 + length)) for length in (5, 40, 20, 400)]
    chosen = check_prompts(prompts, bos_id=None, max_model_len=64, count=2)
    assert chosen == [prompts[3][: 64 - NEW_TOKENS - 1], prompts[1]]


@pytest.mark.parametrize("prompts", [[(BOS, 5), (BOS, 7, 9)], [(BOS, 5)], [(BOS,)]])
def test_short_prompts_are_joined_until_they_say_something(prompts: list[tuple[int, ...]], model_dir: Path) -> None:
    chosen = check_prompts(prompts, bos_id=BOS, max_model_len=512, count=2)
    assert len(chosen) == 2 and all(len(prompt) == 17 for prompt in chosen)
    if len(prompts[0]) > 1:
        # What they are made of is theirs, and the first token stands first and once.
        assert {token for prompt in chosen for token in prompt} == {token for prompt in prompts for token in prompt}
        writing, _ = check_engine(PlainSource(model_dir), model_dir=model_dir, prompts=chosen, expected_bos=BOS)
        assert writing.top1 == 1.0
    assert check_prompts([(7,), (8, 9)], bos_id=None, max_model_len=512, count=2)[0][:3] in ((8, 9, 7), (7, 8, 9))


def test_prompts_of_any_length_make_a_check() -> None:
    for length in (1, 2, 3, 15, 16, 17, 300):
        for count in (1, 2):
            chosen = check_prompts([(7,) * length], bos_id=None, max_model_len=128, count=count)
            assert 1 <= len(chosen) <= 2 and all(3 <= len(prompt) <= 119 for prompt in chosen)
