"""Students beside their teacher in one process: the teacher is loaded once, the students one after the other."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache import ScoreRequest
from configs import DistillError, TrainingError
from configs.models import Device
from evaluation.exposure import exposure_of
from evaluation.results import Exposure
from orchestration.cluster.task import Apart, run_apart
from orchestration.outputs.redirect import redirect_output
from student_train.exposure import divergences, shared_rows
from student_train.models.decoder import TORCH_DTYPES, Decoder, load_decoder

TOKENS_PER_BATCH = 4096


@dataclass(frozen=True, slots=True)
class Answers:
    """A model, and two answers to each prompt: its own (`free`) and the teacher's (`forced`), none of them empty."""

    model_dir: Path
    dtype: str
    free: tuple[ScoreRequest, ...]
    forced: tuple[ScoreRequest, ...]

    @property
    def tokens(self) -> int:
        """What the teacher has to read."""
        return sum(len(each.token_ids) for each in (*self.free, *self.forced))


@dataclass(frozen=True, slots=True)
class ExposureJob:
    """The answers of several models, to be scored by each and by the teacher; `vocab` is the tokenizer's."""

    teacher_dir: Path
    dtype: str
    vocab: int
    models: tuple[Answers, ...]
    accelerator: Device
    log_file: Path


def score_exposure(job: ExposureJob, *, cpus: int) -> list[Exposure | DistillError]:
    """What its own beginnings cost each model; of one that cannot be scored, why.

    Raises:
        ModelError: the teacher cannot be loaded.
        TrainingError: the process died.
    """
    return run_apart(
        _score_all, job, apart=Apart("exposure scoring", TrainingError, job.accelerator, cpus, job.log_file)
    )


def _score_all(job: ExposureJob) -> list[Exposure | DistillError]:
    redirect_output(job.log_file)
    teacher = _load(job.teacher_dir, dtype=job.dtype, job=job)
    return [_score_or_why_not(answers, teacher=teacher, job=job) for answers in job.models]


def _score_or_why_not(answers: Answers, *, teacher: Decoder, job: ExposureJob) -> Exposure | DistillError:
    try:
        model = _load(answers.model_dir, dtype=answers.dtype, job=job)
        rows = shared_rows(model, teacher, vocab=job.vocab)
        free, forced = (
            divergences(model, teacher, sequences, rows=rows, tokens_per_batch=TOKENS_PER_BATCH)
            for sequences in (answers.free, answers.forced)
        )
    except DistillError as error:
        return error
    return exposure_of([each.kl for each in free], [each.kl for each in forced], [each.gap for each in free])


def _load(directory: Path, *, dtype: str, job: ExposureJob) -> Decoder:
    decoder = load_decoder(directory, dtype=TORCH_DTYPES[dtype])
    decoder.model.to("cuda" if job.accelerator == "gpu" else "cpu").eval()
    return decoder
