"""Who is compared: the teachers, the untouched starts and the trained students, as an examination knows them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from configs import DistillConfig, DistillError
from configs.teachers import FIRST
from orchestration.comparison.examination import Candidate
from orchestration.inputs.models import open_model
from orchestration.inputs.teachers import Teacher, identity_of
from orchestration.pipeline.chain import Student


def teacher_candidate(teacher: Teacher, *, name: str = FIRST) -> Candidate:
    """A teacher as a row of the comparison; `name` is what the experiment calls it."""
    files, identity = teacher.files, teacher.identity
    return Candidate(name, "teacher", identity.digest(), files.directory, identity, files.shape.parameters)


def student_candidates(students: Sequence[Student], *, config: DistillConfig) -> tuple[list[Candidate], list[str]]:
    """The untouched starts, each once in every dtype that it is trained in, and the trained students.

    Beside them a line for each that cannot be read.
    """
    starts = {(student.start.digest, student.start_dtype): student for student in students}
    names = {key: "untouched" if len(starts) == 1 else f"untouched ({one.name})" for key, one in starts.items()}
    opened = [partial(_untouched, one, name=names[key], config=config) for key, one in starts.items()]
    opened += [
        partial(_trained, student, start=names[student.start.digest, student.start_dtype], config=config)
        for student in students
    ]
    found: list[Candidate] = []
    failures: list[str] = []
    for each in opened:
        try:
            found.append(each())
        except DistillError as error:
            failures.append(str(error))
    return found, failures


def _untouched(student: Student, *, name: str, config: DistillConfig) -> Candidate:
    start = student.start
    files = open_model(start.directory, label=name)
    identity = identity_of(files, config=config, dtype=student.start_dtype)
    return Candidate(
        name, "untouched", start.digest, start.directory, identity, files.shape.parameters, tokens=start.tokens
    )


def _trained(student: Student, *, start: str, config: DistillConfig) -> Candidate:
    files = open_model(student.directory, label=student.name)
    identity = identity_of(files, config=config, dtype=student.dtype)
    return Candidate(
        name=student.name,
        role="student",
        digest=student.digest,
        directory=student.directory,
        identity=identity,
        parameters=files.shape.parameters,
        method=", ".join(link.stage.objective for link in student.links),
        start=start,
        tokens=student.start.tokens,
    )
