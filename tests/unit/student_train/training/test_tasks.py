"""Stages of task students: what the loop is given, and whole stages in two real gloo processes under DeepSpeed."""

from __future__ import annotations

from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from general_jobs import general_variant, make_general_job
from group_worker import Ask, Trained
from safetensors.torch import load_file
from task_jobs import made_examples, make_task_job, set_dropout, task_variant, taught_inside
from task_students import LABELS, save_network, save_transformer
from torch import Tensor
from training_jobs import assert_same_bits, train_all, weights_of

from configs.errors import DataError, ModelError
from configs.task import TaskKind
from student_train.feed.examples import ExampleSet
from student_train.feed.task_batch import TaskBatch, collate_examples
from student_train.feed.task_steps import task_batches, task_steps
from student_train.feed.turns import take_turns
from student_train.job import StepMetrics, TaskJob
from student_train.losses.metrics import METRICS
from student_train.models.task_model import load_task_student
from student_train.models.task_module import TaskModule, choose_what_learns
from student_train.training.deepspeed_engine import ADAM_BETAS, ADAM_EPS
from student_train.training.overfit import CACHE_OVERFIT
from student_train.training.schedule import learning_rate
from student_train.training.stopping import StopRequest
from student_train.training.tasks import TaskLearner, _answering, _inside
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup

ALONE = WorkerGroup(0, 1, torch.device("cpu"))
LONG = {"epochs": None, "steps": 12, "evaluate_every": 1}
OVERSHOOT = LONG | {"learning_rate": 0.05, "schedule": "constant", "warmup_steps": 0, "select": "dev_loss"}
"""Steps so large that the last one is not the best."""

INSIDE: dict[str, Any] = {
    "states": [(2, "first"), (1, "first")],
    "select": "dev_loss",
    "features": [
        {"kind": "patient", "layers": [(1, 1), (2, 2)], "weight": 3.0},
        {"kind": "cosine"},
        {"kind": "hidden_mse", "weight": 0.5},
        {"kind": "attention_mse"},
    ],
}
"""Of the cache, and of a teacher that reads beside the student."""

LIVE: dict[str, Any] = {"teacher": "live", "select": "dev_loss", "features": [{"kind": "cosine", "weight": 0.5}]}
"""Answers of a teacher that reads beside the student, and what is inside it meanwhile."""

PROJECTED: dict[str, Any] = {
    "states": [(3, "first")],
    "objective": "features",
    "temperature": 1.0,
    "gold_weight": 0.0,
    "select": "dev_loss",
    "features": [{"kind": "hidden_mse", "layers": "top", "place": "first"}],
}
"""Of the cache alone, by a student of another width."""

RELATED: dict[str, Any] = PROJECTED | {
    "features": [
        {"kind": "distance_relation", "place": "first", "group": 4, "weight": 2.0},
        {"kind": "angle_relation", "place": "first", "group": 4},
    ],
}
"""Of how four texts lie to each other."""


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TaskJob:
    return make_task_job(tmp_path_factory.mktemp("job"))


def worker(job: TaskJob, learner: TaskLearner) -> StageWorker:
    """A process whose engine is asked for nothing."""
    engine: Any = object()
    stop = StopRequest(lambda: False, group=ALONE)
    return StageWorker(job=job, group=ALONE, engine=engine, model=learner.model, stop=stop)


def measured(*losses: float) -> list[StepMetrics]:
    return [StepMetrics(step, {"dev/loss": loss, "dev/error": loss}) for step, loss in enumerate(losses)]


def test_steps_are_batches_of_examples_with_what_is_known_of_them(job: TaskJob) -> None:
    learner = TaskLearner(job, group=ALONE)
    train = ExampleSet.load(job.train_examples)
    whole = list(learner.steps(worker(job, learner), first=0))
    batches = list(task_batches(job.stage, examples=train, first=0, steps=learner.total_steps))
    assert len(whole) == len(batches) == task_steps(job.stage, examples=train) == 8
    for step, rows in zip(whole, batches, strict=True):
        assert step is not None
        assert step.rows == [str(row) for row in rows]
        assert step.places == len(rows)
        assert step.known == dict.fromkeys(("loss", "ce", "accuracy", "divergence", "agreement"), len(rows))
        computed = sum(batch.input_ids.numel() for batch in step.batches)
        assert step.padding_share == pytest.approx(1 - step.tokens / computed)
    assert [step.rows for step in learner.steps(worker(job, learner), first=5) if step] == [
        step.rows for step in whole[5:] if step
    ]


