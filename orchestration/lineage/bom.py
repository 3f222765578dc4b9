"""Where a student comes from as a bill of materials for machines: CycloneDX 1.6, JSON (`distill lineage --cyclonedx`).

Models (the student, what it began as, its teachers) with digests and licences, data with digests, the code and its
libraries, and what depends on what. It says what was written down while the student was made and repeats nothing that
nobody knows; whether all of it still holds is what the steps of `distill lineage` say. A digest that is not over one
file stands in a property, for a hash of CycloneDX is of a content.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from cache.disk.durable import replace_file
from cache.fingerprint import fingerprint_model
from configs import ConfigError, DistillError, Experiment, load_experiment
from configs.model_files import CARD
from configs.places import RESOLVED, SUMMARY
from configs.regular_files import UnreadableFileError
from configs.teachers import key_of_teacher
from orchestration.inputs.models import is_at_hand, locate_model
from orchestration.lineage.records import Lineage, from_summary, read_foundation
from orchestration.lineage.signing import SIGNATURE
from orchestration.outputs.artifacts import START, STUDENT
from orchestration.outputs.foundations import UNUSABLE, model_sources
from orchestration.outputs.kept import OutdatedError, file_sha256, read_addressed
from student_train.papers import FOLDER, TaughtUnder, teachers_of

if TYPE_CHECKING:
    from cyclonedx.model import HashType, Property
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import Component
    from cyclonedx.model.license import License

NOT_INSTALLED = (
    'a bill of materials needs cyclonedx-python-lib, which is not installed: install "stillroom[bom]", or leave out '
    "--cyclonedx"
)

PROPERTY = "stillroom:"
"""What the names of our own properties begin with."""

OURS = (SUMMARY, SIGNATURE, CARD)
"""Files beside a student that are about it."""


@dataclass(frozen=True, slots=True)
class _Stage:
    """A student, or an untouched one, by its folder: its address, and what was written down of how it was made."""

    folder: Path
    address: str
    lineage: Lineage | None

    @property
    def ref(self) -> str:
        """What it is called in the bill."""
        return f"model:{self.address[:16]}"


def write_bom(student: Path, to: Path, *, run_root: Path | None = None) -> None:
    """Write the bill of a student that was made here to a file; `run_root` is as for `walk`.

    Raises:
        ConfigError: the library is not installed, or the file cannot be written.
        ModelError: the student does not say who taught it.
        DistillError: what was written down of it cannot be read.
    """
    try:
        from cyclonedx.output.json import JsonV1Dot6
    except ImportError:
        raise ConfigError(NOT_INSTALLED) from None
    text = JsonV1Dot6(bom_of(student, run_root=run_root)).output_as_string(indent=2)
    try:
        to.parent.mkdir(parents=True, exist_ok=True)
        replace_file(to, text.encode() + b"\n")
    except OSError as error:
        raise ConfigError(f"--cyclonedx={to} cannot be written ({error.strerror}): name another file") from error


def bom_of(student: Path, *, run_root: Path | None = None) -> Bom:
    """The bill of a student; it raises as `write_bom`."""
    from cyclonedx.model.bom import Bom
    from cyclonedx.model.component import ComponentType

    root = student.resolve().parent.parent if run_root is None else run_root
    stages = list(_stages(student, root=root))
    first = stages[0]
    made = [
        _model(stage, is_student=at == 0 or stage.folder.parent.name == "students") for at, stage in enumerate(stages)
    ]
    teachers = teachers_of(student) if (student / FOLDER).is_dir() else ()
    run = None if first.lineage is None else root / first.lineage.run
    config = _config(run)
    others = [
        *(_teacher(each, config) for each in teachers),
        *_begun_elsewhere(stages, root=root),
        *_data(run),
        *_learned(first.lineage),
    ]
    code = _code(first.lineage)
    # A bill has one serial number as long as it is of the same student.
    bom = Bom(components=[*made[1:], *others, *code], serial_number=uuid.uuid5(uuid.NAMESPACE_URL, first.address))
    bom.metadata.component = made[0]
    for before, after in pairwise(made):
        bom.register_dependency(before, [after])
    bom.register_dependency(made[0], [*others, *code[:1]])
    if code:
        bom.register_dependency(code[0], code[1:])
    assert made[0].type is ComponentType.MACHINE_LEARNING_MODEL
    return bom


def _stages(student: Path, *, root: Path) -> Iterator[_Stage]:
    """The student, the one of the stage before, and so on, to what the first of them began as if that was made here."""
    folder: Path | None = student
    schema = STUDENT
    while folder is not None:
        found = read_addressed(folder / SUMMARY, schema=schema)
        if found is None:
            raise ConfigError(f"{folder} has no {SUMMARY}: it is not a student that was made here")
        address, fields = found
        try:
            lineage = from_summary(fields)
        except ValueError as error:
            raise OutdatedError(f"{folder / SUMMARY}: {error}") from error
        yield _Stage(folder, address, lineage)
        folder = None
        if lineage is not None and not lineage.start_model and (root / lineage.start / SUMMARY).is_file():
            folder = root / lineage.start
            schema = STUDENT if folder.parent.name == "students" else START


def _model(stage: _Stage, *, is_student: bool) -> Component:
    """A student or a start with all of its files."""
    from cyclonedx.model.component import Component, ComponentType

    paths = sorted(path for path in stage.folder.rglob("*") if path.is_file() and path.name not in OURS)
    files = [
        Component(
            type=ComponentType.FILE,
            name=str(path.relative_to(stage.folder)),
            bom_ref=f"{stage.ref}/{path.relative_to(stage.folder)}",
            hashes=[_sha256(_digest(path))],
        )
        for path in paths
    ]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=stage.folder.name,
        version=stage.address,
        bom_ref=stage.ref,
        description="a student that was trained" if is_student else "what a student began as, before it was trained",
        components=files,
        properties=[_property("address", stage.address)],
    )


def _digest(path: Path) -> str:
    try:
        return file_sha256(path)
    except (OSError, UnreadableFileError) as error:
        raise OutdatedError(f"{path} cannot be read ({error})") from error


def _teacher(taught: TaughtUnder, config: Experiment | None) -> Component:
    """A teacher, or another model that the student began with, under its licence; its weights where they are here."""
    from cyclonedx.model.component import Component, ComponentType

    roles = [role for role, holds in {"taught": taught.taught, "began with its weights": taught.began}.items() if holds]
    weights = _weights_of(taught.name, config)
    said = [_property("role", " and ".join(roles))]
    said += [] if taught.override is None else [_property("licence-override", taught.override)]
    said += [_property("duty", duty) for duty in taught.duties.in_words]
    return Component(
        type=ComponentType.MACHINE_LEARNING_MODEL,
        name=taught.label,
        bom_ref=f"teacher:{taught.name}",
        licenses=_licence(taught),
        properties=[*said, *([] if weights is None else [_property("weights-sha256", weights)])],
    )


def _weights_of(name: str, config: Experiment | None) -> str | None:
    """The digest of a teacher's weights, where the run names it and they are on this machine."""
    keys = (f"{key_of_teacher(name)}.model", f"students.{name}.init.model", f"students.{name}.start.model")
    sources = {} if config is None else dict(model_sources(config))
    source = next((sources[key] for key in keys if key in sources), None)
    if config is None or source is None or not is_at_hand(source):
        return None
    try:
        return fingerprint_model(locate_model(source, models_root=config.runtime.models_root)).weights_sha256
    except (DistillError, OSError):
        return None


