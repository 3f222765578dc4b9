"""Which examples make up a step, who reads them, and that nothing of it depends on how many processes there are."""

from __future__ import annotations

from dataclasses import replace
from itertools import chain
from typing import Any

import numpy as np
import pytest
import torch
from task_jobs import made_examples

from configs.task import TaskKind
from configs.task_stages import TaskStageConfig
from student_train.feed import task_steps as feed
from student_train.feed.examples import ExampleSet
from student_train.feed.task_steps import TaskFeed, TaskStep, measured_batches, task_batches, task_steps
from student_train.feed.turns import take_turns
from student_train.worker_group import WorkerGroup

EXAMPLES = made_examples(30, seed=1)


def stage(**fields: Any) -> TaskStageConfig:
    return TaskStageConfig.model_validate({"objective": "hard_labels", "batch_size": 8} | fields)


def steps_of(examples: ExampleSet, batches: list[np.ndarray], *, world: int, tokens: int = 24) -> list[list[TaskStep]]:
    """The steps of every process."""
    groups = [WorkerGroup(rank, world, torch.device("cpu")) for rank in range(world)]
    return [list(TaskFeed(examples, group, tokens).steps(batches)) for group in groups]


def rows_of(step: TaskStep, examples: ExampleSet) -> list[tuple[int, ...]]:
    """The texts of a step's micro-batches on one process."""
    return [
        tuple(ids[mask.bool()].tolist())
        for batch in step.batches
        if len(batch.owner)
        for ids, mask in zip(batch.input_ids, batch.attention_mask, strict=True)
    ]


def texts(examples: ExampleSet, rows: np.ndarray) -> list[tuple[int, ...]]:
    ends = examples.token_offsets
    return [tuple(examples.token_ids[ends[row] : ends[row + 1]].tolist()) for row in rows]


def test_a_step_is_dealt_out_once_by_each_process(monkeypatch: pytest.MonkeyPatch) -> None:
    batches = list(task_batches(stage(epochs=1), examples=EXAMPLES, first=0, steps=4))
    done: list[int] = []
    whole = feed.rank_shares
    monkeypatch.setattr(feed, "rank_shares", lambda *args, **terms: done.append(1) or whole(*args, **terms))
    assert len(steps_of(EXAMPLES, batches, world=3)[1]) == 4
    assert len(done) == 3 * 4


def test_an_epoch_has_every_example_once_in_an_order_of_its_own() -> None:
    batches = list(task_batches(stage(epochs=2), examples=EXAMPLES, first=0, steps=8))
    assert [len(rows) for rows in batches] == [8, 8, 8, 6] * 2
    first, second = (np.concatenate(part).tolist() for part in (batches[:4], batches[4:]))
    assert sorted(first) == sorted(second) == list(range(30))
    assert first != second != list(range(30))


def test_the_order_follows_from_examples_seed_and_epoch_alone() -> None:
    ours = np.concatenate(list(task_batches(stage(steps=4), examples=EXAMPLES, first=0, steps=4)))
    again = np.concatenate(list(task_batches(stage(steps=9), examples=made_examples(30, seed=1), first=0, steps=4)))
    other_seed = np.concatenate(list(task_batches(stage(steps=4, seed=1), examples=EXAMPLES, first=0, steps=4)))
    other_data = np.concatenate(
        list(task_batches(stage(steps=4), examples=made_examples(30, seed=2), first=0, steps=4))
    )
    assert ours.tolist() == again.tolist()
    assert ours.tolist() != other_seed.tolist()
    assert ours.tolist() != other_data.tolist()


@pytest.mark.parametrize("first", [0, 3, 4, 9])
def test_a_stage_goes_on_at_any_step(first: int) -> None:
    whole = list(task_batches(stage(steps=11), examples=EXAMPLES, first=0, steps=11))
    rest = list(task_batches(stage(steps=11), examples=EXAMPLES, first=first, steps=11))
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in whole[first:]]


@pytest.mark.parametrize(
    ("fields", "count", "expected"),
    [({"steps": 5}, 30, 5), ({"epochs": 2}, 30, 8), ({"epochs": 1.1}, 80, 11), ({"epochs": 0.01}, 80, 1)],
)
def test_a_part_of_an_epoch_is_rounded_up_to_whole_batches(fields: dict[str, Any], count: int, expected: int) -> None:
    assert task_steps(stage(**fields), examples=made_examples(count, seed=1)) == expected