def test_what_not_every_decision_has_is_not_reported(job: TaskJob, tmp_path: Path) -> None:
    for name, examples in (
        ("unlabelled", made_examples(9, seed=1, gold=False)),
        ("gold", made_examples(9, seed=1, teacher=False)),
    ):
        examples.save(tmp_path / name)
    soft = task_variant(job, tmp_path, stage={"gold_weight": 0.0})
    hard = task_variant(job, tmp_path, stage={"objective": "hard_labels", "temperature": 1.0, "gold_weight": 0.0})
    for each, name, known in (
        (soft, "unlabelled", ("loss", "divergence", "agreement")),
        (hard, "gold", ("loss", "ce", "accuracy")),
    ):
        learner = TaskLearner(replace(each, train_examples=tmp_path / name), group=ALONE)
        (step,) = islice(learner.steps(worker(each, learner), first=0), 1)
        assert step is not None and tuple(step.known) == known


def test_the_data_are_those_that_are_learned_and_those_that_are_held_out(job: TaskJob, tmp_path: Path) -> None:
    made_examples(12, seed=9).save(tmp_path / "other")
    digests = {
        TaskLearner(each, group=ALONE).data_digest
        for each in (
            job,
            replace(job, train_examples=tmp_path / "other"),
            replace(job, dev_examples=tmp_path / "other"),
        )
    }
    assert len(digests) == 3
    assert TaskLearner(replace(job, work_dir=tmp_path), group=ALONE).data_digest in digests


@pytest.mark.parametrize(
    ("losses", "patience", "ended"),
    [
        ((3.0, 2.0, 1.0), 1, False),
        ((3.0, 1.0, 2.0), 1, True),
        ((3.0, 1.0, 2.0), 2, False),
        ((3.0, 1.0, 2.0, 1.0), 2, True),  # as good is not better
        ((3.0, 1.0, 2.0, 0.5), 1, False),
        ((0.5, 1.0), 1, False),  # the start is not a candidate
        ((3.0, float("nan"), float("nan")), 2, True),
        ((3.0,), 1, False),
        ((3.0, 1.0, 2.0, 2.0, 2.0), None, False),
    ],
)
def test_patience_counts_measurements_since_the_best(
    job: TaskJob, tmp_path: Path, losses: tuple[float, ...], patience: int | None, ended: bool
) -> None:
    learner = TaskLearner(task_variant(job, tmp_path, stage={"patience": patience}), group=ALONE)
    assert learner.ended_early(measured(*losses)) is ended


def test_a_kept_start_is_what_measurements_have_to_be_better_than(job: TaskJob, tmp_path: Path) -> None:
    patient = task_variant(job, tmp_path, stage={"patience": 1, "keep_start": True})
    assert TaskLearner(patient, group=ALONE).ended_early(measured(0.5, 1.0))


def test_what_does_not_fit_together_is_refused_before_a_model_is_read(job: TaskJob, tmp_path: Path) -> None:
    nowhere = replace(job, model_dir=tmp_path / "nowhere")
    with pytest.raises(DataError, match="the train examples are of classification with 3 labels, not those of this"):
        TaskLearner(replace(nowhere, labels=("a", "b", "c")), group=ALONE)


def test_examples_longer_than_the_student_reads_are_refused(job: TaskJob, tmp_path: Path) -> None:
    train = made_examples(3, seed=1)
    long = ExampleSet(
        **{name: getattr(train, name) for name in train.__dataclass_fields__ if name not in ("digest", "token_ids")}
        | {
            "token_ids": np.full(3 * 50, 5, np.int32),
            "token_offsets": np.arange(0, 151, 50),
            "split": np.full(3, 50, np.int32),
        }
    )
    long.save(tmp_path / "long")
    wide = task_variant(job, tmp_path, settings={"micro_batch_tokens": 512})
    with pytest.raises(ModelError, match="reads 40 tokens at most and max_tokens=50: lower max_tokens"):
        TaskLearner(replace(wide, train_examples=tmp_path / "long"), group=ALONE)