def _licence(taught: TaughtUnder) -> list[License]:
    """The licence that it was used under, as SPDX writes it where that is known."""
    from cyclonedx.model.license import DisjunctiveLicense, LicenseExpression

    from configs.licences import terms_of

    if taught.licence is None:
        return []
    try:
        terms = terms_of(taught.licence, key=f"the licence of {taught.label}")
    except ConfigError:
        return [DisjunctiveLicense(name=taught.licence)]
    return [LicenseExpression(terms.licence) if terms.known else DisjunctiveLicense(name=taught.licence)]


def _begun_elsewhere(stages: list[_Stage], *, root: Path) -> Iterator[Component]:
    """A model of somebody else's that the first stage began with."""
    from cyclonedx.model.component import Component, ComponentType

    lineage = stages[-1].lineage
    if lineage is not None and lineage.start_model:
        yield Component(
            type=ComponentType.MACHINE_LEARNING_MODEL,
            name=Path(lineage.start).name,
            bom_ref=f"start:{lineage.start_model[:16]}",
            description="a model that the student began with, which was not made here",
            properties=[_property("files-digest", lineage.start_model), _property("role", "began with its weights")],
        )


def _data(run: Path | None) -> Iterator[Component]:
    """The files of data and tasks that the run names, with their digests."""
    from cyclonedx.model.component import Component, ComponentType

    foundation = None if run is None or not run.is_dir() else read_foundation(run)
    for key, digest in sorted({} if foundation is None else foundation.content.items()):
        if digest == UNUSABLE or not key.startswith(("data.", "task", "evaluation.tasks.")) or key.endswith(".model"):
            continue
        # That of a task is over its file and its rows.
        is_file = key.endswith(".path") or key.startswith("data.transfer")
        yield Component(
            type=ComponentType.DATA,
            name=key,
            bom_ref=f"data:{key}",
            hashes=[_sha256(digest)] if is_file else [],
            properties=[] if is_file else [_property("digest", digest)],
        )


def _learned(lineage: Lineage | None) -> Iterator[Component]:
    """What the student learned from: rows of caches and examples, by their digests."""
    from cyclonedx.model.component import Component, ComponentType

    for name, digest in sorted({} if lineage is None else lineage.learned.items()):
        yield Component(
            type=ComponentType.DATA,
            name=name,
            bom_ref=f"learned:{name}",
            description="rows that a stage learned from, or was chosen by",
            properties=[_property("digest", digest)],
        )


def _code(lineage: Lineage | None) -> list[Component]:
    """The code that trained the student, and then the libraries that make its numbers."""
    from cyclonedx.model.component import Component, ComponentType
    from packageurl import PackageURL

    versions: Mapping[str, str] = {} if lineage is None else lineage.versions
    commit = [] if lineage is None or not lineage.commit else [_property("commit", lineage.commit)]
    names = sorted(versions, key=lambda name: (name != "stillroom", name))
    return [
        Component(
            type=ComponentType.APPLICATION if name == "stillroom" else ComponentType.LIBRARY,
            name=name,
            version=versions[name],
            bom_ref=f"code:{name}",
            purl=None if name == "stillroom" else PackageURL("pypi", name=name, version=versions[name]),
            properties=commit if name == "stillroom" else [],
        )
        for name in names
    ]


def _config(run: Path | None) -> Experiment | None:
    """The configuration of the run with real paths; None where it is not here any more."""
    if run is None or not (run / RESOLVED).is_file():
        return None
    try:
        return load_experiment(run / RESOLVED)
    except DistillError:
        return None  # the steps of the lineage say what is wrong with it


def _sha256(digest: str) -> HashType:
    from cyclonedx.model import HashAlgorithm, HashType

    return HashType(alg=HashAlgorithm.SHA_256, content=digest)


def _property(name: str, value: str) -> Property:
    from cyclonedx.model import Property

    return Property(name=f"{PROPERTY}{name}", value=value)
