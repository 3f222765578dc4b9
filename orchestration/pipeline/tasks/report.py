"""What an experiment that distils a task found, put together: the results that are kept and shown, and their origin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from configs.task_experiment import TaskDistillConfig
from evaluation.results import Provenance, RunCost, RunResults
from orchestration.comparison.report import Report
from orchestration.environment import installed_versions
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.foundations import RestsOn
from orchestration.pipeline.run import Written
from orchestration.pipeline.tasks.comparison import ComparedTask
from orchestration.tracking.tracker import flatten


@dataclass(frozen=True, slots=True)
class TaughtBy:
    """The teacher of an experiment: what it is called, its identity, its licence, and the digest of what it said.

    `licence_terms` is what its licence asks of students, in words.
    """

    label: str
    identity: str
    licence: str | None
    answers: str
    licence_terms: tuple[str, ...]


def task_report(
    compared: ComparedTask,
    *,
    task: LoadedTask,
    written: Written[TaskDistillConfig],
    teacher: TaughtBy,
    rests_on: RestsOn,
    cost: RunCost,
    notes: Sequence[str] = (),
) -> Report:
    """Everything that was found, in one value; `notes` of the stages before come first."""
    results = RunResults(
        experiment=written.config.name,
        settings={key: str(value) for key, value in flatten(written.config.model_dump(mode="json")).items()},
        prompts=(),
        references=(),
        reference_tokens=(),
        models=tuple(compared.rows),
        tasks=(task.facts,),
        cost=cost,
        provenance=Provenance(
            teacher=teacher.label,
            teacher_identity=teacher.identity,
            teacher_licence=teacher.licence,
            cache_digest=teacher.answers,
            config_digest=written.config.digest(),
            data=dict(written.content),
            versions=installed_versions(),
            licence_terms=teacher.licence_terms,
        ),
        rows_set_aside=0,
        failures=tuple(compared.failures),
        notes=(*notes, *compared.notes),
    )
    return Report(results, rests_on, compared.evidence)
