"""Whether students may learn from the teachers of an experiment, and what they must carry then.

A teacher's licence is the one that the configuration states, else the one on its model's card (README.md); where both
are there, they have to agree. Nothing is asked of a teacher whose licence refuses students, or of which nothing is
known, unless `licence_override` says why it may be: that reason goes wherever the licence goes. Weights that were drawn
from a seed are nobody's and need none.
"""

from __future__ import annotations

from typing import TypeVar

from configs import ConfigError
from configs.licences import terms_of
from configs.models import ModelSource
from configs.schema import DistillConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST, HasTeachers, LicensedTeacher, key_of_teacher
from orchestration.inputs.model_papers import licence_of_model, papers_of_model
from orchestration.inputs.models import is_at_hand
from orchestration.inputs.start_licences import (
    HasStudents,
    fetch_start_papers,
    papers_of_start,
    require_assistants_may_teach,
    starts_in_words,
)
from student_train.papers import Papers, TaughtUnder

Experiment = TypeVar("Experiment", DistillConfig, TaskDistillConfig)


def with_licences(config: Experiment, *, fetch: bool) -> Experiment:
    """The experiment with the licence of every teacher that a card names and the configuration does not.

    With `fetch` the small files of a model on a hub are fetched if need be, also of those that students begin
    with. Without, one that is not at hand stays without a licence.

    Raises:
        ConfigError: a licence refuses students, is unknown, or is another one than on the card, and
            `licence_override` gives no reason.
        ModelError: a model cannot be found.
    """
    found = {name: _licensed(config, name, fetch=fetch) for name in config.every_teacher}
    if fetch:
        fetch_start_papers(config)
    if isinstance(config, DistillConfig):
        require_assistants_may_teach(config)
    others = {name: teacher for name, teacher in found.items() if name != FIRST}
    return config.model_copy(update={"teacher": found[FIRST], "teachers": others})


def licences_in_words(config: HasStudents) -> tuple[str, ...]:
    """What the licences of teachers and of what students begin with mean for students, a line each.

    Nothing of what is free and asks nothing.

    `config` is one that `with_licences` has passed.
    """
    of_teachers = (line for name in config.every_teacher if (line := _in_words(config, name)) is not None)
    return (*of_teachers, *starts_in_words(config))


def papers_of(config: HasTeachers, *, begins_with: ModelSource | None) -> tuple[Papers, ...]:
    """What a student takes along: under what each teacher was used and what it began with, and the files beside these.

    Without `begins_with` that is the first teacher. `config` is one that `with_licences` has passed.

    Raises:
        ModelError: a licence is not a plain file, or the model has gone since.
    """
    of_teachers = (
        Papers(
            TaughtUnder(
                name=name,
                label=teacher.label,
                licence=teacher.licence,
                override=teacher.licence_override,
                began=name == FIRST if begins_with is None else teacher.model == begins_with,
            ),
            papers_of_model(teacher.model, models_root=config.runtime.models_root),
        )
        for name, teacher in config.every_teacher.items()
    )
    return (*of_teachers, *papers_of_start(config, begins_with))


def _licensed(config: HasTeachers, name: str, *, fetch: bool) -> LicensedTeacher:
    """The teacher of this name with its licence, if students may learn from it."""
    teacher, key = config.every_teacher[name], key_of_teacher(name)
    if teacher.model.random is not None and teacher.licence is None:
        return teacher
    card = licence_of_model(teacher.model, models_root=config.runtime.models_root, fetch=fetch)
    licence = teacher.licence or card
    if teacher.licence_override is None:
        if licence is not None:
            _require_agreed(teacher, card, key=key)
            _require_permitted(licence, teacher, key=key)
        elif fetch or is_at_hand(teacher.model, weights=False):
            raise ConfigError(
                f"nothing says under which licence {teacher.label} is, and so whether a student may learn from it: set "
                f"{key}.licence to what the place says that you have it from, as SPDX (apache-2.0) or as its hub calls "
                f"it (llama3.1). {_or_override(key)}"
            )
    return teacher.model_copy(update={"licence": licence})


def _require_agreed(teacher: LicensedTeacher, card: str | None, *, key: str) -> None:
    if card is None or teacher.licence is None:
        return
    stated, written = (terms_of(licence, key=f"{key}.licence").licence for licence in (teacher.licence, card))
    if stated != written:
        raise ConfigError(
            f"{key}.licence={teacher.licence}, and the card of {teacher.label} says {card}: set it to that. "
            + _or_override(key)
        )


def _require_permitted(licence: str, teacher: LicensedTeacher, *, key: str) -> None:
    terms = terms_of(licence, key=f"{key}.licence")
    if terms.verdict == "refused":
        raise ConfigError(
            f"{teacher.label} is under {licence}, and no student may learn from it ({'; '.join(terms.because)}): "
            f"choose another teacher. {_or_override(key)}"
        )


def _or_override(key: str) -> str:
    return f"If you may all the same, set {key}.licence_override to the reason: caches, students and reports say it"


def _in_words(config: HasTeachers, name: str) -> str | None:
    teacher, key = config.every_teacher[name], key_of_teacher(name)
    if teacher.licence_override is not None:
        return f"{key}: {teacher.label} is used under {teacher.licence_as_used}"
    if teacher.licence is None:
        return None
    terms = terms_of(teacher.licence, key=f"{key}.licence")
    duties = terms.of_any.in_words
    if terms.verdict == "permitted" and not duties:
        return None
    return f"{key}: {teacher.label} is under {teacher.licence}, and so of every student: {'; '.join(duties)}"
