"""What teachers that are mixed with the first are asked."""

from __future__ import annotations

from pathlib import Path

from fill_builders import Filling, prompts, teacher_set
from local_engines import LocalEngines

from cache import ScoreRequest
from configs.schema import TeacherConfig
from orchestration.plan.requests import NothingHeld, SequenceSet
from orchestration.plan.scores import score_sets, sequence_of, sequences_of

OTHER = TeacherConfig.model_validate({"model": {"path": "other"}, "top_k": 3, "encoding": "topk-f16"})
GOLD = ScoreRequest((5, 6, 7, 8), 2)


def test_a_sequence_that_the_first_wrote_is_scored_as_it_is(tmp_path: Path) -> None:
    filling, asked = Filling(tmp_path / "cache"), teacher_set(prompts(3))
    filling.fill(asked, engines=LocalEngines())
    filling.cache.refresh()
    found = sequences_of([asked], cache=filling.cache)
    records = filling.records(asked)
    assert [found[request] for request in asked.requests] == [sequence_of(record) for record in records]
    assert found[asked.requests[0]].token_ids == tuple(records[0].token_ids.tolist())
    (part,) = score_sets([asked], sequences=found, teacher=OTHER, planned=False)
    assert (part.name, part.k, part.encoding) == (asked.name, 3, "topk-f16")
    assert list(part.requests) == [found[request] for request in asked.requests]


def test_what_is_not_written_yet_is_planned_as_the_longest_answer(tmp_path: Path) -> None:
    asked = teacher_set(prompts(2))
    assert sequences_of([asked], cache=NothingHeld()) == {}
    assert sequences_of([asked], cache=Filling(tmp_path / "cache").cache) == {}
    (planned,) = score_sets([asked], sequences={}, teacher=OTHER, planned=True)
    for request, score in zip(asked.requests, planned.requests, strict=True):
        assert isinstance(score, ScoreRequest) and score.prompt_len == len(request.prompt_ids)  # type: ignore[union-attr]
        assert len(score.token_ids) == score.prompt_len + request.max_new_tokens  # type: ignore[union-attr]
    (known,) = score_sets([asked], sequences={}, teacher=OTHER, planned=False)
    assert known.requests == ()


def test_given_answers_are_scored_where_beliefs_of_them_are_kept() -> None:
    scored, text = (SequenceSet("gold", split, (GOLD,), k) for split, k in (("train", 4), ("dev", 0)))
    found = sequences_of([scored, text], cache=NothingHeld())
    assert found == {GOLD: GOLD}
    (part,) = score_sets([scored, text], sequences=found, teacher=OTHER, planned=False)
    assert part.name == "gold-train" and part.requests == (GOLD,)