Runs = dict[str, tuple[TaskJob, Trained, Trained]]
"""Jobs by name, with what each of two ranks saw of them."""


def of_kind(job: TaskJob, folder: Path, *, kind: TaskKind, student: str) -> TaskJob:
    """The job of another kind of task."""
    labels = ("first", "last") if kind == "extractive_qa" else LABELS
    for name, count in (("train", 20), ("dev", 6)):
        made_examples(count, seed=count, kind=kind).save(folder / f"{name}.safetensors")
    if student == "bert":
        save_transformer(folder / "start", kind=kind, labels=labels)
    else:
        save_network(folder / "start", name=student, task=kind, labels=labels)
    set_dropout(folder / "start", 0.0)
    return replace(
        task_variant(job, folder),
        model_dir=folder / "start",
        train_examples=folder / "train.safetensors",
        dev_examples=folder / "dev.safetensors",
        kind=kind,
        labels=labels,
    )


def broken(job: TaskJob, folder: Path) -> TaskJob:
    """The job with one logit of the teacher that is no number."""
    train = ExampleSet.load(job.train_examples)
    assert train.teacher is not None
    teacher = train.teacher.copy()
    teacher[4, 0] = np.nan
    fields = {name: getattr(train, name) for name in train.__dataclass_fields__ if name != "digest"}
    folder.mkdir()
    ExampleSet(**fields | {"teacher": teacher}).save(folder / "broken")
    return replace(task_variant(job, folder), train_examples=folder / "broken")


def with_turns(job: TaskJob, folder: Path) -> TaskJob:
    """The job with three copies of each of its texts, over four epochs that are each measured once."""
    turns = take_turns([[at, at + 10, at + 20] for at in range(10)], views=3)
    folder.mkdir()
    replace(ExampleSet.load(job.train_examples), turns=turns.rows).save(folder / "turning")
    stage = {"epochs": 4.0, "evaluate_every": 2, "select": "dev_loss"}
    return replace(task_variant(job, folder, stage=stage), train_examples=folder / "turning")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    bert = make_task_job(folder / "bert")
    lstm = make_task_job(folder / "lstm", student="lstm")
    noisy = make_task_job(folder / "noisy", dropout=0.2, **OVERSHOOT | {"patience": 3})
    jobs: list[tuple[str, TaskJob, dict[str, Any]]] = [
        ("bert", bert, {}),
        ("lstm", lstm, {}),
        ("lstm-0", task_variant(lstm, folder / "lstm-0", settings={"zero_stage": 0}), {}),
        ("frozen", task_variant(bert, folder / "frozen", stage={"unfrozen": 1}), {}),
        ("adapted", task_variant(bert, folder / "adapted", stage={"lora": {"rank": 2}}), {}),
        ("patient", noisy, {}),
        ("stopped", task_variant(noisy, folder / "stopped"), {"ask": Ask(after=2)}),
        ("resumed", task_variant(noisy, folder / "stopped"), {}),
        ("recomputed", task_variant(bert, folder / "recomputed", settings={"gradient_checkpointing": True}), {}),
        ("broken", broken(bert, folder / "broken"), {}),
        ("tags", of_kind(bert, folder / "tags", kind="tagging", student="lstm"), {}),
        ("spans", of_kind(bert, folder / "spans", kind="extractive_qa", student="bert"), {}),
    ]
    inside = taught_inside(bert, folder / "inside", **INSIDE)
    projected = taught_inside(lstm, folder / "projected", **PROJECTED)
    related = taught_inside(lstm, folder / "related", **RELATED)
    jobs += [
        ("inside", inside, {}),
        ("projected", projected, {}),
        ("related", task_variant(related, folder / "related", settings={"micro_batch_tokens": 48}), {}),
        ("projected-stopped", task_variant(projected, folder / "projected-stopped"), {"ask": Ask(after=3)}),
        ("projected-resumed", task_variant(projected, folder / "projected-stopped"), {}),
    ]
    general = make_general_job(folder / "general", dropout=0.2)
    turning = with_turns(lstm, folder / "turning")
    jobs += [
        ("general", general, {}),
        ("general-stopped", general_variant(general, folder / "general-stopped"), {"ask": Ask(after=3)}),
        ("general-resumed", general_variant(general, folder / "general-stopped"), {}),
        ("live", taught_inside(bert, folder / "live", **LIVE), {}),
        ("turning", turning, {}),
        ("turning-stopped", task_variant(turning, folder / "turning-stopped"), {"ask": Ask(after=3)}),
        ("turning-resumed", task_variant(turning, folder / "turning-stopped"), {}),
    ]
    ended = train_all(*((job, extra) for _, job, extra in jobs), folder=folder / "group")
    return {name: (job, *seen) for (name, job, _), seen in zip(jobs, ended, strict=True)}


