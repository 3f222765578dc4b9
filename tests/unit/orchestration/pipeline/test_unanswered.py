"""A row is set aside once, with the reason, and leaves the prompts when nothing of it was answered."""

from __future__ import annotations

from dataclasses import replace

from cache import GenerateRequest, ScoreRequest
from cache.answers import Request
from cache.erasures import FORGOTTEN
from orchestration.inputs.prompts import Prompt, PromptSet, Rejected
from orchestration.pipeline.unanswered import without_refused
from orchestration.plan.requests import SequenceSet


def samples(*prompt: int, count: int = 1) -> tuple[GenerateRequest, ...]:
    return tuple(
        GenerateRequest(prompt, stop_ids=(0,), max_new_tokens=5, temperature=1.0, replicate=each)
        for each in range(count)
    )


def a_set(split: str, *requests: Request, source: str = "teacher") -> SequenceSet:
    return SequenceSet(source, split, requests, k=4)  # type: ignore[arg-type]


ONE, TWO, THREE = Prompt(4, "one", (1, 2)), Prompt(7, "two", (3,)), Prompt(9, "three", (5,))
PROMPTS = PromptSet({"train": (ONE, TWO), "test": (THREE,)}, (Rejected("train", 0, "empty", ""),))


def test_a_prompt_stays_as_long_as_one_of_its_sequences_was_answered() -> None:
    one, two = samples(1, 2, count=3), samples(3, count=3)
    sets = [a_set("train", *one, *two), a_set("test", *samples(5))]
    failed: dict[Request, str] = dict.fromkeys(one, "too long") | {two[1]: "not a number"}
    found = without_refused(PROMPTS, sets, failed=failed)
    assert found.splits == {"train": (TWO,), "test": (THREE,)}
    assert found.rejected == (
        Rejected("train", 0, "empty", ""),
        Rejected("train", 4, "too long (3 of its 3 sequences)", "one"),
        Rejected("train", 7, "not a number (1 of its 3 sequences)", "two"),
    )


def test_a_gold_answer_that_cannot_be_scored_leaves_the_prompt_to_its_own_answers() -> None:
    gold: Request = ScoreRequest((1, 2, 9, 9), prompt_len=2)
    alone = without_refused(PROMPTS, [a_set("train", gold, source="gold")], failed={gold: "unknown id"})
    assert alone.splits["train"] == (TWO,)
    sets = [a_set("train", gold, source="gold"), a_set("train", *samples(1, 2))]
    assert without_refused(PROMPTS, sets, failed={gold: "unknown id"}).splits["train"] == (ONE, TWO)


def test_a_prompt_that_stands_twice_is_set_aside_twice() -> None:
    twice = PromptSet({"train": (ONE, Prompt(5, "one", (1, 2)))}, ())
    found = without_refused(twice, [a_set("train", *samples(1, 2), *samples(1, 2))], failed={samples(1, 2)[0]: "no"})
    assert found.splits == {"train": ()}
    assert [row.row for row in found.rejected] == [4, 5]


def test_a_prompt_that_the_teacher_saw_more_of_is_found_by_what_it_saw() -> None:
    wide = replace(TWO, prompt_ids=ONE.prompt_ids, wide_ids=(8, 1, 2))
    (seen,) = samples(8, 1, 2)
    left = without_refused(
        PromptSet({"train": (ONE, wide)}, ()), [a_set("train", *samples(1, 2), seen)], failed={seen: "too long"}
    )
    assert left.splits["train"] == (ONE,) and [each.row for each in left.rejected] == [wide.row]


def test_a_window_that_cannot_be_scored_says_nothing_about_prompts() -> None:
    one, window = Prompt(0, "one", (5,)), Prompt(7, "", (5,), (6, 7))
    asked = ScoreRequest((5, 6, 7), 1)
    sets = [a_set("train", *samples(5)), a_set("train", asked, source="plain")]
    prompts = PromptSet({"train": (one,)}, (), {"train": (window,), "dev": ()})
    left = without_refused(prompts, sets, failed={asked: "too long"})
    assert left.splits == prompts.splits and left.plain == prompts.plain
    assert [(each.split, each.row, each.reason) for each in left.rejected] == [("plain-train", 7, "too long")]


def test_the_text_of_what_was_forgotten_is_not_kept() -> None:
    (gone,) = samples(3)
    left = without_refused(PROMPTS, [a_set("train", *samples(1, 2), gone)], failed={gone: FORGOTTEN})
    assert left.rejected[-1] == Rejected("train", TWO.row, FORGOTTEN, "")


def test_nothing_is_set_aside_when_all_was_answered() -> None:
    assert without_refused(PROMPTS, [a_set("train", *samples(1, 2), *samples(3))], failed={}) == PROMPTS
