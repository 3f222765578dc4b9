"""What the weights ask that a student begins with, where they are another model's than its teacher's.

That model does not teach: a licence that lets no other model learn from it does not forbid to go on training itself.
What it asks of its own weights goes along with the student. One whose licence nobody knows is named, and not refused:
nothing is made from its output, and the weights are the user's own business until they are given away. A student that
was made here carries its papers, and they go on to the next.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Protocol

from configs import ConfigError
from configs.licences import terms_of
from configs.models import ModelSource
from configs.schema import DistillConfig
from configs.stages import StudentConfig
from configs.teachers import NOT_STATED, HasTeachers
from orchestration.inputs.model_papers import licence_of_model, papers_of_model
from orchestration.inputs.models import is_at_hand, locate_model
from student_train.papers import Papers, TaughtUnder, papers_carried

START = "_start"
"""What the model is called that a student began with, among its papers; no teacher's name begins with a line."""

ASSISTANT = "_assistant"
"""What a model is called that an assistant began with, among the papers of those whom it teaches."""


class Begins(Protocol):
    """A student, of a language model or of a task."""

    @property
    def begins_with(self) -> ModelSource | None:
        """The model whose weights it begins with, if they are not the teacher's."""
        ...


class HasStudents(HasTeachers, Protocol):
    """An experiment with teachers and students."""

    @property
    def students(self) -> Mapping[str, Begins]:
        """All students by their names."""
        ...


def fetch_start_papers(config: HasStudents) -> None:
    """Bring the small files of the models that students begin with, so that their licences are known from the start.

    Raises:
        ModelError: one cannot be found.
    """
    for student in config.students.values():
        model = _foreign(config, student.begins_with)
        if model is not None and model.hub is not None:
            locate_model(model, models_root=config.runtime.models_root, weights=False)


def papers_of_start(config: HasTeachers, begins_with: ModelSource | None) -> tuple[Papers, ...]:
    """What a student takes along of the model that it begins with, if it names one.

    Nothing where that is one of its teachers, whose papers it has, nor where it is drawn from a seed and so nobody's.

    Raises:
        ModelError: a licence is not a plain file, or the model has gone since.
    """
    model = _foreign(config, begins_with)
    if model is None:
        return ()
    models_root = config.runtime.models_root
    carried = _carried(model, config)
    if carried:
        return tuple(
            replace(each, teacher=each.teacher.model_copy(update={"name": f"{START}{number}"}))
            for number, each in enumerate(carried, start=1)
        )
    licence = _readable(licence_of_model(model, models_root=models_root, fetch=False))
    begun = TaughtUnder(name=START, label=model.label, licence=licence, began=True, taught=False)
    return (Papers(begun, papers_of_model(model, models_root=models_root)),)


def papers_of_assistants(config: DistillConfig, student: str) -> tuple[Papers, ...]:
    """What a student owes to the models that the assistants above it began with: it learned from what these say.

    Raises:
        ModelError: a licence is not a plain file, or a model has gone since.
    """
    found = list[Papers]()
    for name in _above(config, student):
        for each in papers_of_start(config, config.students[name].begins_with):
            changed = {"name": f"{ASSISTANT}{len(found) + 1}", "began": False, "taught": True}
            found.append(replace(each, teacher=each.teacher.model_copy(update=changed)))
    return tuple(found)


def require_assistants_may_teach(config: DistillConfig) -> None:
    """Refuse an assistant that began with a model whose licence lets no other model learn from what it says.

    One of which nobody knows that is named (`starts_in_words`) and not refused, as with any start.

    Raises:
        ConfigError: naming it, and whom it would teach.
    """
    for name in config.students:
        for above in _above(config, name):
            model = _foreign(config, config.students[above].begins_with)
            if model is None or not is_at_hand(model, weights=False):
                continue
            for begun in (each.teacher for each in papers_of_start(config, model)):
                if begun.licence is None or begun.override is not None:
                    continue
                terms = terms_of(begun.licence, key=f"the licence of {begun.label}")
                if terms.known and terms.verdict == "refused":
                    raise ConfigError(
                        f"students.{above}.init.model: {begun.label} is under {begun.licence}, and {name} would learn "
                        f"from what {above} says ({'; '.join(terms.because)}): begin {above} with another model, or "
                        f"leave students.{name}.teacher out"
                    )


def _above(config: DistillConfig, student: str) -> Iterator[str]:
    """The assistants that a student learns from: its own, that one's, and so on."""
    above = config.students[student].teacher
    while above is not None:
        yield above
        above = config.students[above].teacher


def _pupils(config: HasStudents, name: str) -> list[str]:
    """Whom a student teaches, at whatever remove; students of a task teach nobody."""
    if not isinstance(config, DistillConfig):
        return []
    return [each for each in config.students if name in _above(config, each)]


def starts_in_words(config: HasStudents) -> Iterator[str]:
    """What the model means for a student that it begins with, a line each; nothing of one that is not here yet."""
    for name, student in config.students.items():
        model = _foreign(config, student.begins_with)
        if model is None or not is_at_hand(model, weights=False):
            continue
        key = f"students.{name}.{'init' if isinstance(student, StudentConfig) else 'start'}.model"
        for begun in (each.teacher for each in papers_of_start(config, model)):
            duties = begun.duties.in_words
            if begun.unknown:
                yield (
                    f"{key}: nothing is known of the licence of {begun.label} ({begun.licence or NOT_STATED}): find "
                    f"out what it asks before {name} is given away"
                )
            elif duties:
                yield f"{key}: {begun.label} is under {begun.licence}, and so of {name}: {'; '.join(duties)}"
            pupils = (
                [each for each in config.students if name in _above(config, each)]
                if isinstance(config, DistillConfig)
                else []
            )
            if pupils and begun.unknown:
                yield f"{key}: whether {name} may teach {', '.join(pupils)} stands in that licence as well"
            elif pupils and (asked := terms_of(begun.licence or "", key=key).of_any.in_words):
                yield f"{key}: and so of those that it teaches ({', '.join(pupils)}): {'; '.join(asked)}"


def licence_with_start(licence: str | None, papers: Sequence[Papers]) -> str | None:
    """The licence of the teachers, and beside it that of what the student began with, if it is another one."""
    begun = dict.fromkeys(each.teacher.licence for each in papers if each.teacher.name.startswith(START))
    if set(begun) <= {licence}:
        return licence
    return f"{licence or NOT_STATED}; start: {' and '.join(each or NOT_STATED for each in begun)}"


def _foreign(config: HasTeachers, model: ModelSource | None) -> ModelSource | None:
    """The model that a student begins with, if it is somebody's and no teacher of the experiment."""
    teachers = [teacher.model for teacher in config.every_teacher.values()]
    return None if model is None or model.random is not None or model in teachers else model


def _carried(model: ModelSource, config: HasTeachers) -> tuple[Papers, ...]:
    """The papers of a student that was made here; none of any other model."""
    if model.package is not None:
        return ()
    return papers_carried(locate_model(model, models_root=config.runtime.models_root, weights=False))


def _readable(licence: str | None) -> str | None:
    """A licence that a card names, if it reads as one: cards hold anything."""
    try:
        return None if licence is None or not terms_of(licence, key="license") else licence
    except ConfigError:
        return None
