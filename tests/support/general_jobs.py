"""Plain texts, tiny encoders that guess hidden tokens, and their trainings on such texts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from model_cards import save_card
from task_jobs import set_dropout
from task_students import WORDS, save_tokenizer, transformer_config
from transformers import AutoModel, AutoModelForMaskedLM, AutoTokenizer

from configs.schema import TrainingSettings
from configs.task_stages import TaskStageConfig
from student_train.feed.examples import ExampleSet
from student_train.job import GeneralJob, TaughtInside
from student_train.models.task_model import stored_inside

MASK = "w29"
"""The word of the tiny vocabulary that stands for hidden ones."""

GENERAL_STAGE: dict[str, Any] = {
    "objective": "masked_lm",
    "data": ["plain"],
    "lm_weight": 2.0,
    "soft_weight": 5.0,
    "temperature": 2.0,
    "features": [
        {"kind": "cosine"},
        {"kind": "hidden_mse", "weight": 0.5},
        {"kind": "attention_mse"},
        {"kind": "patient", "layers": [[1, 2]]},
    ],
    "epochs": 1.5,
    "batch_size": 7,
    "learning_rate": 3e-3,
    "warmup_steps": 2,
    "weight_decay": 0.1,
    "select": "last",
}
"""Everything that a general stage may learn at once."""


def save_encoder(
    place: Path, *, family: str = "bert", layers: int = 3, seed: int = 1, guesses: bool = True, **sizes: Any
) -> Path:
    """An encoder with the head of a masked language model, or without; its tokenizer has a mask token."""
    config = transformer_config(family, layers=layers)
    for name, value in sizes.items():
        setattr(config, name, value)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = (AutoModelForMaskedLM if guesses else AutoModel).from_config(config)
        with torch.no_grad():
            for weight in model.parameters():
                if weight.dim() == 1:
                    weight.add_(0.1 * torch.randn_like(weight))
    model.save_pretrained(place)
    save_tokenizer(place, family=family)
    tokenizer = AutoTokenizer.from_pretrained(place)
    tokenizer.mask_token = MASK
    tokenizer.save_pretrained(place)
    return save_card(place)


def plain_examples(count: int, *, seed: int) -> ExampleSet:
    """Texts of 3 to 23 tokens behind [CLS], every one of which may be hidden; each follows from the one before."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(4, 25, size=count)
    ids = []
    for length in lengths:
        first = int(draw.integers(4, 30))
        ids += [WORDS.index("[CLS]"), *(4 + (first + 3 * np.arange(length - 1)) % 25)]
    units = lengths - 1
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    unit_tokens = np.concatenate([np.arange(1, length) for length in lengths])
    token_ids = np.array(ids, dtype=np.int32)
    return ExampleSet(
        kind="tagging",
        labels=WORDS,
        token_ids=token_ids,
        token_offsets=offsets,
        split=lengths.astype(np.int32),
        unit_offsets=np.concatenate([[0], np.cumsum(units)]).astype(np.int64),
        unit_tokens=unit_tokens.astype(np.int32),
        gold=token_ids[np.repeat(offsets[:-1], units) + unit_tokens].astype(np.int32),
        teacher=None,
    )


def make_general_job(folder: Path, *, dropout: float = 0.0, **stage: Any) -> GeneralJob:
    """A student of two layers, half as wide as its teacher of three: 30 texts to learn from, 12 held out."""
    # Not half the heads: attention is compared one by one.
    student = save_encoder(folder / "start", layers=2, hidden_size=8, intermediate_size=12)
    set_dropout(student, dropout)
    teacher = save_encoder(folder / "teacher", seed=9)
    plain_examples(30, seed=1).save(folder / "train.safetensors")
    plain_examples(12, seed=2).save(folder / "dev.safetensors")
    made = {**GENERAL_STAGE, **stage}
    if "features" not in stage:
        made["features"] = [term for term in made["features"] if term["kind"] in ("hidden_mse", "attention_mse")]
    return GeneralJob(
        stage=TaskStageConfig.model_validate(made),
        settings=TrainingSettings(workers=2, zero_stage=2, micro_batch_tokens=48, checkpoint_every_s=1e-9),
        model_dir=student,
        train_examples=folder / "train.safetensors",
        dev_examples=folder / "dev.safetensors",
        work_dir=folder / "work",
        output_dir=folder / "student",
        kind="tagging",
        labels=WORDS,
        sets={"plain": 30},
        accelerator="cpu",
        teacher="a made-up teacher",
        licence="Apache-2.0",
        start="two random layers",
        taught=TaughtInside(teacher, "identity", "float32", stored_inside(teacher)),
    )


def general_variant(job: GeneralJob, folder: Path, *, zero: int | None = None, **stage: Any) -> GeneralJob:
    """The same start and texts in directories of its own, with other fields of the stage, or another ZeRO stage."""
    settings = job.settings if zero is None else job.settings.model_copy(update={"zero_stage": zero})
    return replace(
        job,
        stage=TaskStageConfig.model_validate(job.stage.model_dump() | stage),
        settings=settings,
        work_dir=folder / "work",
        output_dir=folder / "student",
    )
