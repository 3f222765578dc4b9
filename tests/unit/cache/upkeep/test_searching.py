"""Rows are found by their tokens, and are named by what of them matches."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rewriting_builders import DIGEST, put_answer, storage_of
from store_builders import VOCAB, make_record, open_cache

from cache.erasures import asked_name, held_name
from cache.upkeep.searching import find_matches


def found(root: Path, token: int) -> dict[bytes, frozenset[str]]:
    return find_matches(storage_of(root), identity=DIGEST, match=lambda tokens: token in tokens)


def test_a_prompt_that_matches_is_named_and_every_answer_to_it(tmp_path: Path) -> None:
    record = put_answer(tmp_path, 7)
    put_answer(tmp_path, 8)
    assert found(tmp_path, 7)[record.key] == {held_name(record.token_ids), held_name([3, 4, 7]), asked_name([3, 4, 7])}


def put(root: Path, tokens: Sequence[int], *, rollout: str | None = None) -> bytes:
    record = make_record(tokens, prompt_len=2, finish="given", version=None if rollout is None else 0)
    open_cache(root).put([record], vocab=VOCAB, rollout=rollout)
    return record.key


def test_a_prompt_is_named_for_its_answer_only_where_the_teacher_gave_it(tmp_path: Path) -> None:
    given, rollout = put(tmp_path, [3, 4, 90, 5]), put(tmp_path, [3, 4, 90, 6], rollout="r")
    assert found(tmp_path, 90) == {given: {held_name([3, 4, 90, 5])}, rollout: {held_name([3, 4, 90, 6])}}
    record = put_answer(tmp_path, 7)
    (token,) = np.setdiff1d(record.response_ids, [3, 4, 7])[:1].tolist()
    assert found(tmp_path, token)[record.key] == {held_name(record.token_ids), asked_name([3, 4, 7])}
