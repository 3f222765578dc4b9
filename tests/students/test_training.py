"""Whole stages: two real gloo processes, DeepSpeed, the cache, checkpoints and the export."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gang_worker import run_gang
from safetensors.torch import load_file
from student_builders import VOCAB, records, tiny_llama
from torch import Tensor
from transformers import AutoModelForCausalLM

from cache.batches import global_batches
from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.records import TeacherRecord
from cache.store import TeacherCache
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.batching import collate
from student_train.deepspeed_engine import ADAM_BETAS, ADAM_EPS
from student_train.held_out import score_view
from student_train.job import StepMetrics, TrainJob, TrainResult
from student_train.model import StudentModule, load_decoder
from student_train.schedule import learning_rate

IDENTITY = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)
STAGE = StageConfig(
    objective="kd",
    epochs=1.5,
    dtype="float32",
    learning_rate=3e-3,
    warmup_steps=2,
    weight_decay=0.1,
    tokens_per_step=60,
)
SETTINGS = TrainingSettings(workers=2, zero_stage=2, micro_batch_tokens=40, checkpoint_every_s=1e-9)


def keyed(record: TeacherRecord) -> TeacherRecord:
    return replace(record, key=sequence_key(IDENTITY.digest(), record.token_ids, record.prompt_len))


def make_job(folder: Path) -> TrainJob:
    """A tiny student, sixteen training rows and five held-out ones."""
    cache = TeacherCache.open(folder / "cache", IDENTITY)
    views = {"train": [keyed(row) for row in records(16, seed=1)], "dev": [keyed(row) for row in records(5, seed=2)]}
    for name, rows in views.items():
        cache.put(rows, vocab=VOCAB)
        cache.view([row.key for row in rows], dataset=name, k=8).save(folder / f"{name}.view")
    return TrainJob(
        stage=STAGE,
        settings=SETTINGS,
        model_dir=tiny_llama(folder / "start"),
        cache_root=folder / "cache",
        identity=IDENTITY,
        train_view=folder / "train.view",
        dev_view=folder / "dev.view",
        work_dir=folder / "work",
        output_dir=folder / "student",
        vocab=VOCAB,
        accelerator="cpu",
        teacher="a made-up teacher",
        licence="Apache-2.0",
    )


def train(job: TrainJob, *, folder: Path, workers: int = 2, **extra: Any) -> list[tuple[Any, list[StepMetrics]]]:
    dies = extra.get("die_at") is not None
    args = {"job": job, "stop_at": None, "die_at": None} | extra
    return run_gang("train", args, folder=folder, world_size=workers, dies=dies)


def weights_of(job: TrainJob) -> dict[str, Tensor]:
    return load_file(job.output_dir / "model.safetensors")


@pytest.fixture(scope="module")
def undisturbed(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[TrainJob, list[tuple[TrainResult, list[StepMetrics]]]]:
    folder = tmp_path_factory.mktemp("undisturbed")
    job = make_job(folder)
    return job, train(job, folder=folder / "gang")


Run = tuple[TrainJob, list[tuple[TrainResult, list[StepMetrics]]]]


def open_views(job: TrainJob) -> tuple[TeacherCache, Any, Any]:
    from cache.views import CacheView

    assert job.dev_view is not None
    return TeacherCache.open(job.cache_root, IDENTITY), CacheView.load(job.train_view), CacheView.load(job.dev_view)


def reference(job: TrainJob) -> tuple[dict[str, Tensor], list[float], list[float]]:
    """Plain torch on one process: weights, loss of each step and held-out losses at the start and the end."""
    cache, view, dev = open_views(job)
    first, second = (global_batches(view, seed=0, epoch=epoch, tokens_per_batch=60) for epoch in (0, 1))
    batches = [*first, *second[: -(-len(second) // 2)]]
    decoder = load_decoder(job.model_dir, dtype=torch.float32)
    module = StudentModule(decoder, stage=STAGE, vocab=VOCAB)
    parameters = list(module.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": STAGE.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    optimiser = torch.optim.AdamW(groups, betas=ADAM_BETAS, eps=ADAM_EPS)

    def mean(rows: list[TeacherRecord]) -> Tensor:
        loss: Tensor = module(collate(rows, with_targets=True))[0]
        return loss / sum(row.response_len for row in rows)

    held_out = next(cache.iter_blocks(dev, [np.arange(len(dev))]))
    dev_losses, losses = [float(mean(held_out).detach())], []
    for step, rows in enumerate(cache.iter_blocks(view, batches)):
        for group in optimiser.param_groups:
            group["lr"] = learning_rate(step, peak=3e-3, total_steps=len(batches), warmup_steps=2, schedule="cosine")
        optimiser.zero_grad()
        loss = mean(rows)
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, STAGE.gradient_clip)
        optimiser.step()
        losses.append(float(loss.detach()))
    dev_losses.append(float(mean(held_out).detach()))
    return {name: value.detach() for name, value in decoder.model.named_parameters()}, losses, dev_losses


def test_two_processes_equal_one(undisturbed: Run) -> None:
    job, ((result, reported), (other, _)) = undisturbed
    weights, losses, dev_losses = reference(job)
    assert result == other
    assert result.finished
    assert result.steps == len(losses) > 4
    shown = [metrics.values["train/loss"] for metrics in reported if "train/loss" in metrics.values]
    assert shown == pytest.approx(losses, rel=1e-4)
    held_out = dict(result.dev_losses)
    assert sorted(held_out) == [0, result.steps // 2, result.steps]
    assert [held_out[0], held_out[result.steps]] == pytest.approx(dev_losses, rel=1e-4)
    for name, value in weights_of(job).items():
        # A hundredth of one step of Adam, which amplifies rounding where a gradient is near zero.
        torch.testing.assert_close(value, weights[name], rtol=0, atol=3e-5)


def test_training_lowers_the_loss(undisturbed: Run) -> None:
    _, ((_, reported), _) = undisturbed
    losses = [metrics.values["train/loss"] for metrics in reported if "train/loss" in metrics.values]
    assert losses[-1] < losses[0]


def test_every_process_reports_the_same_and_every_step_once(undisturbed: Run) -> None:
    _, ((result, first), (_, second)) = undisturbed
    assert [metrics.step for metrics in first if "train/loss" in metrics.values] == list(range(1, result.steps + 1))
    for ours, theirs in zip(first, second, strict=True):
        speed = "train/tokens_per_s"
        assert {**ours.values, speed: 0.0} == {**theirs.values, speed: 0.0}


def test_the_export_is_a_plain_model(undisturbed: Run) -> None:
    job, ((result, _), _) = undisturbed
    model = AutoModelForCausalLM.from_pretrained(job.output_dir)
    assert model.dtype == torch.float32
    assert model.lm_head.weight is model.model.embed_tokens.weight
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        assert (job.output_dir / name).read_bytes() == (job.model_dir / name).read_bytes()
    card = (job.output_dir / "README.md").read_text(encoding="utf-8")
    _, view, _ = open_views(job)
    for text in ("a made-up teacher", "Apache-2.0", view.digest, "`kd`", f"{result.steps} steps"):
        assert text in card


def test_held_out_scores_equal_the_plain_model(undisturbed: Run) -> None:
    job, ((result, _), _) = undisturbed
    cache, _, dev = open_views(job)
    model = AutoModelForCausalLM.from_pretrained(job.output_dir)
    rows = list(score_view(job.output_dir, cache=cache, view=dev, vocab=VOCAB, tokens_per_batch=30))
    assert len(rows) == len(dev)
    divergence = 0.0
    for at, row in enumerate(rows):
        record = row.record
        assert record.key == dev.keys[at].tobytes()
        with torch.no_grad():
            logits = model(torch.from_numpy(record.token_ids).long()[None]).logits[0, :, :VOCAB]
        q = logits.double().log_softmax(1)[record.prompt_len - 1 : -1].numpy()
        here = np.arange(record.response_len)
        assert record.topk_ids is not None and record.topk_logprobs is not None and record.tail_logmass is not None
        np.testing.assert_allclose(row.topk_logprobs, np.take_along_axis(q, record.topk_ids, axis=1), atol=1e-4)
        np.testing.assert_allclose(row.target_logprobs, q[here, record.response_ids], atol=1e-4)
        np.testing.assert_array_equal(row.argmax_ids, q.argmax(axis=1))
        np.testing.assert_allclose(row.entropy, -(np.exp(q) * q).sum(axis=1), atol=1e-4)
        outside = 1 - np.exp(np.take_along_axis(q, record.topk_ids, axis=1)).sum(axis=1)
        np.testing.assert_allclose(np.exp(row.tail_logmass), outside, atol=1e-5)
        p, tail = record.topk_logprobs.astype(float), record.tail_logmass.astype(float)
        divergence += float(
            (np.exp(p) * (p - row.topk_logprobs)).sum() + (np.exp(tail) * (tail - row.tail_logmass)).sum()
        )
    # The same number as the trainer's own held-out loss, by another road.
    assert divergence / dev.response_tokens == pytest.approx(dict(result.dev_losses)[result.steps], rel=1e-3)


@pytest.mark.slow
def test_killed_and_resumed_gives_the_same_bits(undisturbed: Run, tmp_path: Path) -> None:
    calm, ((expected, smooth), _) = undisturbed
    job = replace(calm, work_dir=tmp_path / "work", output_dir=tmp_path / "student")
    train(job, folder=tmp_path / "killed", die_at=4)
    assert not job.output_dir.exists()
    (result, reported), _ = train(job, folder=tmp_path / "resumed")
    # Step 4 was computed but not saved. What step 3 reported may never have arrived, so it comes again.
    assert [metrics.step for metrics in reported] == [metrics.step for metrics in smooth if metrics.step >= 3]
    assert result.tokens == expected.tokens
    assert result.dev_losses == expected.dev_losses
    ours, theirs = weights_of(job), weights_of(calm)
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_stopped_and_resumed_gives_the_same_bits_at_every_zero_stage(undisturbed: Run, tmp_path: Path) -> None:
    cases = [(zero, dtype) for zero in range(4) for dtype in ("float32", "bfloat16")]
    jobs = []
    for zero, dtype in cases:
        settings = SETTINGS.model_copy(update={"zero_stage": zero, "checkpoint_every_s": 1e6})
        base = replace(undisturbed[0], settings=settings, stage=STAGE.model_copy(update={"dtype": dtype}))
        calm, cut = (
            replace(
                base, work_dir=tmp_path / f"{zero}-{dtype}-{name}-work", output_dir=tmp_path / f"{zero}-{dtype}-{name}"
            )
            for name in ("calm", "cut")
        )
        jobs += [(calm, None), (cut, 3), (cut, None)]
    ended = [result for result, _ in run_gang("train_again", {"jobs": jobs}, folder=tmp_path / "gang", world_size=2)[0]]
    for at, (_, dtype) in enumerate(cases):
        calm_end, stopped, resumed = ended[3 * at : 3 * at + 3]
        assert not stopped.finished
        assert stopped.steps == 3
        assert resumed.finished
        assert resumed.dev_losses == calm_end.dev_losses
        theirs, ours = weights_of(jobs[3 * at][0]), weights_of(jobs[3 * at + 2][0])
        assert {str(value.dtype) for value in ours.values()} == {f"torch.{dtype}"}
        assert all(torch.equal(ours[name], value) for name, value in theirs.items())


@pytest.mark.slow
def test_text_objectives_train(undisturbed: Run, tmp_path: Path) -> None:
    stage = StageConfig(objective="seqkd", steps=6, dtype="bfloat16", learning_rate=3e-3, tokens_per_step=60)
    job = replace(undisturbed[0], stage=stage, work_dir=tmp_path / "work", output_dir=tmp_path / "student")
    (result, reported), _ = train(job, folder=tmp_path / "gang")
    assert result.finished
    losses = [metrics.values["train/loss"] for metrics in reported if "train/loss" in metrics.values]
    assert losses[-1] < losses[0]
    assert {str(value.dtype) for value in weights_of(job).values()} == {"torch.bfloat16"}


@pytest.mark.slow
def test_ten_lost_steps_in_a_row_end_the_training(undisturbed: Run, tmp_path: Path) -> None:
    stage = StageConfig(
        objective="kd", steps=30, dtype="float32", learning_rate=1e30, schedule="constant", tokens_per_step=60
    )
    job = replace(undisturbed[0], stage=stage, work_dir=tmp_path / "work", output_dir=tmp_path / "student")
    for ended, reported in train(job, folder=tmp_path / "gang"):
        assert ended.startswith("TrainingError: no finite gradient in the 10 steps up to 11")
        assert reported[-1].values["train/skipped_steps"] == 10.0
    assert not job.output_dir.exists()
