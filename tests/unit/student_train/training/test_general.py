"""General stages: what the loop is given, and whole stages in two real gloo processes under DeepSpeed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from general_jobs import MASK, general_variant, make_general_job, plain_examples, save_encoder
from one_process import learn_alone
from task_students import WORDS, save_tokenizer
from torch import Tensor
from training_jobs import train_all
from transformers import AutoTokenizer

from configs.errors import ModelError
from student_train.feed.task_steps import batches_an_epoch
from student_train.job import GeneralJob
from student_train.models.general_student import load_general_student
from student_train.training.general import GeneralLearner, hiding_of
from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker
from student_train.worker_group import WorkerGroup

ALONE = WorkerGroup(0, 1, torch.device("cpu"))
FEATURES_ALONE = {
    "objective": "features", "lm_weight": 1.0, "soft_weight": 0.0, "temperature": 1.0,
    "features": [{"kind": "hidden_mse"}, {"kind": "attention_mse"}],
}  # fmt: skip


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> GeneralJob:
    return make_general_job(tmp_path_factory.mktemp("job"))


def worker(job: GeneralJob, learner: GeneralLearner) -> StageWorker:
    """A process whose engine is asked for nothing."""
    stop = StopRequest(lambda: False, group=ALONE)
    return StageWorker(job=job, group=ALONE, engine=object(), model=learner.model, stop=stop)  # type: ignore[arg-type]


def test_steps_hide_other_tokens_in_every_epoch_and_the_same_after_a_resume(job: GeneralJob) -> None:
    job = general_variant(job, job.work_dir, epochs=2.0)
    learner = GeneralLearner(job, group=ALONE)
    steps = [step for step in learner.steps(worker(job, learner), first=0) if step]
    each = batches_an_epoch(job.stage, examples=plain_examples(30, seed=1))
    assert len(steps) == learner.total_steps == 2 * each
    assert set(steps[0].known) == {
        "loss", "ce", "accuracy", "divergence", "agreement", "hidden_mse", "attention_mse"
    }  # fmt: skip
    rest = [step for step in learner.steps(worker(job, learner), first=3) if step]
    for one, other in zip(steps[3:], rest, strict=True):
        assert one.rows == other.rows and one.places == other.places
        assert all(
            torch.equal(a.input_ids, b.input_ids) and torch.equal(a.units, b.units)
            for a, b in zip(one.batches, other.batches, strict=True)  # type: ignore[union-attr]
        )
    assert hidden(steps[:each]) != hidden(steps[each:])


def hidden(steps: list) -> list[list[int]]:  # type: ignore[type-arg]
    """What stood at the hidden tokens of each text, text by text."""
    found: dict[tuple[int, ...], list[int]] = {}
    for step in steps:
        for batch in step.batches:
            for row in range(batch.texts):
                found[tuple(batch.attention_mask[row].tolist()), row] = batch.gold[batch.owner == row].tolist()
    return sorted(found.values())


def test_features_alone_read_texts_as_they_stand_and_leave_heads_alone(job: GeneralJob, tmp_path: Path) -> None:
    bare = replace(
        general_variant(job, tmp_path, **FEATURES_ALONE),
        model_dir=save_encoder(tmp_path / "bare", layers=2, guesses=False),
    )
    for each in (bare, replace(bare, model_dir=job.model_dir)):
        learner = GeneralLearner(each, group=ALONE)
        step = next(iter(learner.steps(worker(each, learner), first=0)))
        assert step is not None
        assert set(step.known) == {"loss", "hidden_mse", "attention_mse"}
        mask = WORDS.index(MASK)
        assert not any((batch.input_ids == mask).any() for batch in step.batches)  # type: ignore[union-attr]
        fixed = {name for name, weight in learner.module.named_parameters() if not weight.requires_grad}
        assert fixed and all("pooler" in name or "cls.predictions" in name for name in fixed)


def test_a_text_that_is_longer_than_the_student_reads_is_refused(job: GeneralJob, tmp_path: Path) -> None:
    short = save_encoder(tmp_path, layers=2, max_position_embeddings=8)
    with pytest.raises(ModelError, match="reads 8 tokens at most and a text has 23: lower max_tokens"):
        GeneralLearner(replace(job, model_dir=short), group=ALONE)


def test_a_tokenizer_hides_behind_its_mask_token_and_never_behind_a_special_one(tmp_path: Path) -> None:
    hiding = hiding_of(AutoTokenizer.from_pretrained(save_encoder(tmp_path / "with")), seed=4)
    assert hiding.mask == WORDS.index(MASK) and hiding.seed == 4
    special = {WORDS.index(word) for word in ("[PAD]", "[UNK]", "[CLS]", "[SEP]", MASK)}
    assert set(hiding.tokens.tolist()) == set(range(len(WORDS))) - special
    save_tokenizer(tmp_path / "without")
    with pytest.raises(ModelError, match="has no mask token"):
        hiding_of(AutoTokenizer.from_pretrained(tmp_path / "without"), seed=0)


def reference(job: GeneralJob) -> tuple[dict[str, Tensor], list[float]]:
    """What plain torch on one process learns of a job."""
    return learn_alone(job, lambda whole: GeneralLearner(whole, group=ALONE))


def test_what_is_learned_goes_down(job: GeneralJob, tmp_path: Path) -> None:
    _, losses = reference(general_variant(job, tmp_path, epochs=None, steps=60, learning_rate=1e-2))
    assert np.mean(losses[-10:]) < 0.8 * np.mean(losses[:10])


@pytest.mark.group
@pytest.mark.slow
@pytest.mark.parametrize("stage", [{}, FEATURES_ALONE, {"features": [], "unfrozen": 1}], ids=["all", "inside", "words"])
def test_every_layout_equals_one_process(tmp_path: Path, stage: dict[str, object]) -> None:
    base = general_variant(make_general_job(tmp_path / "start"), tmp_path / "base", **stage)
    jobs = [general_variant(base, tmp_path / f"zero-{zero}", zero=zero) for zero in range(4)]
    weights, losses = reference(base)
    for job, (seen, _) in zip(jobs, train_all(*((job, {}) for job in jobs), folder=tmp_path / "group"), strict=True):
        assert seen.values("train/loss") == pytest.approx(losses, rel=1e-4)
        for name, value in load_general_student(job.output_dir).named_parameters():
            # Softmax takes no notice of what is added to all keys: this gradient is rounding.
            if not name.endswith("key.bias"):
                torch.testing.assert_close(value.detach(), weights[name], rtol=0, atol=5e-5, msg=name)
