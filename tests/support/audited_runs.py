"""Finished runs to audit: real models, caches and views; students that learned by heart, or that learned nothing.

Nothing of Ray, vLLM or DeepSpeed is started: engines answer as `FakeTeacher` does, and a student that learns does so by
a few steps of Adam in this process.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from belief_builders import random_beliefs
from pipeline_builders import KD, SHAPE, FakeRun, fake_run, go
from transformers import AutoModelForCausalLM

from cache import ScoreRequest
from cache.opening import open_rows
from configs import DistillError, dump_config
from configs.places import RESOLVED, WRITTEN
from evaluation.closeness import closeness_of
from evaluation.results import Closeness
from evaluation.side_effects.findings import Audit, Finding
from orchestration.cluster.scoring import ScoringJob
from student_train.feed.retokenised import Retokenised
from student_train.job import TrainJob

ROOMY = SHAPE.model_copy(update={"hidden": 64, "mlp": 128})
"""Large enough to learn a hundred short answers by heart."""


class Unseen:
    """Progress that nobody watches."""

    def update(self, done: float, *, tokens: int | None = None, note: str = "") -> None:
        """Nothing is shown."""


def found_in(audit: Audit, instrument: str, *, model: str = "kd") -> Finding:
    """What an instrument found of a model."""
    (finding,) = (each for each in audit.findings if each.instrument == instrument and each.model == model)
    return finding


def write_rows(root: Path, *, train: int, dev: int, test: int, answers: bool = False) -> None:
    """Rows that differ in nothing but their split; with `answers` each has a gold one."""
    random = np.random.default_rng(0)
    numbers = iter(random.permutation(1000).tolist())
    for split, count in {"train": train, "dev": dev, "test": test}.items():
        rows = [{"prompt": f"say {next(numbers)}"} for _ in range(count)]
        if answers:
            rows = [row | {"response": "".join(random.choice(list("abcdefghijklmnopqrst"), 5))} for row in rows]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def audited_run(root: Path, *, by_heart: bool, **blocks: Any) -> Path:
    """The directory of a finished run below `root`, whose rows are written already (`write_rows`).

    With `by_heart` each student knows its training rows afterwards; else it is what it began as.
    """
    students = {"kd": {"init": {"keep_layers": 1}, "stages": [{**KD, "steps": 400}]}}
    teacher = {"model": {"random": ROOMY.model_dump(), "seed": 0}, "dtype": "float32", "top_k": 4}
    run = fake_run(root, **({"students": students, "teacher": teacher} | blocks))
    run.compute.score = _score  # type: ignore[method-assign]
    if by_heart:
        _teach(run)
    assert go(run) is not None
    directory = run.settings.directory
    for name in (WRITTEN, RESOLVED):
        (directory / name).write_text(dump_config(run.config))
    return directory


def _score(jobs: list[ScoringJob]) -> list[Closeness | DistillError]:
    """Made-up beliefs at as many answers as there are."""
    views = [open_rows(job.view, root=job.cache_root, identity=job.identity)[0] for job in jobs]
    return [closeness_of([random_beliefs(at, rows=5) for at in range(len(view))]) for view in views]


def _teach(run: FakeRun) -> None:
    """Have every training really train."""
    train = run.compute.train

    def train_and_learn(job: TrainJob, **handles: Any) -> dict[str, object]:
        train(job, **handles)
        learn_by_heart(job.output_dir, _rows_of(job))
        return {"selected_step": job.stage.steps}

    run.compute.train = train_and_learn  # type: ignore[method-assign, assignment]


def _rows_of(job: TrainJob) -> list[ScoreRequest]:
    """What a training reads, in the tokens of its student."""
    if job.retokenised:
        read = Retokenised.load(job.train_view)
        rows = np.split(read.token_ids, read.token_offsets[1:-1])
        return [ScoreRequest(tuple(ids.tolist()), int(at)) for ids, at in zip(rows, read.prompt_len, strict=True)]
    view, reader = open_rows(job.train_view, root=job.cache_root, identity=job.identity)
    (records,) = reader.iter_blocks(view, [np.arange(len(view))])
    return [ScoreRequest(tuple(each.token_ids.tolist()), each.prompt_len) for each in records]


def learn_by_heart(model_dir: Path, sequences: list[ScoreRequest], *, steps: int = 200, lr: float = 1e-2) -> None:
    """Train the model of a directory on the answers of these sequences until it knows them, and save it there."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32)
    longest = max(len(each.token_ids) for each in sequences)
    ids = torch.zeros((len(sequences), longest), dtype=torch.long)
    labels = torch.full_like(ids, -100)
    for row, each in enumerate(sequences):
        ids[row, : len(each.token_ids)] = torch.tensor(each.token_ids)
        labels[row, each.prompt_len : len(each.token_ids)] = torch.tensor(each.token_ids[each.prompt_len :])
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    for _ in range(steps):
        optimiser.zero_grad()
        model(input_ids=ids, labels=labels).loss.backward()
        optimiser.step()
    model.save_pretrained(model_dir)
