"""Which rows make up a step, who reads them, and how much the whole step has."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from combined_builders import mixture
from narrowed_builders import narrowed_view
from student_builders import records
from training_jobs import IDENTITY, make_job

from cache.batches import global_batches
from cache.combined import CombinedCache
from cache.narrowed import NarrowedCache
from cache.store import TeacherCache
from cache.views import CacheView
from configs.stages import StageConfig
from student_train.feed import steps as feeding
from student_train.feed.steps import Feed, StepBatch, held_out_batches, joined, total_steps, training_batches
from student_train.feed.turns import take_turns
from student_train.job import TrainJob
from student_train.losses.advantages import PolicyTerms
from student_train.worker_group import WorkerGroup


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def view(job: TrainJob) -> CacheView:
    return CacheView.load(job.train_view)


def stage(**fields: Any) -> StageConfig:
    return StageConfig.model_validate({"objective": "kd", "tokens_per_step": 60, **fields})


def shares(
    job: TrainJob, view: CacheView, batches: list[np.ndarray], *, world: int, **fields: Any
) -> list[list[StepBatch]]:
    """The steps of every process."""
    cache = TeacherCache.open(job.cache_root, IDENTITY)
    known: dict[str, Any] = {"micro_batch_tokens": 40, "with_targets": True, "packs": False} | fields
    return [
        list(Feed(cache=cache, view=view, group=WorkerGroup(rank, world, torch.device("cpu")), **known).steps(batches))
        for rank in range(world)
    ]


def test_a_step_is_dealt_out_once_by_each_process_and_each_share_laid_out_once(
    job: TrainJob, view: CacheView, monkeypatch: pytest.MonkeyPatch
) -> None:
    batches = training_batches(stage(steps=6), view=view, first=0, steps=6)
    done: list[str] = []

    def counted(name: str) -> None:
        whole = getattr(feeding, name)
        monkeypatch.setattr(feeding, name, lambda *args, **terms: done.append(name) or whole(*args, **terms))

    counted("rank_shares")
    counted("lay_out")
    cache = TeacherCache.open(job.cache_root, IDENTITY)
    group = WorkerGroup(1, 3, torch.device("cpu"))
    feed = Feed(cache=cache, view=view, group=group, micro_batch_tokens=40, with_targets=True)
    # Also of steps whose rows are read ahead.
    assert len(list(feed.steps(batches))) == len(batches)
    assert (done.count("rank_shares"), done.count("lay_out")) == (len(batches), 3 * len(batches))


@pytest.mark.parametrize("packs", [True, False], ids=["packed", "buckets"])
def test_processes_share_a_step_and_agree_on_its_size(job: TrainJob, view: CacheView, packs: bool) -> None:
    batches = training_batches(stage(steps=4), view=view, first=0, steps=4)
    first, second = shares(job, view, batches, world=2, packs=packs)
    for rows, one, two in zip(batches, first, second, strict=True):
        sizes = ("response_tokens", "tokens", "padded_tokens", "keys")
        assert [getattr(one, name) for name in sizes] == [getattr(two, name) for name in sizes]
        assert len(one.batches) == len(two.batches)
        assert sorted(np.concatenate(one.rows + two.rows).tolist()) == sorted(rows.tolist())
        assert one.tokens == int(np.asarray(view.lengths)[rows].sum())
        assert one.response_tokens == sum(len(micro.labels) for micro in one.batches + two.batches)
        assert one.keys == tuple(view.keys[row].tobytes().hex() for row in rows)
        # The batch of a process without rows is a single token that no step counts.
        computed = sum(
            micro.input_ids.numel()
            for step in (one, two)
            for micro, held in zip(step.batches, step.rows, strict=True)
            if len(held)
        )
        assert one.padded_tokens == computed


def test_a_process_without_rows_gets_empty_batches(job: TrainJob, view: CacheView) -> None:
    ((one,), (two,)) = shares(job, view, [np.array([3])], world=2)
    assert [len(each.batches) for each in (one, two)] == [1, 1]
    assert sorted(len(each.batches[0].labels) for each in (one, two)) == [0, one.response_tokens]


def test_labels_are_those_of_the_rows_that_a_batch_names(job: TrainJob, view: CacheView) -> None:
    known = records(16, seed=1)
    ((step,),) = shares(job, view, [np.arange(len(view))], world=1, packs=True)
    for micro, rows in zip(step.batches, step.rows, strict=True):
        by_text = {tuple(row.token_ids): row for row in known}
        expected = [label for row in rows for label in by_text[tuple(_tokens(job, view, int(row)))].response_ids]
        assert micro.labels.tolist() == expected


def _tokens(job: TrainJob, view: CacheView, row: int) -> np.ndarray:
    ((found,),) = TeacherCache.open(job.cache_root, IDENTITY).iter_blocks(view, [np.array([row])])
    return found.token_ids


def test_terms_go_with_their_rows(job: TrainJob, view: CacheView) -> None:
    lengths = np.asarray(view.lengths) - np.asarray(view.prompt_len)
    terms = [PolicyTerms(*[torch.full((int(n),), float(row)).double()] * 3) for row, n in enumerate(lengths)]
    ((step,),) = shares(job, view, [np.arange(len(view))[::-1].copy()], world=1, terms=terms)
    for micro, rows in zip(step.batches, step.rows, strict=True):
        assert micro.policy is not None
        assert micro.policy.advantages.tolist() == [float(row) for row in rows for _ in range(lengths[row])]


def test_joined_steps_count_together() -> None:
    one = StepBatch(3, 5, 6, ("a",), (), (np.arange(1),), metrics={"left": 1.0})
    two = StepBatch(4, 7, 9, ("b", "c"), (), (np.arange(2),))
    both = joined([one, two], metrics={"rollout/wait_s": 2.0})
    assert (both.response_tokens, both.tokens, both.padded_tokens) == (7, 12, 15)
    assert both.keys == ("a", "b", "c") and len(both.rows) == 2
    assert both.metrics == {"rollout/wait_s": 2.0}


def test_a_fraction_of_an_epoch_is_rounded_up_to_whole_steps(view: CacheView) -> None:
    whole = [len(global_batches(view, seed=0, epoch=epoch, tokens_per_batch=60)) for epoch in range(3)]
    assert total_steps(stage(epochs=2.0), view=view) == whole[0] + whole[1]
    assert total_steps(stage(epochs=2.01), view=view) == whole[0] + whole[1] + 1
    assert total_steps(stage(epochs=None, steps=7), view=view) == 7
    rollout = {"count": 3, "epochs": 2, "minibatches": 4, "prompts": 8}
    assert total_steps(stage(epochs=None, rollout=rollout), view=view) == 24


def test_batches_go_on_over_epochs_wherever_a_run_begins(view: CacheView) -> None:
    epochs = [global_batches(view, seed=0, epoch=epoch, tokens_per_batch=60) for epoch in range(2)]
    expected = [rows.tolist() for epoch in epochs for rows in epoch]
    settings = stage(epochs=2.0)
    for first in (0, 3, len(epochs[0]), len(expected)):
        found = training_batches(settings, view=view, first=first, steps=len(expected))
        assert [rows.tolist() for rows in found] == expected[first:]


@pytest.mark.parametrize("tokens", [1, 30, 10_000])
def test_held_out_rows_come_once_and_in_order(view: CacheView, tokens: int) -> None:
    batches = held_out_batches(view, tokens=tokens)
    assert np.concatenate(batches).tolist() == list(range(len(view)))
    assert len(batches) == {1: len(view), 10_000: 1}.get(tokens, len(batches))
    longest = int(np.asarray(view.lengths).max())
    assert max(int(np.asarray(view.lengths)[rows].sum()) for rows in batches) < tokens + longest


@pytest.mark.parametrize("first", [0, 3, 5])
def test_answers_that_take_turns_are_read_one_a_prompt_and_resumed_where_they_were(view: CacheView, first: int) -> None:
    turns = take_turns([[2 * prompt, 2 * prompt + 1] for prompt in range(len(view) // 2)], views=2)
    settings = stage(epochs=4)
    total = total_steps(settings, view=view, turns=turns)
    batches = training_batches(settings, view=view, first=0, steps=total, turns=turns)
    each = [len(global_batches(view, seed=0, epoch=at, tokens_per_batch=60, rows=turns.of(at))) for at in range(4)]
    assert total == sum(each) < total_steps(settings, view=view)
    for epoch, end in enumerate(np.cumsum(each)):
        read = np.concatenate(batches[end - each[epoch] : end])
        assert sorted(read.tolist()) == list(range(epoch % 2, len(view), 2))
    rest = training_batches(settings, view=view, first=first, steps=total, turns=turns)
    assert [rows.tolist() for rows in rest] == [rows.tolist() for rows in batches[first:]]


def test_processes_share_the_steps_of_a_mixture(job: TrainJob, view: CacheView) -> None:
    combined = mixture(job.cache_root, view)
    cache, rows = CombinedCache(job.cache_root, [combined]), combined.rows
    batches = training_batches(stage(steps=3), view=rows, first=0, steps=3)
    assert [each.tolist() for each in batches] == [
        each.tolist() for each in training_batches(stage(steps=3), view=view, first=0, steps=3)
    ]

    def masses(world: int) -> list[float]:
        known: dict[str, Any] = {"micro_batch_tokens": 40, "with_targets": True, "packs": True}
        made = [
            Feed(cache=cache, view=rows, group=WorkerGroup(rank, world, torch.device("cpu")), **known).steps(batches)
            for rank in range(world)
        ]
        found = []
        for steps in zip(*made, strict=True):
            targets = [micro.targets for step in steps for micro in step.batches if micro.targets is not None]
            found.append(sum(float(each.tail_logmass.exp().sum()) for each in targets if each.tail_logmass is not None))
        return found

    assert masses(2) == pytest.approx(masses(1), rel=1e-6)


def test_processes_share_the_steps_of_students_prompts_and_each_label_has_its_teachers_row(
    job: TrainJob, view: CacheView
) -> None:
    made = narrowed_view(job, job.train_view)
    cache = NarrowedCache(TeacherCache.open(job.cache_root, IDENTITY), [made])
    (told,) = TeacherCache.open(job.cache_root, IDENTITY).iter_blocks(view, [np.arange(len(view))])
    batches = training_batches(stage(steps=3), view=made.rows, first=0, steps=3)
    for world in (1, 2):
        groups = [WorkerGroup(rank, world, torch.device("cpu")) for rank in range(world)]
        feeds = [Feed(cache, made.rows, group, 40, with_targets=True, packs=True) for group in groups]
        for wanted, *steps in zip(batches, *(feed.steps(batches) for feed in feeds), strict=True):
            read = [int(row) for step in steps for rows in step.rows for row in rows]
            assert sorted(read) == sorted(wanted.tolist())
            labels = [label for step in steps for micro in step.batches for label in micro.labels.tolist()]
            assert labels == [int(token) for row in read for token in told[row].response_ids]
            targets = [micro.targets for step in steps for micro in step.batches if micro.targets is not None]
            ids = torch.cat([each.ids for each in targets if len(each.ids)]).numpy()
            assert np.array_equal(ids, np.concatenate([told[row].topk_ids for row in read]))  # type: ignore[arg-type]
            assert {step.tokens for step in steps} == {int(made.rows.lengths[wanted].sum())}
    later = training_batches(stage(steps=3), view=made.rows, first=2, steps=3)
    assert [rows.tolist() for rows in later] == [rows.tolist() for rows in batches[2:]]
