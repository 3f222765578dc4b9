"""What teachers that are mixed with the first are asked."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines

from cache import GenerateRequest, ScoreRequest, rows
from configs.schema import TeacherConfig
from orchestration.inputs.prompts import Prompt, PromptTable
from orchestration.plan.asked_rows import AskedRows
from orchestration.plan.requests import NothingHeld, SequenceSet, plan_fill
from orchestration.plan.scores import sequence_of, told_sets

OTHER = TeacherConfig.model_validate({"model": {"path": "other"}, "top_k": 3, "encoding": "topk-f16"})
GOLD = ScoreRequest((5, 6, 7, 8), 2)


def test_a_sequence_that_the_first_wrote_is_scored_as_it_is(tmp_path: Path) -> None:
    filling, asked = Filling(tmp_path / "cache"), teacher_set(prompts(3))
    filling.fill(asked, engines=LocalEngines())
    filling.cache.refresh()
    (told,) = told_sets([asked], cache=filling.cache)
    records = filling.records(asked)
    assert list(told.answered()) == [
        (each, sequence_of(one)) for each, one in zip(asked.requests, records, strict=True)
    ]
    part = told.scored_by(OTHER, planned=False)
    assert (part.name, part.k, part.encoding) == (asked.name, 3, "topk-f16")
    assert list(part.requests) == [sequence_of(record) for record in records]


def test_what_is_not_written_yet_is_left_out_or_planned_as_the_longest_answer(tmp_path: Path) -> None:
    filling, asked = Filling(tmp_path / "cache"), teacher_set(prompts(4))
    filling.fill(teacher_set(prompts(2, first=4)), engines=LocalEngines())
    filling.cache.refresh()
    for cache, known in ((filling.cache, [1, 2]), (NothingHeld(), [])):
        (told,) = told_sets([asked], cache=cache)
        assert [request for request, _ in told.answered()] == [asked.requests[at] for at in known]
        assert len(told.scored_by(OTHER, planned=False).requests) == len(known)
        planned = told.scored_by(OTHER, planned=True).requests
        for at, (request, score) in enumerate(zip(asked.requests, planned, strict=True)):
            assert isinstance(request, GenerateRequest) and isinstance(score, ScoreRequest)
            assert score.prompt_len == len(request.prompt_ids)
            if at not in known:
                assert len(score.token_ids) == score.prompt_len + request.max_new_tokens


def test_given_answers_are_scored_where_beliefs_of_them_are_kept() -> None:
    scored, text = (SequenceSet("gold", split, (GOLD,), k) for split, k in (("train", 4), ("dev", 0)))
    (told,) = told_sets([scored, text], cache=NothingHeld())
    assert list(told.answered()) == [(GOLD, GOLD)]
    part = told.scored_by(OTHER, planned=False)
    assert part.name == "gold-train" and part.requests == (GOLD,)


def test_a_plan_of_many_holds_a_few_bytes_of_each() -> None:
    """As objects a sequence of 150 tokens takes 1,300."""

    def held(count: int) -> int:
        table = PromptTable(Prompt(at, "", tuple(range(100)), gold_ids=tuple(range(50))) for at in range(count))
        asked = AskedRows(table, lambda each, _: ScoreRequest(each.prompt_ids + (each.gold_ids or ()), 100))
        tracemalloc.start()
        told = told_sets([SequenceSet("gold", "train", asked, 4)], cache=NothingHeld())
        plan = plan_fill([each.scored_by(OTHER, planned=True) for each in told], cache=NothingHeld())
        now, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert plan.misses == count
        return now

    few, many = 2 * rows.AT_ONCE, 6 * rows.AT_ONCE
    assert (held(many) - held(few)) / (many - few) < 100
