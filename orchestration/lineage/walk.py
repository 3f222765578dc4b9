"""The way back from a student: its files, what its address is the digest of, its licences, its start, its run.

Every step compares what is there with a digest that was written down before, so that one changed byte is named by the
step that it lies in. What is no longer here is told as missing: a student that was copied to another machine is as good
as it was.

A digest shows that nothing has changed since it was written, not who wrote it: whoever can write all of these files can
write all of the digests.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from configs import ModelError
from configs.places import SUMMARY
from configs.visible_text import first_line
from orchestration.lineage.behind_run import behind_run
from orchestration.lineage.records import MADE_OF, Lineage, from_summary
from orchestration.lineage.steps import SHOWN, Step, compared
from orchestration.outputs.artifacts import START, STUDENT, digest_of
from orchestration.outputs.foundations import model_digest
from orchestration.outputs.kept import FileDigests, OutdatedError, read_addressed, read_directory
from student_train.papers import FOLDER, teachers_of


@dataclass(frozen=True, slots=True)
class _Made:
    """A student or an untouched one by its folder, with its address and what its summary says beside that."""

    folder: Path
    schema: str
    address: str
    fields: Mapping[str, object]

    @property
    def made_of(self) -> Mapping[str, object]:
        """What its address is the digest of; nothing where an earlier version made it."""
        found = self.fields.get(MADE_OF)
        return found if isinstance(found, Mapping) else {}


def walk(student: Path, *, run_root: Path | None = None, after: Lineage | None = None) -> Iterator[Step]:
    """Every step from a trained student back to its teachers and its data.

    `run_root` is where runs, students and starts lie: two directories above the student's unless it is said. `after` is
    the lineage of a student that began as this one: what stands behind both is told there.

    Raises:
        ModelError: the directory holds no student that was made here.
    """
    root = student.resolve().parent.parent if run_root is None else run_root
    made = _made(student, schema=STUDENT)
    yield _files(made)
    yield _address(made)
    yield from _licences(student)
    try:
        lineage = from_summary(made.fields)
    except ValueError as error:
        yield Step("lineage", "broken", f"{student / SUMMARY}: {error}")
        return
    if lineage is None:
        yield Step("lineage", "missing", "an earlier version made it and wrote down nothing more")
        return
    yield _made_with(lineage)
    yield from _start(made, lineage, root=root)
    told = after is not None and after.run == lineage.run and lineage.learned.items() <= after.learned.items()
    if not told:
        yield from behind_run(root / lineage.run, learned=lineage.learned, wanted=_learned(made))


def _made(folder: Path, *, schema: str) -> _Made:
    try:
        found = read_addressed(folder / SUMMARY, schema=schema)
    except OutdatedError as error:
        raise ModelError(f"{error}: nothing that it says of where it comes from can be believed") from error
    if found is None:
        raise ModelError(f"{folder} has no {SUMMARY}: it is not a student that was made here")
    return _Made(folder, schema, *found)


def _files(made: _Made) -> Step:
    """All files against the summary, read anew: a remembered hash is of other days."""
    try:
        with tempfile.TemporaryDirectory() as empty:
            digests = FileDigests(Path(empty) / "memo")
            read_directory(made.folder, schema=made.schema, digest=made.address, digests=digests)
    except OutdatedError as error:
        return Step("files", "broken", str(error))
    listed = [path for path in made.folder.rglob("*") if path.is_file() and path.name != SUMMARY]
    size = sum(path.stat().st_size for path in listed)
    return Step("files", "holds", f"{made.folder}: {len(listed)} files, {size / 1e6:,.1f} MB")


def _address(made: _Made) -> Step:
    if not made.made_of:
        return Step("address", "missing", f"{made.address[:SHOWN]}: what it is the digest of was not written down")
    if digest_of(**made.made_of) != made.address:
        return Step("address", "broken", f"{made.address[:SHOWN]} is not the digest of what the summary says")
    return Step("address", "holds", f"{made.address[:SHOWN]} is the digest of {_in_words(made.made_of)}")


def _in_words(made_of: Mapping[str, object]) -> str:
    """What an address is made of, for people: the objective and the seed of a stage, and the names of the rest."""
    stage = made_of.get("stage")
    if not isinstance(stage, Mapping):
        return ", ".join(made_of)
    others = ", ".join(name for name in made_of if name != "stage")
    return f"a stage {stage.get('objective')} with seed {stage.get('seed', 0)}, and of {others}"


def _licences(student: Path) -> Iterator[Step]:
    if not (student / FOLDER).is_dir():
        yield Step("licence", "missing", "it does not say under what its teachers were used")
        return
    try:
        teachers = teachers_of(student)
    except ModelError as error:
        yield Step("licence", "broken", str(error))
        return
    for teacher in teachers:
        why = f", used all the same: {teacher.override}" if teacher.override is not None else ""
        owes = "".join(f"; {duty}" for duty in teacher.duties.in_words)
        yield Step("licence", "said", f"{teacher.label}: {teacher.licence or 'not stated'}{why}{owes}")


def _made_with(lineage: Lineage) -> Step:
    versions = ", ".join(f"{name} {version}" for name, version in lineage.versions.items())
    return Step("made with", "said", f"commit {lineage.commit}; {versions}" if lineage.commit else versions)


def _start(made: _Made, lineage: Lineage, *, root: Path) -> Iterator[Step]:
    """What it began as: an untouched student, the student of the stage before, or a model of somebody else's."""
    folder = root / lineage.start
    if not folder.is_dir():
        yield Step("start", "missing", f"{folder} is not here")
        return
    if lineage.start_model:
        try:
            found = model_digest(folder, models_root=root)
        except (ModelError, OSError) as error:
            found = first_line(error)
        yield compared("start", str(folder), found=found, wanted=lineage.start_model)
        return
    is_student = folder.parent.name == "students"
    try:
        begun = _made(folder, schema=STUDENT if is_student else START)
    except ModelError as error:
        yield Step("start", "broken", str(error))
        return
    if begun.address != made.made_of.get("start"):
        yield Step("start", "broken", f"{folder} is {begun.address[:SHOWN]}, and the student began as another one")
        return
    steps = walk(folder, run_root=root, after=lineage) if is_student else (_files(begun), _address(begun))
    for step in steps:
        yield Step(f"start: {step.what}", step.state, step.says)


def _learned(made: _Made) -> frozenset[str]:
    return frozenset(str(made.made_of[name]) for name in ("train", "dev") if name in made.made_of)
