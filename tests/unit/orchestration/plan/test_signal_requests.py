"""What a teacher with a head is asked, and how the plan counts what the cache holds of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from local_signals import ALL, STATE, WIDTHS, signal_set, texts
from signal_builders import CLASSES, SPANS, TAGS

from cache import Signal, SignalRequest
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.task_texts import ReadExample
from orchestration.plan.signal_requests import (
    NoSignals,
    SignalWidths,
    asked_sets,
    bytes_of,
    bytes_per_row,
    needs_teacher,
    plan_signals,
    signal_sets,
    wanted_signals,
)


def config(*stages: dict[str, Any], answers: str = "head", **data: Any) -> TaskDistillConfig:
    student = {"start": {"kind": "bag"}, "stages": [{"steps": 1} | stage for stage in stages]}
    return TaskDistillConfig.model_validate(
        {
            "name": "planned",
            "task": "t.yaml",
            "teacher": {"model": {"path": "m"}, "answers": answers},
            "students": {"s": student},
            "data": data,
        }
    )


GOLD_ONLY, SOFT = {"objective": "hard_labels"}, {"objective": "soft_labels"}
TEACHERS_LABEL = {"objective": "hard_labels", "labels": "teacher"}


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (config(GOLD_ONLY), ()),
        (config(GOLD_ONLY, SOFT), (CLASSES,)),
        (config(TEACHERS_LABEL), (CLASSES,)),
        (config(GOLD_ONLY, SOFT, agreement={"min_probability": 0.5}), (CLASSES,)),
    ],
)
def test_the_stages_decide_whether_logits_are_needed(settings: TaskDistillConfig, expected: tuple[Signal, ...]) -> None:
    assert wanted_signals(settings, kind="classification") == expected
    assert needs_teacher(settings) == bool(expected)


def test_sets_that_nobody_learns_of_the_teacher_are_not_asked_about() -> None:
    transfer = {"objective": "soft_labels", "data": ["transfer"]}
    assert asked_sets(config(GOLD_ONLY, transfer, transfer=[{"path": "more.jsonl"}])) == {"transfer"}
    assert asked_sets(config(GOLD_ONLY)) == frozenset()
    state = {"kind": "hidden_mse", "layers": "top", "place": "first"}
    assert asked_sets(config(GOLD_ONLY | {"features": [state]})) == {"train"}
    assert asked_sets(config(GOLD_ONLY | {"features": [{"kind": "cosine"}]})) == frozenset(), "it reads live"


def test_each_kind_of_task_has_its_logits_and_states_are_asked_once() -> None:
    assert wanted_signals(config(SOFT), kind="tagging") == (TAGS,)
    assert wanted_signals(config(SOFT), kind="extractive_qa", states=[(1, "first"), (1, "first")]) == (SPANS, STATE)


class Holds:
    """A cache that holds these."""

    def __init__(self, *held: SignalRequest) -> None:
        self._held = held

    def missing(self, requests: Sequence[SignalRequest]) -> tuple[int, ...]:
        return tuple(at for at, request in enumerate(requests) if request not in self._held)


def test_hits_misses_and_tokens_are_counted_set_by_set() -> None:
    train, test = signal_set(3, CLASSES, STATE), signal_set(2, CLASSES, first=7, tokens=4, name="test")
    plan = plan_signals([train, test], cache=Holds(*train.requests[:3]), widths=WIDTHS, encoding="signal-f32")
    assert [(part.asked, part.hits, part.misses, part.tokens) for part in plan.sets] == [(6, 3, 3, 10), (2, 0, 2, 8)]
    # The first text is whole; of the second a state is missing, so it is read.
    assert plan.sets[0].missing == train.requests[3:]
    assert (plan.misses, plan.tokens, plan.asks_teacher) == (5, 18, True)
    assert plan.requests == (*train.requests, *test.requests)
    # Classes of 24 bytes and states of 16, 55 beside each, and each text once: (2 states, 1 class, 10), (2, 8 tokens).
    assert [part.stored_bytes for part in plan.sets] == [2 * 71 + 79 + 2 * 10, 2 * 79 + 2 * 8]
    nothing = plan_signals([train], cache=Holds(*train.requests), widths=WIDTHS, encoding="signal-f32")
    assert (nothing.asks_teacher, nothing.stored_bytes, nothing.tokens) == (False, 0, 0)


def test_a_signal_that_two_sets_lack_is_asked_once() -> None:
    plan = plan_signals(
        [signal_set(2, CLASSES), signal_set(3, CLASSES, name="transfer")],
        cache=NoSignals(),
        widths=WIDTHS,
        encoding="signal-f32",
    )
    assert [(part.misses, part.hits, part.tokens) for part in plan.sets] == [(2, 0, 10), (1, 2, 5)]


def test_what_was_refused_before_is_no_miss() -> None:
    part = signal_set(2, CLASSES)

    class Knows:
        def reason(self, request: SignalRequest) -> str | None:
            return "too long" if request == part.requests[0] else None

    plan = plan_signals([part], cache=NoSignals(), widths=WIDTHS, encoding="signal-f32", refused=Knows())
    assert (plan.misses, plan.tokens, plan.sets[0].hits) == (1, 5, 0)
    assert plan.refused == {part.requests[0]: "too long"}


def test_nothing_held_counts_equal_requests_once() -> None:
    part = signal_set(2, CLASSES)
    assert NoSignals().missing((*part.requests, *part.requests)) == (1, 0)


@pytest.mark.parametrize(
    ("signal", "encoding", "row", "whole"),
    [
        # Tags and spans have a row for each of the 5 tokens.
        (CLASSES, "signal-f32", 24, 55 + 24),
        (TAGS, "signal-f16", 12, 55 + 60),
        (TAGS, "signal-u8", 14, 55 + 70),
        (SPANS, "signal-f32", 8, 55 + 40),
        (STATE, "signal-f32", 16, 55 + 16),
    ],
)
def test_bytes_are_counted_by_rows(signal: Signal, encoding: Any, row: int, whole: int) -> None:
    (request,) = signal_set(1, signal).requests
    assert bytes_per_row(signal, widths=WIDTHS, encoding=encoding) == row
    assert bytes_of(request, widths=WIDTHS, encoding=encoding) == whole


def test_widths() -> None:
    assert [SignalWidths(labels=6, hidden=4).of(each) for each in (CLASSES, TAGS, SPANS, STATE)] == [6, 6, 2, 4]


def test_texts_that_were_cut_are_counted() -> None:
    cut = ReadExample((1, 2), 2, (), (), (), cut=True)
    sets = signal_sets({"train": [*texts(2), cut]}, ALL)
    assert plan_signals(sets, cache=NoSignals(), widths=WIDTHS, encoding="signal-f32").cut == 1
