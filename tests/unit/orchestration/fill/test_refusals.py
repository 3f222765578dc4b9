"""What a teacher could not answer is set aside once a row, asked of nobody again, and learned by nobody."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cache import GenerateRequest, Missing, ScoreRequest
from cache.answers import Request
from orchestration.fill import refusals
from orchestration.fill.refusals import Refusals
from orchestration.inputs.prompts import Prompt, PromptSet, Rejected
from orchestration.pipeline.fill_stage import without_refused
from orchestration.plan.requests import SequenceSet, plan_fill

IDENTITY = "ab" * 32
FORMER_LINE = (
    '{"key": "bc88b0cfee8ed4e5409157d5b1bb13569aafb0237bb5621d4da8789129012897", "terms": "t", "reason": "too long"}\n'
)
"""As it was written before lines named their schema."""


def samples(*prompt: int, count: int = 1, limit: int = 5) -> tuple[GenerateRequest, ...]:
    return tuple(
        GenerateRequest(prompt, stop_ids=(0,), max_new_tokens=limit, temperature=1.0, replicate=each)
        for each in range(count)
    )


def a_set(split: str, *requests: Request, source: str = "teacher") -> SequenceSet:
    return SequenceSet(source, split, requests, k=4)  # type: ignore[arg-type]


ONE, TWO, THREE = Prompt(4, "one", (1, 2)), Prompt(7, "two", (3,)), Prompt(9, "three", (5,))
PROMPTS = PromptSet({"train": (ONE, TWO), "test": (THREE,)}, (Rejected("train", 0, "empty", ""),))


def test_a_row_is_set_aside_once_and_leaves_the_prompts_when_nothing_of_it_was_answered() -> None:
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


def test_prompts_that_nobody_was_asked_stay() -> None:
    assert without_refused(PROMPTS, [], failed={}) == PROMPTS


def test_a_prompt_that_stands_twice_is_set_aside_twice() -> None:
    twice = PromptSet({"train": (ONE, Prompt(5, "one", (1, 2)))}, ())
    found = without_refused(twice, [a_set("train", *samples(1, 2), *samples(1, 2))], failed={samples(1, 2)[0]: "no"})
    assert found.splits == {"train": ()}
    assert [row.row for row in found.rejected] == [4, 5]


class Empty:
    """A cache that holds nothing of any set."""

    def missing(self, requests: tuple[Request, ...], *, k: int) -> Missing:
        written = [at for at, request in enumerate(requests) if isinstance(request, GenerateRequest)]
        scored = [(at, request) for at, request in enumerate(requests) if isinstance(request, ScoreRequest)]
        return Missing(generate=tuple(written), score=tuple(scored))


def test_what_was_refused_is_no_miss_of_a_later_plan_and_starts_no_engine(tmp_path: Path) -> None:
    gold: Request = ScoreRequest((1, 2, 9), prompt_len=2)
    sets = [a_set("train", *samples(1, 2, count=2)), a_set("train", gold, source="gold")]
    first = Refusals(tmp_path, identity=IDENTITY, terms="t")
    assert plan_fill(sets, cache=Empty(), refused=first).misses == 3
    first.add({samples(1, 2)[0]: "too long", gold: "unknown id"})
    plan = plan_fill(sets, cache=Empty(), refused=Refusals(tmp_path, identity=IDENTITY, terms="t"))
    assert (plan.misses, plan.sets[0].hits, plan.sets[1].hits) == (1, 0, 0)
    assert plan.refused == {samples(1, 2)[0]: "too long", gold: "unknown id"}
    assert plan.sets[0].asks_teacher and not plan.sets[1].asks_teacher
    assert (plan.prompt_tokens, plan.response_tokens) == (2, 5)
    first.add({samples(1, 2, count=2)[1]: "too long"})
    assert not plan_fill(sets, cache=Empty(), refused=Refusals(tmp_path, identity=IDENTITY, terms="t")).asks_teacher


def test_a_refusal_holds_for_its_request_teacher_and_terms_alone(tmp_path: Path) -> None:
    (request,) = samples(1, 2)
    Refusals(tmp_path, identity=IDENTITY, terms="t").add({request: "too long"})
    held = Refusals(tmp_path, identity=IDENTITY, terms="t")
    assert held.reason(request) == "too long"
    assert [held.reason(each) for each in (*samples(1), *samples(1, 2, limit=6), *samples(1, 2, count=2)[1:])] == [
        None
    ] * 3
    assert held.reason(ScoreRequest((1, 2), prompt_len=1)) is None
    assert Refusals(tmp_path, identity=IDENTITY, terms="other").reason(request) is None
    assert Refusals(tmp_path, identity="cd" * 32, terms="t").reason(request) is None
    held.path.unlink()
    assert Refusals(tmp_path, identity=IDENTITY, terms="t").reason(request) is None


def test_a_refusal_is_written_once_and_two_writers_do_not_harm_each_other(tmp_path: Path) -> None:
    one, two = (Refusals(tmp_path, identity=IDENTITY, terms="t") for _ in range(2))
    for _ in range(2):
        one.add({samples(1)[0]: "a"})
        two.add({samples(2)[0]: "b\x1b[2J\n"})
    lines = [json.loads(line) for line in one.path.read_text().splitlines()]
    assert [line["reason"] for line in lines] == ["a", "b\\x1b[2J\\n"]
    held = Refusals(tmp_path, identity=IDENTITY, terms="t")
    assert (held.reason(samples(1)[0]), held.reason(samples(2)[0])) == ("a", "b\\x1b[2J\\n")


def test_lines_of_an_earlier_release_are_read_and_those_of_a_later_one_left_out(tmp_path: Path) -> None:
    one, two = samples(1)[0], samples(2)[0]
    held = Refusals(tmp_path, identity=IDENTITY, terms="t")
    held.add({one: "a", two: "b"})
    entries = [json.loads(line) for line in held.path.read_text().splitlines()]
    assert [entry.pop("schema") for entry in entries] == ["stillroom/refusal/1"] * 2
    assert list(entries[0]) == ["key", "terms", "reason"]
    later = {"schema": "stillroom/refusal/2"} | entries[1]
    held.path.write_text(f"{json.dumps(entries[0])}\n{json.dumps(later)}\n")
    again = Refusals(tmp_path, identity=IDENTITY, terms="t")
    assert (again.reason(one), again.reason(two)) == ("a", None)


def test_a_refusal_as_an_earlier_release_wrote_it_still_holds(tmp_path: Path) -> None:
    path = Refusals(tmp_path, identity=IDENTITY, terms="t").path
    path.parent.mkdir()
    path.write_text(FORMER_LINE)
    assert Refusals(tmp_path, identity=IDENTITY, terms="t").reason(samples(1, 2)[0]) == "too long"


@given(damage=st.binary(max_size=40), at=st.integers(0, 200))
def test_a_damaged_file_loses_lines_and_nothing_else(
    damage: bytes, at: int, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("refused")
    held = Refusals(root, identity=IDENTITY, terms="t")
    held.add({samples(1)[0]: "a", samples(2)[0]: "b"})
    content = held.path.read_bytes()
    held.path.write_bytes(content[:at] + damage + content[at:])
    again = Refusals(root, identity=IDENTITY, terms="t")
    assert all(isinstance(again.reason(samples(each)[0]), str | None) for each in (1, 2))
    again.add({samples(3)[0]: "c"})


@pytest.mark.parametrize("kind", ["pipe", "link", "folder", "long", "deep"])
def test_what_is_not_its_file_is_left_alone(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = Refusals(tmp_path, identity=IDENTITY, terms="t").path
    path.parent.mkdir()
    other = tmp_path / "other"
    other.write_text("mine")
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "link":
        path.symlink_to(other)
    elif kind == "folder":
        path.mkdir()
    elif kind == "long":
        monkeypatch.setattr(refusals, "REFUSALS_BYTES", 9)
        path.write_text('{"key": "0123456789"}\n')
    else:
        path.write_bytes(b"[" * 100_000 + b"\n" + b"1" * 5000)
    held = Refusals(tmp_path, identity=IDENTITY, terms="t")
    held.add({samples(1)[0]: "a"})
    assert held.reason(samples(1)[0]) == "a"
    assert other.read_text() == "mine"
