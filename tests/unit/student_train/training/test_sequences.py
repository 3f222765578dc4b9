"""Learning from sequences, as the loop sees it: steps, data, what is refused before a model is read."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from alone import ALONE, lone_worker
from combined_builders import mixed_job
from narrowed_builders import narrowed_job, narrowed_view
from one_process import learn_alone
from retokenised_builders import retokenised_job
from torch import Tensor
from training_jobs import IDENTITY, live, make_job, train_all, variant, weights_of
from transformers import AutoModelForCausalLM

from cache.combined import CombinedView, Part
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import ConfigError
from student_train.feed.microbatch import MicroBatch
from student_train.feed.retokenised import Retokenised
from student_train.feed.steps import training_batches
from student_train.job import StepMetrics, TrainJob
from student_train.losses.metrics import ALIGNED_METRICS, SCORED_METRICS, TEXT_METRICS
from student_train.training.sequences import SequenceLearner


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


def test_steps_are_those_of_the_view_from_the_asked_one_on(job: TrainJob) -> None:
    learner = SequenceLearner(job, group=ALONE)
    view = CacheView.load(job.train_view)
    assert learner.data_digest == view.digest
    assert learner.measures
    whole = list(learner.steps(lone_worker(job, learner), first=0))
    assert len(whole) == learner.total_steps > 4
    batches = training_batches(job.stage, view=view, first=0, steps=learner.total_steps)
    for step, rows in zip(whole, batches, strict=True):
        assert step is not None
        assert step.rows == [view.keys[row].tobytes().hex()[:12] for row in rows]
        assert step.known == dict.fromkeys(SCORED_METRICS, step.places)
        assert step.tokens == int(view.lengths[rows].sum())
        computed = sum(batch.input_ids.numel() for batch in step.batches)
        assert step.padding_share == pytest.approx(1 - (step.tokens - len(rows)) / computed)
    rest = list(learner.steps(lone_worker(job, learner), first=3))
    assert [step.rows for step in rest if step] == [step.rows for step in whole[3:] if step]


def test_text_alone_has_no_beliefs_to_measure(job: TrainJob, tmp_path: Path) -> None:
    job = variant(job, tmp_path, stage={"objective": "seqkd"})
    learner = SequenceLearner(job, group=ALONE)
    (step,) = islice(learner.steps(lone_worker(job, learner), first=0), 1)
    assert step is not None and tuple(step.known) == TEXT_METRICS


def test_a_teacher_at_hand_knows_whole_distributions_of_text_alone(job: TrainJob, tmp_path: Path) -> None:
    taught = live(job, tmp_path, features=[{"kind": "hidden_mse"}])
    learner = SequenceLearner(taught, group=ALONE)
    (step,) = islice(learner.steps(lone_worker(taught, learner), first=0), 1)
    assert step is not None and tuple(step.known) == (*SCORED_METRICS, "hidden_mse")
    assert all(isinstance(batch, MicroBatch) and batch.targets is None for batch in step.batches)
    assert [name for name, _ in learner.module.named_parameters() if "projection" in name]
    assert not [name for name, _ in learner.model.named_parameters() if "projection" in name]


def test_rows_whose_attention_is_read_are_not_shared(job: TrainJob, tmp_path: Path) -> None:
    def longest_row(kind: str) -> int:
        taught = live(job, tmp_path / kind, features=[{"kind": kind}], micro_batch_tokens=200)
        learner = SequenceLearner(taught, group=ALONE)
        steps = [step for step in learner.steps(lone_worker(taught, learner), first=0) if step is not None]
        batches = [batch for step in steps for batch in step.batches if isinstance(batch, MicroBatch)]
        assert all(
            batch.read is not None and batch.per_text == step.places / len(step.rows)
            for step in steps
            for batch in step.batches
            if isinstance(batch, MicroBatch)
        )
        return max(batch.input_ids.shape[1] for batch in batches)

    assert longest_row("attention_mse") == int(CacheView.load(job.train_view).lengths.max()) - 1
    assert longest_row("hidden_mse") > longest_row("attention_mse")


def test_without_rollouts_no_stage_ends_early(job: TrainJob) -> None:
    learner = SequenceLearner(job, group=ALONE)
    assert not learner.ended_early([StepMetrics(step, {"dev/loss": 9.0}) for step in range(9)])


def test_what_does_not_fit_together_is_refused_before_a_model_is_read(job: TrainJob, tmp_path: Path) -> None:
    small = variant(job, tmp_path, settings={"micro_batch_tokens": 4})
    with pytest.raises(ConfigError, match=r"runtime\.training.micro_batch_tokens is 4"):
        SequenceLearner(replace(small, model_dir=tmp_path / "nowhere"), group=ALONE)


def test_a_student_of_another_tokenizer_learns_in_its_own_tokens(job: TrainJob, tmp_path: Path) -> None:
    job = retokenised_job(job, tmp_path)
    texts = Retokenised.load(job.train_view)
    for objective, known in (("span_likelihood", ALIGNED_METRICS), ("uld", ALIGNED_METRICS), ("seqkd", TEXT_METRICS)):
        other = variant(job, tmp_path / objective, stage={"objective": objective})
        learner = SequenceLearner(other, group=ALONE)
        assert learner.data_digest == texts.digest
        (step,) = islice(learner.steps(lone_worker(other, learner), first=0), 1)
        assert step is not None and tuple(step.known) == known
        loss = sum(float(learner.module(batch)[0].detach()) for batch in step.batches) / step.places
        assert 0.0 < loss < 50.0


def losses(job: TrainJob) -> list[float]:
    """The sum of the losses of each step, before anything is learned."""
    learner = SequenceLearner(job, group=ALONE)
    steps = [step for step in learner.steps(lone_worker(job, learner), first=0) if step is not None]
    return [sum(float(learner.module(batch)[0].detach()) for batch in step.batches) for step in steps]


def test_a_mixture_is_learned_and_measured_as_any_view(job: TrainJob, tmp_path: Path) -> None:
    mixed = mixed_job(job, tmp_path)
    learner = SequenceLearner(mixed, group=ALONE)
    assert learner.data_digest == CombinedView.load(mixed.train_view).digest and learner.measures
    (step,) = islice(learner.steps(lone_worker(mixed, learner), first=0), 1)
    assert step is not None and tuple(step.known) == SCORED_METRICS
    assert any(batch.targets is not None and batch.targets.padding is not None for batch in step.batches)
    assert all(math.isfinite(loss) and loss > 0.0 for loss in losses(mixed))
    # Steps go on where they were, whoever begins.
    whole = [each.rows for each in learner.steps(lone_worker(mixed, learner), first=0) if each is not None]
    later = SequenceLearner(mixed, group=ALONE).steps(lone_worker(mixed, learner), first=1)
    assert [each.rows for each in later if each is not None] == whole[1:] and len(whole) == learner.total_steps


@pytest.mark.parametrize("tail", ["bucket", "renormalize"])
def test_a_teacher_mixed_with_itself_teaches_what_it_teaches_alone(job: TrainJob, tmp_path: Path, tail: str) -> None:
    view = CacheView.load(job.train_view)
    places = torch.arange(len(view)).numpy()
    twice = CombinedView("train", (Part(IDENTITY, 0.5, view, places), Part(IDENTITY, 0.5, view, places)))
    twice.save(tmp_path / "twice.combined")
    alone = variant(job, tmp_path / "alone", stage={"tail": tail})
    mixed = replace(variant(job, tmp_path / "mixed", stage={"tail": tail}), train_view=tmp_path / "twice.combined")
    assert losses(mixed) == pytest.approx(losses(alone), rel=1e-6)
    assert TeacherCache.open(job.cache_root, IDENTITY).holds(view)


def test_beliefs_are_learned_where_they_stand_behind_a_shorter_prompt(job: TrainJob, tmp_path: Path) -> None:
    """Against whole softmaxes in float64 over the student's own sequences, and the teacher's rows as they are stored."""
    narrow, view = narrowed_job(job, tmp_path), narrowed_view(job, job.train_view)
    learner = SequenceLearner(narrow, group=ALONE)
    assert learner.data_digest == view.rows.digest
    rows = training_batches(job.stage, view=view.rows, first=0, steps=1)[0]
    (told,) = TeacherCache.open(job.cache_root, IDENTITY).iter_blocks(view.view, [rows])
    expected = 0.0
    for row, record in zip(rows.tolist(), told, strict=True):
        tokens = torch.from_numpy(view.token_ids[view.token_offsets[row] : view.token_offsets[row + 1]]).long()
        with torch.no_grad():
            logits = learner.model(tokens[None]).logits[0, view.prompt_len[row] - 1 : -1].double()
        student = torch.log_softmax(logits, dim=1).numpy()
        assert record.topk_ids is not None and record.topk_logprobs is not None and record.tail_logmass is not None
        for position in range(record.response_len):
            ours = student[position, record.topk_ids[position]]
            theirs, tail = record.topk_logprobs[position].astype(np.float64), float(record.tail_logmass[position])
            expected += float((np.exp(theirs) * (theirs - ours)).sum())
            expected += math.exp(tail) * (tail - math.log1p(-np.exp(ours).sum()))
    assert losses(narrow)[0] == pytest.approx(expected, rel=1e-5)
    assert losses(narrow)[0] != pytest.approx(losses(job)[0], rel=1e-2)


def by_hand(job: TrainJob, *, shift: int = 0) -> tuple[float, dict[str, Tensor]]:
    """The forward KL of all rows with its gradient, in double precision, one row at a time.

    The teacher's beliefs are read at its own wide positions; `shift` takes them that many positions later.
    """
    model = AutoModelForCausalLM.from_pretrained(job.model_dir, dtype=torch.float64)
    total = torch.zeros((), dtype=torch.float64)
    made, view = narrowed_view(job, job.train_view), CacheView.load(job.train_view)
    (told,) = TeacherCache.open(job.cache_root, IDENTITY).iter_blocks(view, [np.arange(len(view))])
    for row, record in enumerate(told):
        own = made.token_ids[made.token_offsets[row] : made.token_offsets[row + 1]].astype(np.int64)
        logits = model(torch.from_numpy(own)[None]).logits[0, made.prompt_len[row] - 1 : -1]
        student = torch.log_softmax(logits, dim=1)
        assert record.topk_ids is not None and record.topk_logprobs is not None and record.tail_logmass is not None
        ids = torch.from_numpy(np.roll(record.topk_ids, -shift, axis=0).astype(np.int64))
        kept = torch.from_numpy(np.roll(record.topk_logprobs, -shift, axis=0).astype(np.float64))
        tail = torch.from_numpy(np.roll(record.tail_logmass, -shift).astype(np.float64))
        ours = student.gather(1, ids)
        rest = torch.log1p(-ours.exp().sum(dim=1))
        total = total + (kept.exp() * (kept - ours)).sum() + (tail.exp() * (tail - rest)).sum()
    total.backward()
    return float(total.detach()), {name: each.grad for name, each in model.named_parameters() if each.grad is not None}


def test_behind_its_own_prompts_a_student_has_the_gradient_of_the_teachers_wide_positions(
    job: TrainJob, tmp_path: Path
) -> None:
    own = variant(narrowed_job(job, tmp_path), tmp_path, stage={"epochs": 1.0})
    learner, loss = SequenceLearner(own, group=ALONE), torch.zeros(())
    for step in learner.steps(lone_worker(own, learner), first=0):
        assert step is not None
        for batch in step.batches:
            loss = loss + learner.module(batch)[0]
    loss.backward()
    expected, gradient = by_hand(job)
    assert float(loss.detach()) == pytest.approx(expected, rel=1e-5)
    found = {name: each.grad for name, each in learner.model.named_parameters() if each.grad is not None}
    assert found.keys() == gradient.keys()
    for name, each in gradient.items():
        assert torch.allclose(found[name].double(), each, rtol=1e-3, atol=1e-4 * float(each.abs().max())), name
    # One position further is another loss.
    assert abs(by_hand(job, shift=1)[0] / expected - 1.0) > 1e-3


VIEWS: dict[str, Callable[[TrainJob, Path], TrainJob]] = {
    "another tokenizer": retokenised_job,
    "shorter prompts": narrowed_job,
    "a mixture": mixed_job,
}
"""What a student may read in place of its teacher's own rows."""


@pytest.mark.group
@pytest.mark.slow
@pytest.mark.parametrize(
    ("view", "objective"),
    [
        ("another tokenizer", "span_likelihood"),
        ("another tokenizer", "uld"),
        ("another tokenizer", "seqkd"),
        ("shorter prompts", "kd"),
        ("a mixture", "kd"),
    ],
)
def test_every_layout_equals_one_process(tmp_path: Path, view: str, objective: str) -> None:
    stage = {"objective": objective, "select": "last"}
    base = VIEWS[view](variant(make_job(tmp_path / "start"), tmp_path, stage=stage), tmp_path)
    jobs = [variant(base, tmp_path / f"zero-{zero}", settings={"zero_stage": zero}) for zero in range(4)]
    weights, losses = learn_alone(base, lambda whole: SequenceLearner(whole, group=ALONE))
    for job, (seen, _) in zip(jobs, train_all(*((job, {}) for job in jobs), folder=tmp_path / "group"), strict=True):
        assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
        for name, value in weights_of(job).items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=3e-5, msg=name)