def whole(examples: ExampleSet, rows: Any, *, related: int = 1) -> TaskBatch:
    """These examples as one batch that is a whole step, so many after each other in a group."""
    batch = replace(collate_examples(examples, rows), groups=torch.arange(len(rows)) // related)
    decisions, tokens = len(batch.gold), int(examples.lengths[rows].sum())
    return replace(batch, per_text=decisions / len(rows), per_token=decisions / tokens)


def dev_means(module: TaskModule, dev: ExampleSet, *, related: int) -> dict[str, float]:
    """What one large batch says of the held-out split."""
    with torch.no_grad():
        order = np.argsort(dev.lengths, kind="stable")
        _, sums = module.eval()(whole(dev, order, related=related))
    return {name: float(sums[METRICS.index(name)]) / len(dev.gold) for name in ("loss", "ce", "accuracy", "divergence")}


def reference(job: TaskJob) -> tuple[dict[str, Tensor], list[float], dict[str, float]]:
    """Plain torch on one process: weights, the loss of each step, and the held-out means at the end."""
    train, stage = ExampleSet.load(job.train_examples), job.stage
    student = load_task_student(job.model_dir, kind=job.kind, labels=job.labels)
    choose_what_learns(student, stage=stage)
    inside = _inside(job, student)
    module = TaskModule(student, stage=stage, inside=inside, answering=_answering(job, student, inside=inside)).train()
    learning = [weight for weight in module.parameters() if weight.requires_grad]
    groups = [
        {"params": [weight for weight in learning if weight.ndim > 1], "weight_decay": stage.weight_decay},
        {"params": [weight for weight in learning if weight.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=ADAM_EPS)
    total, losses = task_steps(stage, examples=train), []
    for step, rows in enumerate(task_batches(stage, examples=train, first=0, steps=total)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, peak=stage.learning_rate, total_steps=total, warmup_steps=2)
        batch = whole(train, rows, related=stage.related)
        loss = module(batch)[0] / len(batch.gold)
        optimiser.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(learning, stage.gradient_clip)
        optimiser.step()
        losses.append(float(loss.detach()))
    assert job.dev_examples is not None
    weights = {name: weight.detach() for name, weight in student.named_parameters()}
    return weights, losses, dev_means(module, ExampleSet.load(job.dev_examples), related=stage.related)


def last_weights(job: TaskJob) -> dict[str, Tensor]:
    """The exported weights under the names of the module."""
    student = load_task_student(job.output_dir, kind=job.kind, labels=job.labels)
    return {name: weight.detach() for name, weight in student.named_parameters()}


def assert_close_to(weights: dict[str, Tensor], job: TaskJob) -> None:
    """What a job exported is these weights, up to a fiftieth of one step of Adam."""
    for name, value in last_weights(job).items():
        # Softmax takes no notice of what is added to all keys: this gradient is rounding, which Adam makes a step of.
        if not name.endswith("key.bias"):
            torch.testing.assert_close(value, weights[name], rtol=0, atol=5e-5, msg=name)


@pytest.mark.group
@pytest.mark.parametrize(
    "name", ["bert", "lstm", "lstm-0", "frozen", "tags", "spans", "inside", "projected", "related", "live", "turning"]
)
def test_two_processes_equal_one(runs: Runs, name: str) -> None:
    job, seen, other = runs[name]
    weights, losses, held_out = reference(job)
    assert seen.result == other.result
    assert seen.result.finished and seen.result.steps == len(losses)
    assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
    for metric, value in held_out.items():
        assert seen.values(f"dev/{metric}")[-1] == pytest.approx(value, rel=1e-4, abs=1e-6), metric
    assert seen.values("dev/error") == [1.0 - right for right in seen.values("dev/accuracy")]
    chosen_by = "dev/error" if job.stage.select == "dev_accuracy" else "dev/loss"
    errors = {at.step: at.values[chosen_by] for at in seen.reported if chosen_by in at.values}
    assert seen.result.selected_step == min(sorted(set(errors) - {0}), key=errors.__getitem__)
    if seen.result.selected_step == seen.result.steps:
        assert_close_to(weights, job)


@pytest.mark.group
def test_projections_are_learned_resumed_and_not_exported(runs: Runs) -> None:
    (job, seen, _), (resumed, again, _) = runs["projected"], runs["projected-resumed"]
    assert seen.values("train/hidden_mse") == seen.values("train/loss")
    assert_same_bits(weights_of(resumed), weights_of(job))
    assert again.result.dev_losses == seen.result.dev_losses
    assert weights_of(job).keys() == load_file(job.model_dir / "model.safetensors").keys()


@pytest.mark.group
def test_turns_go_on_where_they_were_and_so_does_the_alarm(runs: Runs) -> None:
    (job, seen, _), (resumed, again, _) = runs["turning"], runs["turning-resumed"]
    assert seen.result.steps == 8
    assert_same_bits(weights_of(resumed), weights_of(job))
    gaps = {at.step: at.values for at in seen.reported if CACHE_OVERFIT in at.values}
    assert sorted(gaps) == [2, 4, 6, 8]
    later = {at.step: at.values for at in again.reported if CACHE_OVERFIT in at.values}
    assert later == {step: values for step, values in gaps.items() if step in later} and 4 in later
    losses = seen.values("train/divergence")
    for step, values in gaps.items():
        # All steps but every second one of two batches of seven and three texts.
        mean = (7 * losses[step - 2] + 3 * losses[step - 1]) / 10
        assert values["train/measured_divergence"] == pytest.approx(mean)
        assert values[CACHE_OVERFIT] == values["dev/divergence"] - values["train/measured_divergence"]


@pytest.mark.group
def test_a_resumed_general_stage_hides_the_same_tokens_and_ends_with_the_same_bits(runs: Runs) -> None:
    job, seen, other = runs["general"]
    stopped = runs["general-stopped"][1]
    assert seen.result.finished and not stopped.result.finished
    assert_same_bits(weights_of(runs["general-resumed"][0]), weights_of(job))
    assert seen.values("train/loss") == other.values("train/loss")
    measured = {name for metrics in seen.reported for name in metrics.values if name.startswith("dev/")}
    assert {"dev/ce", "dev/accuracy", "dev/divergence", "dev/hidden_mse", "dev/attention_mse"} <= measured


@pytest.mark.group
def test_training_lowers_the_loss_and_counts_what_it_read(runs: Runs) -> None:
    job, seen, _ = runs["bert"]
    losses = seen.values("dev/loss")
    assert losses[-1] < losses[0]
    train = ExampleSet.load(job.train_examples)
    read = task_batches(job.stage, examples=train, first=0, steps=seen.result.steps)
    assert seen.result.tokens == sum(int(train.lengths[rows].sum()) for rows in read)


@pytest.mark.group
def test_frozen_parts_do_not_change_by_a_bit(runs: Runs) -> None:
    job, *_ = runs["frozen"]
    before, after = load_file(job.model_dir / "model.safetensors"), weights_of(job)
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    assert changed == {name for name in before if ".layer.2." in name or "classifier" in name or "pooler" in name}


@pytest.mark.group
def test_adapters_are_merged_and_the_head_learned_whole(runs: Runs) -> None:
    job, *_ = runs["adapted"]
    before, after = load_file(job.model_dir / "model.safetensors"), weights_of(job)
    assert after.keys() == before.keys()
    changed = {name for name, weight in after.items() if not torch.equal(weight, before[name])}
    head = {name for name in before if "classifier" in name or "pooler" in name}
    assert changed == head | {
        name for name in before if ".layer." in name and name.endswith("weight") and "LayerNorm" not in name
    }
    assert "LoRA of rank 2" in (job.output_dir / "README.md").read_text(encoding="utf-8")


@pytest.mark.group
def test_activations_computed_twice_give_the_same_weights(runs: Runs) -> None:
    ours, theirs = (weights_of(runs[name][0]) for name in ("recomputed", "bert"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


@pytest.mark.group
def test_patience_ends_a_stage_with_its_best_weights(runs: Runs) -> None:
    job, seen, _ = runs["patient"]
    losses = dict(seen.result.dev_losses)
    best = seen.result.selected_step
    assert best == min(sorted(set(losses) - {0}), key=losses.__getitem__)
    assert seen.result.finished
    assert seen.result.steps == best + 3 < 12
    student = load_task_student(job.output_dir, kind=job.kind, labels=job.labels)
    assert job.dev_examples is not None
    found = dev_means(TaskModule(student, stage=job.stage), ExampleSet.load(job.dev_examples), related=1)
    assert found["loss"] == pytest.approx(losses[best], rel=1e-4)


@pytest.mark.group
def test_a_stage_that_was_stopped_loses_no_patience(runs: Runs) -> None:
    (_, stopped, _), (job, resumed, _), (calm, expected, _) = runs["stopped"], runs["resumed"], runs["patient"]
    assert not stopped.result.finished and stopped.result.steps == 2
    assert resumed.result.dev_losses == expected.result.dev_losses
    assert (resumed.result.steps, resumed.result.selected_step) == (
        expected.result.steps,
        expected.result.selected_step,
    )
    assert_same_bits(weights_of(job), weights_of(calm))


@pytest.mark.group
def test_a_step_with_a_belief_that_is_no_number_is_dropped_and_named(runs: Runs) -> None:
    job, seen, _ = runs["broken"]
    train = ExampleSet.load(job.train_examples)
    batches = list(task_batches(job.stage, examples=train, first=0, steps=seen.result.steps))
    hit = [step for step, rows in enumerate(batches, start=1) if 4 in rows]
    assert seen.result.skipped == len(hit) > 0
    rows = ", ".join(str(row) for row in batches[hit[0] - 1])
    assert f"step {hit[0]} was dropped: its gradient was not finite; it read examples {rows}" in seen.log
    assert all(torch.isfinite(weight).all() for weight in weights_of(job).values())


@pytest.mark.group
@pytest.mark.slow
@pytest.mark.parametrize(
    ("student", "inside"),
    [
        ("bert", None),
        ("llama", None),
        ("gru", None),
        ("deep-bag", None),
        ("bert", INSIDE),
        ("lstm", PROJECTED),
        ("lstm", RELATED),
    ],
    ids=["bert", "llama", "gru", "deep-bag", "inside", "projected", "related"],
)
def test_every_layout_equals_one_process(tmp_path: Path, student: str, inside: dict[str, Any] | None) -> None:
    base = make_task_job(tmp_path / "start", student=student, select="last")
    if inside is not None:
        base = taught_inside(base, tmp_path / "inside", **inside | {"select": "last"})
    room = {"micro_batch_tokens": 48} if base.stage.related > 1 else {}
    jobs = [task_variant(base, tmp_path / f"zero-{zero}", settings={"zero_stage": zero} | room) for zero in range(4)]
    weights, losses, _ = reference(base)
    for job, (seen, _) in zip(jobs, train_all(*((job, {}) for job in jobs), folder=tmp_path / "group"), strict=True):
        assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
        assert_close_to(weights, job)
