"""Which sequences a fill asks for, in which order, and what it knows them by; what becomes of them is in test_fill."""

from __future__ import annotations

from pathlib import Path

import pytest
from fill_builders import Filling, prompts, teacher_set
from local_engines import EOS, IDENTITY, VOCAB, LocalEngines

from cache import GenerateRequest, ScoreRequest, generation_key
from cache.keys import sequence_key
from orchestration.fill.sequences import WantedSequences
from orchestration.fill.work import Kept
from orchestration.plan.requests import SequenceSet

GOLD = ScoreRequest((5, 6, 7, EOS), prompt_len=2)


@pytest.fixture
def filling(tmp_path: Path) -> Filling:
    return Filling(tmp_path / "cache")


def wanted(filling: Filling, *sets: SequenceSet) -> WantedSequences:
    return WantedSequences(sets, filling.cache, filling.order())


def test_work_is_one_kind_and_k_at_a_time_and_names_nothing_twice(filling: Filling) -> None:
    sets = [
        SequenceSet("gold", "train", (GOLD,), k=3),
        teacher_set((*prompts(2), *prompts(3)), k=4),
        teacher_set(prompts(1), split="test", k=2),
    ]
    works = wanted(filling, *sets).open_work({prompts(3)[2]})
    assert [(w.order.scoring, w.order.k, w.claimed_k, w.requests) for w in works] == [
        # A completion that is under way serves whatever its k.
        (False, 2, 0, prompts(1)),
        (False, 4, 0, prompts(2)),
        (True, 3, 3, (GOLD,)),
    ]


def test_requests_are_claimed_by_the_keys_of_the_cache(filling: Filling) -> None:
    ask = GenerateRequest((3, 3), stop_ids=(EOS,), max_new_tokens=4)
    digest = IDENTITY.digest()
    assert wanted(filling).names([ask, GOLD]) == [
        generation_key(digest, ask),
        sequence_key(digest, GOLD.token_ids, GOLD.prompt_len),
    ]


def test_what_is_kept_of_work_is_counted_by_a_new_look(filling: Filling) -> None:
    part = teacher_set(prompts(3))
    all_of_it = wanted(filling, part)
    (work,) = all_of_it.open_work(())
    assert all_of_it.kept(work) == Kept(0, 0) and all_of_it.missing(work) == list(part.requests)
    filling.fill(teacher_set(prompts(2)), engines=LocalEngines())
    kept = all_of_it.kept(work)
    assert kept == Kept(2, sum(record.response_len for record in filling.records(part)))
    assert all_of_it.missing(work) == [part.requests[2]]


def test_gold_text_that_needs_no_scores_is_stored_and_scores_are_not(filling: Filling) -> None:
    text, scored = (
        SequenceSet("gold", "train", (GOLD,), k=0),
        SequenceSet("gold", "dev", (ScoreRequest((8, 9), 1),), k=2),
    )
    wanted(filling, text, scored).store_gold_text(vocab=VOCAB)
    assert [record.finish for record in filling.records(text)] == ["given"]
    assert filling.records(scored) == []
