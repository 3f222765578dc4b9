"""A stage of training small enough for tests, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from group_worker import Trained, run_group
from safetensors.torch import load_file
from student_builders import VOCAB, records, tiny_llama
from torch import Tensor

from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.records import TeacherRecord
from cache.store import TeacherCache
from configs.architecture import read_text_model
from configs.schema import TrainingSettings
from configs.stages import StageConfig
from student_train.job import StageJob, TaughtInside, TrainJob

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
    views = {"train": [keyed(row) for row in records(16, seed=1)], "dev": [keyed(row) for row in records(5, seed=2)]}
    cache = TeacherCache.open(folder / "cache", IDENTITY)
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
        start="three random layers",
    )


def variant(
    job: TrainJob,
    folder: Path,
    *,
    stage: dict[str, Any] | None = None,
    settings: dict[str, Any] | None = None,
) -> TrainJob:
    """The same start and data in directories of its own, with other fields of the stage and the settings."""
    return replace(
        job,
        stage=StageConfig.model_validate(job.stage.model_dump() | (stage or {})),
        settings=TrainingSettings.model_validate(job.settings.model_dump() | (settings or {})),
        work_dir=folder / "work",
        output_dir=folder / "student",
    )


def live(job: TrainJob, folder: Path, *, features: Sequence[dict[str, Any]], **settings: Any) -> TrainJob:
    """The job beside a teacher at hand: one of another width and of more layers, which is asked afresh in every step."""
    directory = tiny_llama(folder / "teacher", seed=9, hidden=48, layers=4)
    taught = TaughtInside(directory, "identity", "float32", read_text_model(directory).inside)
    made = variant(job, folder, stage={"teacher": "live", "features": list(features)}, settings=settings)
    return replace(made, taught=taught)


def train_all(*jobs: tuple[StageJob, dict[str, Any]], folder: Path, workers: int = 2) -> list[tuple[Trained, ...]]:
    """Train one job after the other in one worker group; for each what every rank saw of it."""
    by_rank = run_group("train_all", {"jobs": list(jobs)}, folder=folder, world_size=workers)
    return list(zip(*by_rank, strict=True))


def weights_of(job: StageJob) -> dict[str, Tensor]:
    return load_file(job.output_dir / "model.safetensors")


def assert_same_bits(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], value) for name, value in theirs.items())
