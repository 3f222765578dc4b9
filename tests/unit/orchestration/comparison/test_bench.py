"""What every model is asked, and what its wording is held against."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bench_builders import EOS, TOKENIZER, bench_candidate, real_bench
from other_tokenizers import byte_level

from cache import TeacherIdentity, TeacherRecord
from cache.protocols import Failure
from evaluation.closeness import length_ratio, measured
from orchestration.comparison.bench import Bench, lengths
from orchestration.comparison.examination import Candidate
from orchestration.inputs.random_models import byte_tokenizer


def record(answer: str) -> TeacherRecord:
    tokens = np.array([7, *TOKENIZER.encode(answer)], dtype=np.int32)
    return TeacherRecord(b"", tokens, 1, "stop", "decode")


def bench(*references: str, compared_tokens: int) -> Bench:
    held = [record(text) for text in references]
    cache: Any = SimpleNamespace(iter_blocks=lambda view, pieces: iter([held]))
    view: Any = [None] * len(held)
    files: Any = SimpleNamespace(tokenizer=TOKENIZER)
    return Bench(cache, view, view, "", (), (), files, 4, compared_tokens)


@pytest.mark.parametrize(
    ("answer", "reference", "expected", "ratio"),
    [
        # Eleven bytes: what either says beyond them, the other was not allowed to say.
        ("one two six", "one two six and four more words", 100.0, 1.0),
        ("one two six and four more words", "one two six", 100.0, 1.0),
        ("one two", "one two six and four more words", 80.0, 7 / 11),
        ("один д", "один да нет", 100.0, 1.0),
    ],
)
def test_answers_are_compared_as_far_as_both_were_allowed_to_go(
    answer: str, reference: str, expected: float, ratio: float
) -> None:
    found = bench(reference, compared_tokens=11).wording([record(answer)], written_by=bench_candidate())
    assert measured(found)["rouge_l"].value == pytest.approx(expected)
    assert length_ratio(found) == pytest.approx(ratio)


def test_a_failed_answer_counts_as_an_empty_one() -> None:
    answers = [record("one"), Failure("refused")]
    found = bench("one", "two", compared_tokens=9).wording(answers, written_by=bench_candidate())
    assert measured(found)["rouge_l"].value == pytest.approx(50.0)
    assert lengths(answers) == (3, 0)


def in_other_tokens() -> Candidate:
    """A student with a tokenizer of its own, which knows the prompts of `real_bench`."""
    tokenizer = byte_level()
    files: Any = SimpleNamespace(tokenizer=tokenizer, stop_ids=(tokenizer.eos_token_id,))
    tokens: Any = SimpleNamespace(files=files, prompts={(40 + at, 50): (at, at + 1, at + 2) for at in range(6)})
    return replace(bench_candidate(), tokens=tokens)


@pytest.mark.parametrize(
    ("answer", "reference", "expected", "ratio"),
    [
        # Counted and cut in the teacher's tokens, which are bytes; what ends an answer is none.
        ("one two six", "one two six and four more words", 100.0, 1.0),
        ("one two six and four more words", "one two six", 100.0, 1.0),
        ("one two", "one two six and four more words", 80.0, 7 / 11),
    ],
)
def test_answers_in_other_tokens_are_compared_by_their_text(
    answer: str, reference: str, expected: float, ratio: float
) -> None:
    candidate = in_other_tokens()
    assert candidate.tokens is not None
    own = candidate.tokens.files.tokenizer
    ids = np.array([7, *own.encode(answer), own.eos_token_id], dtype=np.int32)
    wrote = [TeacherRecord(b"", ids, 1, "stop", "decode")]
    told = bench(reference, compared_tokens=11)
    told = replace(told, tokenizer_of=SimpleNamespace(tokenizer=TOKENIZER, stop_ids=(EOS,)))  # type: ignore[arg-type]
    assert told.texts(wrote, written_by=candidate) == (answer,)
    found = told.wording(wrote, written_by=candidate)
    assert measured(found)["rouge_l"].value == pytest.approx(expected)
    assert length_ratio(found) == pytest.approx(ratio)


def test_a_model_of_other_tokens_is_asked_the_same_prompts_in_its_own(tmp_path: Path) -> None:
    real, candidate = real_bench(tmp_path), in_other_tokens()
    asked = real.requests_of(candidate)
    assert candidate.tokens is not None
    assert [request.prompt_ids for request in asked] == [(at, at + 1, at + 2) for at in range(6)]
    assert {request.stop_ids for request in asked} == {candidate.tokens.files.stop_ids}
    assert {request.max_new_tokens for request in asked} == {12}
    assert real.requests_of(bench_candidate()) == real.requests
    assert real.address(candidate, of="answers") != real.address(bench_candidate(), of="answers")


def test_an_evaluation_is_addressed_by_all_that_changes_it(tmp_path: Path) -> None:
    real, candidate = real_bench(tmp_path), bench_candidate()
    other_ids: Any = SimpleNamespace(tokenizer=byte_tokenizer())
    other_ids.tokenizer.add_tokens(["more"])
    identity = TeacherIdentity(weights_sha256="c" * 64, config_sha256="b" * 64, dtype="float32")
    shorter = tuple(replace(each, max_new_tokens=9) for each in real.requests)
    digests = [
        real.address(candidate, of="answers"),
        real.address(candidate, of="something else"),
        real.address(bench_candidate(digest="e" * 64), of="answers"),
        real.address(bench_candidate(role="untouched"), of="answers"),
        real.address(replace(candidate, identity=identity), of="answers"),
        replace(real, requests=real.requests[:5]).address(candidate, of="answers"),
        replace(real, requests=shorter).address(candidate, of="answers"),
        replace(real, tokenizer_of=other_ids).address(candidate, of="answers"),
        replace(real, compared_tokens=11).address(candidate, of="answers"),
    ]
    assert len(set(digests)) == len(digests)
    moved = replace(bench_candidate("renamed"), directory=Path("moved"), parameters=1)
    assert real.address(moved, of="answers") == digests[0]
