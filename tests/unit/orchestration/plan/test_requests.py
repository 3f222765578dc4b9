"""What an experiment asks of the teacher, and how the plan counts what the cache holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from cache import GenerateRequest, Missing, ScoreRequest
from cache.answers import Request
from configs import ConfigError, DistillConfig
from configs.rollouts import RolloutConfig
from orchestration.inputs.prompts import Prompt
from orchestration.plan.requests import (
    BYTES_PER_ENTRY,
    BYTES_PER_ROW,
    NothingHeld,
    SequenceSet,
    plan_fill,
    rollout_tokens,
    sequence_sets,
)

STOPS = (2, 7)


def prompts(*, gold: bool = True) -> dict[str, tuple[Prompt, ...]]:
    """Two train rows, one dev row and one test row; row i of a split has i + 1 tokens and 2 gold tokens."""
    rows = {"train": 2, "dev": 1, "test": 1}
    return {
        split: tuple(Prompt(i, f"{split} {i}", (ord(split[0]),) * (i + 1), (9, 2) if gold else None) for i in range(n))
        for split, n in rows.items()
    }


def config(*stages: dict[str, Any], generation: dict[str, Any] | None = None) -> DistillConfig:
    split = {"path": "x.jsonl"}
    return DistillConfig.model_validate(
        {
            "name": "planned",
            "teacher": {"model": {"hub": "a/b"}, "top_k": 16},
            "data": {"train": split, "dev": split, "test": split, "response_field": "answer"},
            "generation": {"max_new_tokens": 10} | (generation or {}),
            "students": {
                f"s{i}": {"init": {"keep_layers": 1}, "stages": [{"steps": 1} | stage]}
                for i, stage in enumerate(stages)
            },
        }
    )


KD, KD_GOLD = {"objective": "kd"}, {"objective": "kd", "source": "gold"}
SEQKD, SFT = {"objective": "seqkd"}, {"objective": "sft", "source": "gold"}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([KD], {"teacher-train": 16, "teacher-dev": 16, "teacher-test": 16}),
        ([SEQKD, KD], {"teacher-train": 16, "teacher-dev": 16, "teacher-test": 16}),
        ([SFT], {"gold-train": 0, "gold-dev": 0, "teacher-test": 16}),
        ([KD_GOLD], {"gold-train": 16, "gold-dev": 16, "teacher-test": 16}),
        (
            [SFT, KD_GOLD, KD],
            {"teacher-train": 16, "teacher-dev": 16, "gold-train": 16, "gold-dev": 16, "teacher-test": 16},
        ),
    ],
)
def test_the_stages_decide_which_sequences_are_needed(stages: list[dict[str, Any]], expected: dict[str, int]) -> None:
    sets = sequence_sets(config(*stages), prompts(), stop_ids=STOPS)
    assert {part.name: part.k for part in sets} == expected


WINDOWS = {split: (Prompt(0, "", (5,), (6, 7)), Prompt(0, "", (7,), (8,))) for split in ("train", "dev")}


@pytest.mark.parametrize(
    ("stages", "expected"),
    [
        ([KD | {"source": "plain"}], {"plain-train": 16, "plain-dev": 16, "teacher-test": 16}),
        ([SFT | {"source": "plain"}], {"plain-train": 0, "plain-dev": 0, "teacher-test": 16}),
        ([KD | {"source": "plain", "teacher": "live"}], {"plain-train": 0, "plain-dev": 0, "teacher-test": 16}),
        ([KD_GOLD | {"teacher": "live"}], {"gold-train": 0, "gold-dev": 0, "teacher-test": 16}),
        # A text that the teacher writes comes with its scores.
        ([KD | {"teacher": "live"}], {"teacher-train": 16, "teacher-dev": 16, "teacher-test": 16}),
    ],
)
def test_a_teacher_at_hand_needs_no_scores_of_what_it_did_not_write(
    stages: list[dict[str, Any]], expected: dict[str, int]
) -> None:
    plain = {"train": {"path": "x.jsonl"}, "dev": {"path": "x.jsonl"}}
    blocks = config(KD).model_dump()
    blocks["data"]["plain"] = plain
    blocks["students"] = {"s": {"init": {"keep_layers": 1}, "stages": [{"steps": 1} | stage for stage in stages]}}
    sets = sequence_sets(DistillConfig.model_validate(blocks), prompts(), stop_ids=STOPS, plain=WINDOWS)
    assert {part.name: part.k for part in sets} == expected


def test_windows_of_plain_text_are_scored_behind_their_first_token() -> None:
    blocks = config(KD).model_dump()
    blocks["data"]["plain"] = {"train": {"path": "x.jsonl"}, "dev": {"path": "x.jsonl"}}
    blocks["students"]["s0"]["stages"] = [KD | {"source": "plain", "steps": 1}]
    planned = DistillConfig.model_validate(blocks)
    sets = {each.name: each for each in sequence_sets(planned, prompts(), stop_ids=STOPS, plain=WINDOWS)}
    assert sets["plain-train"].requests == (ScoreRequest((5, 6, 7), 1), ScoreRequest((7, 8), 1))
    # Who plans without the texts leaves them out.
    assert [each.name for each in sequence_sets(planned, prompts(), stop_ids=STOPS)] == ["teacher-test"]


def test_requests_carry_the_generation_settings() -> None:
    settings = {"temperature": 0.7, "top_p": 0.9, "seed": 5, "max_new_tokens": 12}
    sets = sequence_sets(config(KD, generation=settings), prompts(), stop_ids=STOPS)
    assert sets[0].requests[1] == GenerateRequest(
        prompt_ids=(ord("t"),) * 2, stop_ids=STOPS, max_new_tokens=12, temperature=0.7, top_p=0.9, sampling_seed=5
    )


def test_only_training_prompts_are_answered_several_times() -> None:
    settings = {"temperature": 1.0, "samples_per_prompt": 3}
    sets = {s.name: s for s in sequence_sets(config(KD, generation=settings), prompts(), stop_ids=STOPS)}
    train = [r for r in sets["teacher-train"].requests if isinstance(r, GenerateRequest)]
    assert [(len(r.prompt_ids), r.replicate) for r in train] == [(1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2)]
    assert len(sets["teacher-dev"].requests) == len(sets["teacher-test"].requests) == 1


def test_gold_sequences_are_prompt_and_answer() -> None:
    sets = sequence_sets(config(SFT), prompts(), stop_ids=STOPS)
    assert sets[0].requests[1] == ScoreRequest(token_ids=(ord("t"), ord("t"), 9, 2), prompt_len=2)


def test_a_teacher_that_is_shown_more_is_asked_what_it_sees() -> None:
    wide = {
        split: tuple(replace(row, wide_ids=(8, 8, *row.prompt_ids)) for row in rows)
        for split, rows in prompts().items()
    }
    gold, _, test = sequence_sets(config(SFT), wide, stop_ids=STOPS)
    assert gold.requests[1] == ScoreRequest(token_ids=(8, 8, ord("t"), ord("t"), 9, 2), prompt_len=4)
    assert all(isinstance(each, GenerateRequest) and each.prompt_ids[:2] == (8, 8) for each in test.requests)


def test_a_row_without_a_gold_answer_names_itself_and_the_cure() -> None:
    with pytest.raises(ConfigError, match=r"data\.train row 0 has no gold answer .*: set data\.response_field"):
        sequence_sets(config(SFT), prompts(gold=False), stop_ids=STOPS)


class Held:
    """A cache that lacks certain positions of every set."""

    def __init__(self, *, generate: tuple[int, ...] = (), score: tuple[tuple[int, ScoreRequest], ...] = ()) -> None:
        self.answer = Missing(generate=generate, score=score)
        self.asked: list[int] = []

    def missing(self, requests: Sequence[Request], *, k: int) -> Missing:
        self.asked.append(k)
        return self.answer


def written(*lengths: int) -> tuple[Request, ...]:
    return tuple(GenerateRequest((1,) * length, (2,), max_new_tokens=10) for length in lengths)


def test_hits_and_misses_and_what_they_cost() -> None:
    top_up = ScoreRequest((1,) * 9, prompt_len=4)
    cache = Held(generate=(0, 2), score=((3, top_up),))
    plan = plan_fill([SequenceSet("teacher", "train", written(3, 4, 5, 4), k=8)], cache=cache)
    (part,) = plan.sets
    assert (part.hits, part.misses) == (1, 3)
    assert part.prompt_tokens == 3 + 5 + 4
    assert part.response_tokens == 10 + 10 + 5
    assert cache.asked == [8]
    assert (plan.misses, plan.prompt_tokens, plan.response_tokens) == (3, 12, 25)
    assert plan.stored_bytes == int(25 * (BYTES_PER_ROW + 8 * BYTES_PER_ENTRY["topk-u8"]) + 4 * 12)
    assert plan.asks_teacher


def test_a_full_cache_asks_for_nothing() -> None:
    sets = [SequenceSet("teacher", split, written(3, 4), k=8) for split in ("train", "test")]
    plan = plan_fill(sets, cache=Held())
    assert not plan.asks_teacher
    assert (plan.misses, plan.prompt_tokens, plan.response_tokens, plan.stored_bytes) == (0, 0, 0, 0)
    assert [part.hits for part in plan.sets] == [2, 2]


def test_gold_text_costs_storage_but_no_teacher() -> None:
    gold = ScoreRequest((1,) * 6, prompt_len=4)
    sets = [SequenceSet("gold", "train", (gold,), k=0)]
    plan = plan_fill(sets, cache=NothingHeld())
    assert plan.misses == 1
    assert not plan.asks_teacher
    assert (plan.prompt_tokens, plan.response_tokens) == (0, 0)
    assert plan.stored_bytes > 0
    assert plan_fill([SequenceSet("gold", "train", (gold,), k=4)], cache=NothingHeld()).asks_teacher


def test_without_a_cache_everything_is_missing() -> None:
    requests = (*written(3), ScoreRequest((1, 2), prompt_len=1))
    missing = NothingHeld().missing(requests, k=4)
    assert missing.generate == (0,)
    assert missing.score == ((1, requests[1]),)


def test_planning_reads_no_file(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object, **settings: object) -> None:
        raise AssertionError("a plan is a pure function")

    monkeypatch.setattr(Path, "open", refuse)
    monkeypatch.setattr("builtins.open", refuse)
    sets = sequence_sets(config(KD, SFT), prompts(), stop_ids=STOPS)
    first, second = (plan_fill(sets, cache=NothingHeld()) for _ in range(2))
    assert first == second


def test_rollouts_cost_at_most_a_reading_and_a_writing_of_each_sequence() -> None:
    """Two rollouts of 8 sequences and 4 held-out answers, 20 + 10 tokens each; mixing may draw all 10."""
    mixed = RolloutConfig(count=2, prompts=8, minibatches=4, alpha=0.2, max_new_tokens=10, dev_prompts=4)
    assert rollout_tokens(mixed, longest_prompt=20) == 2 * (12 * 30 + 8 * 10)
    alone = mixed.model_copy(update={"alpha": 0.0, "share": 0.5})
    assert rollout_tokens(alone, longest_prompt=20) == 2 * 8 * 30
