"""Whole stages: two real gloo processes, DeepSpeed, the cache, checkpoints and the export."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from group_worker import Ask, Trained
from safetensors.torch import load_file
from student_builders import PADDED, VOCAB
from torch import Tensor
from training_jobs import IDENTITY, STAGE, assert_same_bits, live, make_job, train_all, variant, weights_of
from transformers import AutoModelForCausalLM

from cache.batches import global_batches
from cache.records import TeacherRecord
from cache.store import TeacherCache
from cache.views import CacheView
from student_train.feed.microbatch import collate
from student_train.feed.steps import Feed
from student_train.job import TrainJob
from student_train.losses.metrics import SCORED_METRICS, TEXT_METRICS
from student_train.models.decoder import StudentModule, load_decoder
from student_train.scoring import score_view
from student_train.training.checkpoint import damaged
from student_train.training.deepspeed_engine import ADAM_BETAS, ADAM_EPS
from student_train.training.schedule import learning_rate
from student_train.training.sequences import SequenceLearner
from student_train.worker_group import WorkerGroup

pytestmark = pytest.mark.group

OVERSHOOT = {"epochs": None, "steps": 5, "learning_rate": 0.1, "schedule": "constant", "evaluate_every": 1}
"""Steps so large that the last one is not the best."""

SPOILT = OVERSHOOT | {"steps": 2, "warmup_steps": 0, "learning_rate": 3.0, "keep_start": True}
"""Steps that only make the student worse."""

BESIDE: list[dict[str, Any]] = [{"kind": "hidden_mse", "weight": 0.5}, {"kind": "attention_mse", "weight": 2.0}]
"""Of a teacher that reads beside the student: states through projections, and attention."""

Runs = dict[str, tuple[TrainJob, Trained, Trained]]
"""Jobs by name, with what each of two ranks saw of them."""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    folder = tmp_path_factory.mktemp("runs")
    calm = make_job(folder)
    many_steps = {"epochs": None, "steps": 20}
    taught = live(calm, folder / "live", features=BESIDE)
    jobs: dict[str, tuple[TrainJob, dict[str, Any]]] = {
        "calm": (calm, {}),
        "overshoot": (variant(calm, folder / "overshoot", stage=OVERSHOOT | {"select": "dev_kl"}), {}),
        "text": (variant(calm, folder / "text", stage=OVERSHOOT | {"objective": "seqkd"}), {}),
        "poisoned": (variant(calm, folder / "poisoned", stage=many_steps), {"poison": ("train", 0, 3)}),
        "spoilt": (variant(calm, folder / "spoilt", stage=SPOILT), {}),
        "adapted": (variant(calm, folder / "adapted", stage=OVERSHOOT | {"lora": {"rank": 4}}), {}),
        "recomputed": (variant(calm, folder / "recomputed", settings={"gradient_checkpointing": True}), {}),
        "unmeasurable": (variant(calm, folder / "unmeasurable"), {"poison": ("dev", 0, 0)}),
        "live": (taught, {}),
        "live-stopped": (variant(taught, folder / "live-stopped"), {"ask": Ask(after=3)}),
        "live-resumed": (variant(taught, folder / "live-stopped"), {}),
    }
    ended = train_all(*jobs.values(), folder=folder / "group")
    return {name: (job, *seen) for (name, (job, _)), seen in zip(jobs.items(), ended, strict=True)}


def open_views(job: TrainJob) -> tuple[TeacherCache, CacheView, CacheView]:
    assert job.dev_view is not None
    return TeacherCache.open(job.cache_root, IDENTITY), CacheView.load(job.train_view), CacheView.load(job.dev_view)


def mean_loss(module: torch.nn.Module, rows: list[TeacherRecord]) -> Tensor:
    tokens = sum(row.response_len for row in rows)
    loss: Tensor = module(replace(collate(rows, with_targets=True), per_text=tokens / len(rows)))[0]
    return loss / tokens


def reference(job: TrainJob) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """Plain torch on one process: weights, loss of each step and held-out losses at the start and the end."""
    cache, view, dev = open_views(job)
    first, second = (global_batches(view, seed=0, epoch=epoch, tokens_per_batch=60) for epoch in (0, 1))
    batches = [*first, *second[: -(-len(second) // 2)]]
    learner = SequenceLearner(job, group=WorkerGroup(0, 1, torch.device("cpu")))
    module = learner.module
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": STAGE.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=ADAM_EPS)

    held_out = next(cache.iter_blocks(dev, [np.arange(len(dev))]))
    dev_losses, losses = [float(mean_loss(module, held_out).detach())], []
    for step, rows in enumerate(cache.iter_blocks(view, batches)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, peak=3e-3, total_steps=len(batches), warmup_steps=2, schedule="cosine")
        optimiser.zero_grad()
        loss = mean_loss(module, rows)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, STAGE.gradient_clip)
        optimiser.step()
        losses.append(float(loss.detach()))
    dev_losses.append(float(mean_loss(module, held_out).detach()))
    return {name: value.detach() for name, value in learner.model.named_parameters()}, losses, dev_losses


@pytest.mark.parametrize("name", ["calm", "live"])
def test_two_processes_equal_one(runs: Runs, name: str) -> None:
    job, seen, other = runs[name]
    weights, losses, dev_losses = reference(job)
    result = seen.result
    assert result == other.result
    assert result.finished
    assert result.steps == len(losses) > 4
    assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
    held_out = dict(result.dev_losses)
    assert [held_out[0], held_out[result.steps]] == pytest.approx(dev_losses, rel=1e-4)
    assert result.selected_step == min(set(held_out) - {0}, key=held_out.__getitem__)
    for name, value in weights_of(job).items():
        # A hundredth of one step of Adam, which amplifies rounding where a gradient is near zero.
        torch.testing.assert_close(value, weights[name], rtol=0, atol=3e-5)


def test_projections_beside_a_teacher_are_resumed_and_not_exported(runs: Runs) -> None:
    (job, seen, _), (resumed, again, _) = runs["live"], runs["live-resumed"]
    assert runs["live-stopped"][1].result.steps == 3
    assert_same_bits(weights_of(resumed), weights_of(job))
    assert again.result.dev_losses == seen.result.dev_losses
    assert weights_of(job).keys() == load_file(job.model_dir / "model.safetensors").keys()
    known = set(seen.reported[-1].values)
    assert known - OF_THE_ALARM == {f"dev/{name}" for name in (*SCORED_METRICS, "hidden_mse", "attention_mse")}
    card = (job.output_dir / "README.md").read_text(encoding="utf-8")
    assert "from the teacher's own logits in every step; `hidden_mse`, its states (all), at weight 0.5" in card


def test_training_lowers_the_loss(runs: Runs) -> None:
    losses = runs["calm"][1].values("dev/loss")
    assert losses[-1] < losses[0]


OWN_TO_A_PROCESS = {"train/tokens_per_s", "train/data_wait_share", "train/memory_gib"}
OF_THE_ALARM = {"train/cache_overfit", "train/measured_divergence"}
"""What a measurement says of over-fitting, beside what it measures."""

OF_A_STEP = OWN_TO_A_PROCESS | {
    "train/learning_rate", "train/tokens", "train/padding_share", "train/skipped_steps", "train/grad_norm",
}  # fmt: skip


def test_every_process_reports_the_same_and_every_step_once(runs: Runs) -> None:
    _, first, second = runs["calm"]
    steps = [metrics.step for metrics in first.reported if "train/loss" in metrics.values]
    assert steps == list(range(1, first.result.steps + 1))
    for ours, theirs in zip(first.reported, second.reported, strict=True):
        assert ours.values.keys() == theirs.values.keys()
        shared = ours.values.keys() - OWN_TO_A_PROCESS
        assert {name: ours.values[name] for name in shared} == {name: theirs.values[name] for name in shared}


def test_names_and_ranges_of_the_metrics(runs: Runs) -> None:
    _, learned, _ = runs["calm"]
    train, dev = (
        [metrics.values for metrics in learned.reported if f"{split}/loss" in metrics.values]
        for split in ("train", "dev")
    )
    assert all(values.keys() == OF_A_STEP | {f"train/{name}" for name in SCORED_METRICS} for values in train)
    assert all(values.keys() - OF_THE_ALARM == {f"dev/{name}" for name in SCORED_METRICS} for values in dev)
    assert dev[-1].keys() >= OF_THE_ALARM
    for values in train:
        assert 0.0 <= values["train/data_wait_share"] <= 1.0
        assert 0.0 <= values["train/padding_share"] < 1.0
        assert 0.05 < values["train/memory_gib"] < 64.0
    _, text, _ = runs["text"]
    (known, *_) = [metrics.values for metrics in text.reported if "train/loss" in metrics.values]
    assert known.keys() == OF_A_STEP | {f"train/{name}" for name in TEXT_METRICS}


def test_the_padding_share_counts_what_the_model_computes_in_vain(runs: Runs) -> None:
    job, seen, _ = runs["calm"]
    cache, view, _ = open_views(job)
    share = seen.values("train/padding_share")[0]
    batch = global_batches(view, seed=0, epoch=0, tokens_per_batch=60)[0]
    made = [
        next(
            Feed(cache, view, WorkerGroup(rank, 2, torch.device("cpu")), 40, with_targets=True, packs=True).steps(
                [batch]
            )
        )
        for rank in range(2)
    ]
    computed = sum(micro.input_ids.numel() for step in made for micro in step.batches if len(micro.positions))
    fed = int((np.asarray(view.lengths)[batch] - 1).sum())
    assert share == pytest.approx(1 - fed / computed)


@pytest.mark.parametrize(
    ("name", "criterion"), [("overshoot", "dev/forward_kl"), ("text", "dev/loss"), ("adapted", "dev/loss")]
)
def test_the_student_is_the_best_on_the_held_out_split(runs: Runs, name: str, criterion: str) -> None:
    job, seen, _ = runs[name]
    values = {m.step: m.values[criterion] for m in seen.reported if criterion in m.values}
    assert list(values) == list(range(6))
    best = min(range(1, 6), key=values.__getitem__)
    assert seen.result.selected_step == best
    assert best < 5 or name == "adapted"
    decoder = load_decoder(job.output_dir, dtype=torch.float32)
    module = StudentModule(decoder, stage=job.stage, vocab=PADDED)
    cache, _, dev = open_views(job)
    with torch.no_grad():
        loss = mean_loss(module, next(cache.iter_blocks(dev, [np.arange(len(dev))])))
    # The loss of a distilling stage without a share of cross-entropy is the divergence itself.
    assert float(loss) == pytest.approx(values[best], rel=1e-5)
    card = (job.output_dir / "README.md").read_text(encoding="utf-8")
    assert f"the weights after step {best} (`select: {job.stage.select}`)" in card
    assert f"| {criterion} | {values[0]:.4f} | {values[best]:.4f} |" in card


def test_adapters_leave_a_plain_model_behind(runs: Runs) -> None:
    job, *_ = runs["adapted"]
    ours, start = weights_of(job), load_file(job.model_dir / "model.safetensors")
    assert ours.keys() == start.keys()
    changed = {name for name, value in ours.items() if not torch.equal(value, start[name])}
    assert changed == {name for name in start if "_proj." in name}
    assert "LoRA of rank 4 and alpha 32, merged" in (job.output_dir / "README.md").read_text(encoding="utf-8")


def test_activations_computed_twice_give_the_same_weights(runs: Runs) -> None:
    ours, theirs = (weights_of(runs[name][0]) for name in ("recomputed", "calm"))
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=0, atol=1e-6)


def test_a_poisoned_rank_stops_all_of_them_with_the_checkpoint_kept(runs: Runs) -> None:
    job, first, second = runs["poisoned"]
    assert first.ended == second.ended
    said, _, named = str(first.ended).partition("the last checkpoint is ")
    assert said.startswith("TrainingError: no finite gradient in the 10 steps up to 13")
    # It was begun at step 12 at the latest, beside the steps after it, and was waited for.
    kept, latest = max(job.work_dir.glob("step-*")), job.work_dir / "step-000000012"
    assert kept == Path(named) and kept <= latest
    assert damaged(kept) is None
    assert not job.output_dir.exists()
    assert first.values("train/skipped_steps") == [0.0] * 3 + [float(n) for n in range(1, 11)]
    # What was learned before is what the checkpoint holds: nothing broken reached a weight.
    assert all(math.isfinite(value) for value in first.values("train/loss"))
    _, view, _ = open_views(job)
    batch = global_batches(view, seed=0, epoch=0, tokens_per_batch=60)[3]
    keys = ", ".join(view.keys[row].tobytes().hex()[:12] for row in batch)
    warning = f"step 4 was dropped: its gradient was not finite; it read records {keys}"
    assert [line for line in first.log if line.startswith("step 4 ")] == [warning]
    assert [line for line in second.log if line.startswith("step 4 ")] == [warning]


def test_a_start_that_no_step_made_better_is_kept(runs: Runs) -> None:
    job, seen, _ = runs["spoilt"]
    losses = dict(seen.result.dev_losses)
    assert min(losses[1], losses[2]) > losses[0]
    assert seen.result.selected_step == 0
    assert_same_bits(weights_of(job), load_file(job.model_dir / "model.safetensors"))


def test_a_held_out_loss_that_is_not_a_number_is_reported_and_never_selected(runs: Runs) -> None:
    job, seen, _ = runs["unmeasurable"]
    assert all(math.isnan(loss) for loss in seen.values("dev/loss"))
    assert seen.result.finished
    assert seen.result.selected_step == seen.result.steps
    assert_same_bits(weights_of(job), weights_of(runs["calm"][0]))
    assert all(math.isnan(loss) for _, loss in json.loads(json.dumps(seen.result.dev_losses)))


def test_the_export_is_a_plain_model(runs: Runs) -> None:
    job, *_ = runs["calm"]
    model = AutoModelForCausalLM.from_pretrained(job.output_dir)
    assert model.dtype == torch.float32
    assert json.loads((job.output_dir / "config.json").read_text(encoding="utf-8"))["dtype"] == "float32"
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (job.output_dir / name).read_bytes() == (job.model_dir / name).read_bytes()


def test_the_card_says_where_the_student_comes_from(runs: Runs) -> None:
    job, seen, _ = runs["calm"]
    _, front, card = (job.output_dir / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "a made-up teacher",
        "library_name": "transformers",
        "license": "apache-2.0",
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "stillroom", "kd"],
    }
    _, view, _ = open_views(job)
    for text in (
        "a made-up teacher",
        "Apache-2.0",
        "Start: three random layers",
        view.digest,
        f"train, 16 sequences with {view.response_tokens} response tokens",
        "`kd`, forward_kl with tail bucket, temperature 1.0, ce_weight 0.0, on teacher answers",
        f"Trained for {seen.result.steps} steps",
        f"the weights after step {seen.result.selected_step} (`select: dev_loss`)",
        "learning_rate 0.003, schedule cosine, warmup_steps 2",
        "seed 0, dtype float32",
        f"Made with Stillroom {version('stillroom')}",
        f"| dev/loss | {seen.values('dev/loss')[0]:.4f} | {seen.values('dev/loss')[-1]:.4f} |",
    ):
        assert text in card


def test_the_held_out_loss_is_that_of_the_scores(runs: Runs) -> None:
    job, seen, _ = runs["calm"]
    cache, _, dev = open_views(job)
    divergence = 0.0
    for row in score_view(job.output_dir, cache=cache, view=dev, vocab=VOCAB, tokens_per_batch=30):
        record = row.record
        assert record.topk_logprobs is not None and record.tail_logmass is not None
        p, tail = record.topk_logprobs.astype(float), record.tail_logmass.astype(float)
        divergence += float(
            (np.exp(p) * (p - row.topk_logprobs)).sum() + (np.exp(tail) * (tail - row.tail_logmass)).sum()
        )
    # The same number as the trainer's own held-out loss, by another road.
    result = seen.result
    assert divergence / dev.response_tokens == pytest.approx(dict(result.dev_losses)[result.steps], rel=1e-3)


@pytest.mark.slow
def test_every_layout_beside_a_teacher_equals_one_process(tmp_path: Path) -> None:
    base = make_job(tmp_path / "start")
    jobs = [live(base, tmp_path / f"zero-{zero}", features=BESIDE, zero_stage=zero) for zero in range(4)]
    jobs.append(live(base, tmp_path / "offloaded", features=BESIDE, zero_stage=3, offload="all"))
    weights, losses, _ = reference(jobs[0])
    for job, (seen, _) in zip(jobs, train_all(*((job, {}) for job in jobs), folder=tmp_path / "group"), strict=True):
        assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
        for name, value in weights_of(job).items():
            torch.testing.assert_close(value, weights[name], rtol=0, atol=3e-5, msg=name)


@pytest.mark.slow
def test_ten_lost_steps_in_a_row_end_the_training(tmp_path: Path) -> None:
    stage = {"epochs": None, "steps": 30, "learning_rate": 1e30, "schedule": "constant", "warmup_steps": 0}
    job = variant(make_job(tmp_path), tmp_path / "lost", stage=stage)
    ((first, second),) = train_all((job, {}), folder=tmp_path / "group")
    assert first.ended == second.ended
    assert str(first.ended).startswith("TrainingError: no finite gradient in the 10 steps up to 11")
    assert first.values("train/skipped_steps")[-1] == 10.0
    assert not job.output_dir.exists()
