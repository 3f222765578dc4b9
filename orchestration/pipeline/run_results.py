"""What a run found, put together: the results that are kept and shown, where they come from and what they rest on."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from configs import DistillConfig
from configs.teachers import FIRST, key_of_teacher
from evaluation.cost import Saved
from evaluation.results import Provenance, RunResults
from orchestration.comparison.bench import Bench, lengths
from orchestration.comparison.report import Report
from orchestration.environment import installed_versions
from orchestration.inputs.licences import licences_in_words
from orchestration.inputs.models import locate_model
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.tasks import LoadedTask
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.foundations import GUARD_MODEL, RestsOn, model_sources, rested_on
from orchestration.pipeline.chain import Student
from orchestration.pipeline.compare import Compared
from orchestration.pipeline.run import Journal, RunSettings, Written
from orchestration.pipeline.run_costs import cost_of_run
from orchestration.pipeline.training_cost import with_training
from orchestration.tracking.tracker import flatten


@dataclass(frozen=True, slots=True)
class Examined:
    """What a comparison was over. `texts` are the test prompts as they were written, by their token ids.

    `teachers` are all by their names, the first one first; `screened` says what was found in the data.
    """

    bench: Bench
    teachers: Mapping[str, Teacher]
    prompts: PromptSet
    texts: Mapping[tuple[int, ...], str]
    tasks: Sequence[LoadedTask]
    students: Sequence[Student]
    screened: tuple[str, ...] = ()


def report_of(
    compared: Compared,
    examined: Examined,
    *,
    written: Written[DistillConfig],
    settings: RunSettings,
    journal: Journal,
    saved: Saved,
) -> Report:
    """Everything that was found, in one value; `saved` is what the cache had when the run began."""
    bench, students, references = examined.bench, examined.students, examined.bench.references()
    results = RunResults(
        experiment=settings.config.name,
        settings={key: str(value) for key, value in flatten(written.config.model_dump(mode="json")).items()},
        prompts=tuple(examined.texts[request.prompt_ids] for request in bench.requests),
        references=bench.texts(references),
        reference_tokens=lengths(references),
        models=with_training(compared.rows, students, artifacts=settings.artifacts),
        tasks=tuple(task.facts for task in examined.tasks),
        cost=cost_of_run(settings=settings, journal=journal, saved=saved),
        provenance=_provenance(written, settings, examined.teachers[FIRST], view=bench.view.digest),
        rows_set_aside=len(examined.prompts.rejected),
        failures=tuple(compared.failures),
        notes=(
            *examined.screened,
            *_unverifiable(examined.teachers),
            *(note for student in students for note in student.notes),
        ),
        held_against=_held_against(settings.config),
        timeline=journal.console.timeline.spans,
    )
    return Report(results, _rested_on(settings, examined.teachers, students), compared.evidence)


def _unverifiable(teachers: Mapping[str, Teacher]) -> Iterator[str]:
    for name, teacher in teachers.items():
        if not teacher.identity.verifiable:
            yield (
                f"{name}: {teacher.known_as}. Nobody can hash its weights: it is who its provider says it is, and only "
                "that it still answered alike was looked at whenever it was asked"
            )


def _held_against(config: DistillConfig) -> str:
    """What models are held against where several teachers were combined, in words."""
    if not config.teachers:
        return ""
    if config.route is None:
        what = f"what {FIRST} answered, and what all teachers believe of it together"
    else:
        what = "what each row's own teacher answered and believes"
    return (
        f"Models are held against what students learned from: {what} ({config.combined}). A teacher's row says how far "
        "it alone is from that."
    )


def _provenance(written: Written[DistillConfig], settings: RunSettings, teacher: Teacher, *, view: str) -> Provenance:
    """Where the results come from; the configuration of `settings` has licences that cards say and nobody wrote."""
    config = settings.config
    return Provenance(
        teacher=written.config.label_of_teachers,
        teacher_identity=teacher.identity.digest(),
        teacher_licence=config.licence_of_teachers,
        cache_digest=view,
        config_digest=written.config.digest(),
        data={key: digest for key, digest in written.content.items() if key.startswith("data.")},
        versions=installed_versions(),
        licence_terms=(*licences_in_words(config), *settings.imported.terms),
    )


def _rested_on(settings: RunSettings, teachers: Mapping[str, Teacher], students: Sequence[Student]) -> RestsOn:
    starts = {student.name: student.start for student in students}
    directories = {f"students.{name}.init.model": start.directory for name, start in starts.items()}
    for name, teacher in teachers.items():
        directories[f"{key_of_teacher(name)}.model"] = teacher.files.directory
    guard = None if settings.config.content is None else settings.config.content.guard
    if guard is not None:
        directories[GUARD_MODEL] = locate_model(guard.model, models_root=settings.config.runtime.models_root)
    return rested_on(
        settings.config,
        directories={key: directories[key] for key, _ in model_sources(settings.config)},
        starts=[s.digest for s in starts.values() if s.directory == settings.artifacts.init_dir(s.digest)],
        students=[link.digest for student in students for link in student.links],
        run_dir=settings.directory,
    )
