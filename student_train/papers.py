"""What goes with a student when it is given to others: the licences of its teachers, and what they ask of it.

A trained student carries `licences/`: `teachers.json`, which says under what each teacher was used and what else the
student began with, and copies of the licence, notice and policy files that lay beside them. `publish` copies a student
to a folder that may be given away. It fulfils what a copy can fulfil (NOTICE, what the card must show) and refuses
while something else is open: a name that a licence prescribes, or a text that is to go along and is not there.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path
from typing import Annotated

from pydantic import Field, TypeAdapter, ValidationError

from configs.errors import ConfigError, ModelError
from configs.licences import Duties, Terms, terms_of
from configs.model_files import CARD
from configs.models import Block
from configs.regular_files import UnreadableFileError, read_regular
from configs.visible_text import first_line
from student_train.files import staged_directory

FOLDER = "licences"
RECORD = "teachers.json"
NOTICE = "NOTICE"

LICENCE_FILES = ("LICENSE*", "LICENCE*", "COPYING*")
POLICY_FILES = ("USE_POLICY*",)
PAPERS = (*LICENCE_FILES, *POLICY_FILES, "NOTICE*")
"""The files beside a model that say what it may be used for."""

PAPER_BYTES = 4 * 2**20


class TaughtUnder(Block):
    """A teacher of a student: its name among the teachers, and under what it was used.

    `override` is why, where the licence refuses. `began` says that the student began with its weights; if it did not
    teach beside that, `taught` is false. The name is that of its folder too.
    """

    name: Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9._-]*$")]
    label: str
    licence: str | None = None
    override: str | None = None
    began: bool = False
    taught: bool = True

    @property
    def unknown(self) -> bool:
        """Whether nobody knows what it asks: of weights that it began with, of an assistant's, of imported rows.

        A teacher of the experiment of which nobody knows it is refused.
        """
        told = self.taught and not self.name.startswith("_")
        return not told and (self.licence is None or not self._terms(self.licence).known)

    @property
    def duties(self) -> Duties:
        """What its licence asks of the student; nothing where nobody owns it, or a reason stands in its place."""
        if self.licence is None or self.override is not None:
            return Duties()
        return self._terms(self.licence).duties(begins_with_weights=self.began)

    def _terms(self, licence: str) -> Terms:
        return terms_of(licence, key=f"the licence of {self.label}")


@dataclass(frozen=True, slots=True)
class Papers:
    """A teacher and the licence, notice and policy files that lie beside it, by name."""

    teacher: TaughtUnder
    files: Mapping[str, bytes] = field(default_factory=dict)


def papers_beside(folder: Path) -> dict[str, bytes]:
    """The licence, notice and policy files of a model's folder, by name.

    Raises:
        ModelError: one of them is not a regular file, or is longer than such a file may be.
    """
    found = sorted({path for pattern in PAPERS for path in folder.glob(pattern)})
    try:
        return {path.name: read_regular(path, at_most=PAPER_BYTES, links="follow") for path in found}
    except UnreadableFileError as error:
        raise ModelError(f"{error}: put the licence there as a plain file") from error


def write_papers(folder: Path, papers: Sequence[Papers]) -> None:
    """Fill `licences/` in the folder of a student; nothing for one whose teachers are not said."""
    if not papers:
        return
    place = folder / FOLDER
    for each in papers:
        (place / each.teacher.name).mkdir(parents=True)
        for name, content in each.files.items():
            (place / each.teacher.name / name).write_bytes(content)
    record = TypeAdapter(list[TaughtUnder]).dump_json([each.teacher for each in papers], indent=2)
    (place / RECORD).write_bytes(record + b"\n")


def teachers_of(model: Path) -> tuple[TaughtUnder, ...]:
    """The teachers of a trained student.

    Raises:
        ModelError: the student does not say who they were.
    """
    path = model / FOLDER / RECORD
    try:
        content = read_regular(path, at_most=PAPER_BYTES)
        return tuple(TypeAdapter(list[TaughtUnder]).validate_json(content))
    except (OSError, UnreadableFileError, ValidationError) as error:
        raise ModelError(f"{path} does not say who taught {model}: train the student again, which writes it") from error


def papers_carried(model: Path) -> tuple[Papers, ...]:
    """The papers of a student that was made here; none of a model that was not.

    Raises:
        ModelError: they cannot be read.
    """
    if not (model / FOLDER / RECORD).exists():
        return ()
    return tuple(Papers(each, papers_beside(model / FOLDER / each.name)) for each in teachers_of(model))


def asks_for_company(model: Path) -> bool:
    """Whether something has to go with a model wherever it goes; of one that was not trained here nothing is known."""
    if not (model / FOLDER / RECORD).exists():
        return False
    return any(teacher.duties != Duties() for teacher in teachers_of(model))


def publish(model: Path, to: Path) -> tuple[str, ...]:
    """Copy a student to a new folder, which has its name, with all that its teachers' licences ask for.

    Returns:
        what no file can fulfil, for whoever gives the student away.

    Raises:
        ConfigError: something is there already, or a duty is open; with what to do.
        ModelError: the student does not say who its teachers were.
    """
    teachers = teachers_of(model)
    if to.exists():
        raise ConfigError(f"{to} is there already: name a folder that is not")
    still_open = [line for teacher in teachers for line in _open(model, teacher, name=to.name)]
    if still_open:
        raise ConfigError(f"{model} cannot be given away as {to.name} yet: {'; '.join(still_open)}")
    duties = reduce(Duties.and_of, (teacher.duties for teacher in teachers), Duties())
    with staged_directory(to) as staging:
        try:
            shutil.copytree(model, staging, dirs_exist_ok=True)
        except OSError as error:
            raise ConfigError(f"{model} cannot be copied to {to}: {first_line(error)}") from error
        notices = [*duties.notices, *_kept_notices(model, teachers)]
        if notices:
            (staging / NOTICE).write_text("\n\n".join(notices) + "\n", encoding="utf-8")
        card = staging / CARD
        text = card.read_text(encoding="utf-8") if card.exists() else ""
        card.write_text(_headed(text, name=to.name, displays=duties.displays), encoding="utf-8")
    derived = ("it is a derivative of its teacher, under its licence",) if duties.derivative else ()
    unknown = (
        f"nothing is known of the licence of {teacher.label}, {_part_of(teacher)}: find out what it asks"
        for teacher in teachers
        if teacher.unknown
    )
    return (*derived, *duties.terms, *unknown)


def _part_of(teacher: TaughtUnder) -> str:
    return "whose answers it learned from" if teacher.taught else "with whose weights it began"


def _open(model: Path, teacher: TaughtUnder, *, name: str) -> list[str]:
    """What a teacher's licence asks for and the student does not have."""
    duties, place = teacher.duties, model / FOLDER / teacher.name
    lines = []
    if not name.startswith(duties.name_prefix):
        lines.append(f"{teacher.licence} asks for a name like {duties.name_prefix}-{name}: call it so")
    for wanted, patterns, what, example in (
        (duties.licence_copy, LICENCE_FILES, "a copy of the licence", "LICENSE"),
        (duties.use_policy, POLICY_FILES, "a copy of the acceptable use policy", "USE_POLICY.md"),
    ):
        if wanted and not any(path for pattern in patterns for path in place.glob(pattern)):
            lines.append(f"{teacher.licence} asks for {what} of {teacher.label}: put it at {place / example}")
    return lines


def _kept_notices(model: Path, teachers: Sequence[TaughtUnder]) -> list[str]:
    """What stood in the notices of the teachers."""
    paths = (path for each in teachers for path in sorted((model / FOLDER / each.name).glob("NOTICE*")))
    return [path.read_text(encoding="utf-8", errors="replace").strip() for path in paths]


def _headed(card: str, *, name: str, displays: Sequence[str]) -> str:
    """A card whose first heading is the name, with what must be shown below it."""
    shown = "".join(f"\n**{line}**\n" for line in displays)
    front, heading, rest = card.partition("\n# ")
    if not heading:
        return f"{card}\n# {name}\n{shown}"
    first, _, body = rest.partition("\n")
    return f"{front}\n# {name}\n{shown}\n{first}.\n{body}"