@pytest.mark.parametrize("kind", ["classification", "tagging", "extractive_qa"])
@pytest.mark.parametrize("world", [1, 2, 3])
def test_processes_share_a_step_and_agree_on_its_size(kind: TaskKind, world: int) -> None:
    examples = made_examples(30, seed=1, kind=kind)
    batches = list(task_batches(stage(steps=5), examples=examples, first=0, steps=5))
    for rows, *shares in zip(batches, *steps_of(examples, batches, world=world), strict=True):
        assert len({(each.decisions, each.tokens, each.padded_tokens, len(each.batches)) for each in shares}) == 1
        assert all(each.rows.tolist() == rows.tolist() for each in shares)
        found = chain.from_iterable(rows_of(each, examples) for each in shares)
        assert sorted(found) == sorted(texts(examples, rows))
        assert shares[0].decisions == sum(len(batch.gold) for each in shares for batch in each.batches)
        assert shares[0].tokens == int(examples.lengths[rows].sum())
        computed = sum(batch.input_ids.numel() for each in shares for batch in each.batches if len(batch.owner))
        assert shares[0].padded_tokens == computed


def test_shares_are_balanced_by_tokens_and_micro_batches_keep_to_their_limit() -> None:
    batches = list(task_batches(stage(steps=3, batch_size=16), examples=EXAMPLES, first=0, steps=3))
    for one, two in zip(*steps_of(EXAMPLES, batches, world=2), strict=True):
        tokens = [sum(int(batch.attention_mask.sum()) for batch in each.batches) for each in (one, two)]
        assert abs(tokens[0] - tokens[1]) <= int(EXAMPLES.lengths.max())
        assert all(batch.input_ids.numel() <= 24 for each in (one, two) for batch in each.batches)


def test_a_process_without_examples_runs_empty_batches() -> None:
    (one,), (two,) = steps_of(EXAMPLES, [np.array([3])], world=2)
    assert [len(each.batches) for each in (one, two)] == [1, 1]
    assert sorted(len(each.batches[0].gold) for each in (one, two)) == [0, 1]
    assert one.decisions == two.decisions == 1


def test_everything_held_out_is_measured_once_with_its_like() -> None:
    batches = measured_batches(EXAMPLES, tokens=50)
    order = np.concatenate(batches)
    assert sorted(order.tolist()) == list(range(30))
    assert (np.diff(EXAMPLES.lengths[order]) >= 0).all()
    assert max(int(EXAMPLES.lengths[rows].sum()) for rows in batches) < 50 + int(EXAMPLES.lengths.max())


@pytest.mark.parametrize("world", [1, 2, 3])
@pytest.mark.parametrize("tokens", [40, 400])
def test_examples_that_are_related_stay_together_wherever_they_go(world: int, tokens: int) -> None:
    rows = next(iter(task_batches(stage(steps=1, batch_size=14), examples=EXAMPLES, first=0, steps=1)))
    wanted = {tuple(sorted(texts(EXAMPLES, rows[at : at + 4]))) for at in range(0, 14, 4)}
    found = []
    for rank in range(world):
        feed = TaskFeed(EXAMPLES, WorkerGroup(rank, world, torch.device("cpu")), tokens, related=4)
        (step,) = feed.steps([rows])
        for batch in step.batches:
            assert batch.groups is not None and len(batch.groups) == batch.texts
            held = [tuple(ids[mask.bool()].tolist()) for ids, mask in zip(batch.input_ids, batch.attention_mask)]  # noqa: B905
            numbers = batch.groups.tolist()
            found += [tuple(sorted(held[at] for at, each in enumerate(numbers) if each == g)) for g in set(numbers)]
    assert len(found) == len(wanted) and set(found) == wanted


def test_what_is_measured_is_related_to_the_same_examples_however_large_its_batches() -> None:
    small, large = (measured_batches(EXAMPLES, tokens=tokens, related=4) for tokens in (30, 300))
    assert len(small) > len(large)
    cut = [[rows[at : at + 4].tolist() for rows in part for at in range(0, len(rows), 4)] for part in (small, large)]
    assert cut[0] == cut[1]


def test_copies_that_take_turns_are_read_one_a_text() -> None:
    turns = take_turns([[at, 10 + at, 20 + at] for at in range(10)], views=3)
    examples = replace(EXAMPLES, turns=turns.rows)
    settings = stage(epochs=4, batch_size=4)
    assert task_steps(settings, examples=examples) == 12
    batches = list(task_batches(settings, examples=examples, first=0, steps=12))
    for epoch in range(4):
        read = np.concatenate(batches[3 * epoch : 3 * epoch + 3])
        assert sorted(read.tolist()) == list(range(10 * (epoch % 3), 10 * (epoch % 3) + 10))
    rest = list(task_batches(settings, examples=examples, first=5, steps=12))
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in batches[5:]]
    # The order of an epoch is its own, also where it reads what another read.
    assert [rows.tolist() for rows in batches[:3]] != [rows.tolist() for rows in batches[9:]]
