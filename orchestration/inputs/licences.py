"""Whether students may learn from the teachers of an experiment, and what they must carry then.

A teacher's licence is the one that the configuration states, else the one on its model's card (README.md); where both
are there, they have to agree. Nothing is asked of a teacher whose licence refuses students, or of which nothing is
known, unless `licence_override` says why it may be: that reason goes wherever the licence goes. Weights that were drawn
from a seed are nobody's and need none.
"""

from __future__ import annotations

from importlib.metadata import files
from pathlib import Path
from typing import TypeVar

from huggingface_hub import ModelCard
from yaml import YAMLError

from configs import ConfigError
from configs.licences import terms_of
from configs.model_files import CARD
from configs.models import ModelSource
from configs.regular_files import UnreadableFileError, read_regular
from configs.schema import DistillConfig
from configs.task_experiment import TaskDistillConfig
from configs.teachers import FIRST, HasTeachers, LicensedTeacher, key_of_teacher
from orchestration.inputs.models import is_at_hand, locate_model
from student_train.papers import Papers, TaughtUnder, papers_beside

CARD_BYTES = 4 * 2**20
"""No model's card is longer."""

WITHOUT_NAME = ("other", "unknown")
"""What hubs write where a licence has no short name, or nobody gave one."""

Experiment = TypeVar("Experiment", DistillConfig, TaskDistillConfig)


def with_licences(config: Experiment, *, fetch: bool) -> Experiment:
    """The experiment with the licence of every teacher that a card names and the configuration does not.

    With `fetch` the small files of a model on a hub are fetched if need be. Without, one that is not at hand stays
    without a licence.

    Raises:
        ConfigError: a licence refuses students, is unknown, or is another one than on the card, and
            `licence_override` gives no reason.
        ModelError: a model cannot be found.
    """
    found = {name: _licensed(config, name, fetch=fetch) for name in config.every_teacher}
    others = {name: teacher for name, teacher in found.items() if name != FIRST}
    return config.model_copy(update={"teacher": found[FIRST], "teachers": others})


def licences_in_words(config: HasTeachers) -> tuple[str, ...]:
    """What the licence of each teacher means for its students, a line each; nothing of what is free and asks nothing.

    `config` is one that `with_licences` has passed.
    """
    return tuple(line for name in config.every_teacher if (line := _in_words(config, name)) is not None)


def papers_of(config: HasTeachers, *, began: bool) -> tuple[Papers, ...]:
    """What a student of these teachers takes along: under what each was used, and the files that lie beside it.

    `began` says that the student began with the first one's weights. `config` is one that `with_licences` has passed.

    Raises:
        ModelError: a licence is not a plain file, or the model has gone since.
    """
    return tuple(
        Papers(
            TaughtUnder(
                name=name,
                label=teacher.label,
                licence=teacher.licence,
                override=teacher.licence_override,
                began=began and name == FIRST,
            ),
            _files_beside(teacher.model, models_root=config.runtime.models_root),
        )
        for name, teacher in config.every_teacher.items()
    )


def licence_on_card(directory: Path) -> str | None:
    """The licence in the front matter of a model's README.md; None where there is none that has a name."""
    try:
        text = read_regular(directory / CARD, at_most=CARD_BYTES, links="follow").decode("utf-8", errors="replace")
        data = ModelCard(text, ignore_metadata_errors=True).data
    # A card may hold anything: what is not front matter says nothing.
    except (UnreadableFileError, OSError, ValueError, YAMLError):
        return None
    licence, name = data.get("license"), data.get("license_name")
    if isinstance(licence, list):
        licence = " AND ".join(str(each) for each in licence)
    if licence in WITHOUT_NAME:
        licence = name
    return str(licence) if licence else None


def _files_beside(model: ModelSource, *, models_root: Path) -> dict[str, bytes]:
    """The licence files of a model; of one that is a file in a package those of the package."""
    if model.random is not None:
        return {}
    if not _is_converted(model):
        return papers_beside(locate_model(model, models_root=models_root, weights=False))
    assert model.package is not None
    about = {Path(str(path.locate())).parent for path in files(model.package) or () if path.name == "METADATA"}
    return {name: paper for folder in about for name, paper in papers_beside(folder).items()}


def _licensed(config: HasTeachers, name: str, *, fetch: bool) -> LicensedTeacher:
    """The teacher of this name with its licence, if students may learn from it."""
    teacher, key = config.every_teacher[name], key_of_teacher(name)
    if teacher.model.random is not None and teacher.licence is None:
        return teacher
    card = _licence_on_card(teacher.model, models_root=config.runtime.models_root, fetch=fetch)
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


def _licence_on_card(model: ModelSource, *, models_root: Path, fetch: bool) -> str | None:
    """What the card of a model says, where it has one that can be read without converting the model first."""
    if model.random is not None or _is_converted(model):
        return None
    if not fetch and not is_at_hand(model, weights=False):
        return None
    return licence_on_card(locate_model(model, models_root=models_root, weights=False))


def _is_converted(model: ModelSource) -> bool:
    """Whether it is one file in a package, of which nothing else is the model's."""
    return model.package is not None and str(model.file).endswith(".gguf")


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
