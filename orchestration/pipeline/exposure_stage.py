"""Exposure bias of the students, once they have answered; the teacher tokens that it takes are subject to the budgets.

It is one number beside others, so whatever stands in its way is said in the rows and stops nothing.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from configs import BudgetReached, DistillError
from evaluation.results import Exposure
from orchestration.cluster.exposure_scoring import Answers, ExposureJob
from orchestration.comparison.bench import Bench
from orchestration.comparison.examination import Candidate
from orchestration.comparison.exposure_examination import ExposureBias
from orchestration.fill.budgets import require_budget
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.console import StageProgress
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.stage import Line, Stage

LARGEST_TEACHER = 20_000_000_000
"""Parameters of the largest teacher that reads along: 40 GB in bfloat16, which leaves room beside it on 80 GB."""

Work = tuple[tuple[Candidate, Answers], ...]


def exposure_of_run(settings: RunSettings, *, bench: Bench, teacher: Teacher) -> tuple[ExposureBias, ...]:
    """How exposure is found in this experiment; nothing unless `evaluation.exposure` is true."""
    if not settings.config.evaluation.exposure:
        return ()
    return (ExposureBias(bench, settings.artifacts, teacher.identity.digest()),)


@dataclass(slots=True)
class ExposureScoring(Stage[Work, dict[str, list[str]], dict[str, list[str]]]):
    """Reads what students and teacher wrote with both; gives, by name, why a student was left out."""

    candidates: list[Candidate]
    exposure: ExposureBias
    teacher: Teacher
    settings: RunSettings
    journal: Journal
    compute: Compute
    left_out: dict[str, list[str]] = field(default_factory=dict)

    def prepare(self) -> Work | None:
        """Those that have answered and were not read before, unless the teacher is too large or too expensive."""
        missing = [each for each in self.candidates if self.exposure.missing(each)]
        found = [(each, self.exposure.answers(each)) for each in missing]
        work = tuple((each, answers) for each, answers in found if answers is not None)
        reason = self._refusal(sum(answers.tokens for _, answers in work))
        if work and reason is not None:
            self.left_out = {each.name: [f"{self.exposure.title}: left out, {reason}"] for each, _ in work}
            return None
        if work:
            self.compute.need_cluster()
        return work or None

    def line(self) -> Line:
        """See `Stage`."""
        return Line("exposure", unit="models", place="workers")

    def run(self, work: Work, progress: StageProgress) -> dict[str, list[str]]:
        """Read them one after the other, in one process, and keep what it finds."""
        job = ExposureJob(
            teacher_dir=self.teacher.files.directory.resolve(),
            dtype=self.teacher.identity.dtype,
            vocab=self.teacher.files.vocab,
            models=tuple(answers for _, answers in work),
            accelerator=self.settings.device,
            log_file=self.settings.logs / "exposure.log",
        )
        found: list[Exposure | DistillError]
        try:
            found = self.compute.score_exposure(job)
        except DistillError as error:  # the process died, or there is no teacher: none of them was read
            found = [error] * len(work)
        failures: dict[str, list[str]] = {}
        for (candidate, answers), each in zip(work, found, strict=True):
            if isinstance(each, DistillError):
                failures[candidate.name] = [f"{self.exposure.title}: {each}"]
            else:
                self.journal.ledger.add(evaluation=answers.tokens)
                self.exposure.keep(candidate, each)
        return failures

    def keep(self, made: dict[str, list[str]] | None) -> dict[str, list[str]]:
        """What failed or was left out."""
        return self.left_out | (made or {})

    def summary(self, made: dict[str, list[str]] | None, kept: dict[str, list[str]]) -> str:
        """See `Stage`."""
        return f"{len(self.candidates) - len(kept)} models after their own tokens and after the teacher's"

    def _refusal(self, tokens: int) -> str | None:
        """Why the teacher does not read `tokens` tokens; None where it does."""
        parameters, quantization = self.teacher.files.shape.parameters, self.teacher.by_weights.quantization
        if parameters > LARGEST_TEACHER:
            return (
                f"its teacher has {parameters:,} parameters and {LARGEST_TEACHER:,} is the most that one device reads"
            )
        if quantization is not None:
            return f"its teacher is served quantised ({quantization}), which a plain forward pass is not"
        try:
            require_budget(
                self.settings.config.budgets,
                spent=self.journal.ledger.counts(),
                tokens=tokens,
                purpose="exposure",
            )
        except BudgetReached as error:
            return str(error)
        return None
