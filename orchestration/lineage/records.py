"""What is written down of a student while it is made, so that its way back can be walked later.

A student's summary (`stillroom.json`) says what its address is the digest of, so that the address proves it: the start,
the stage with every setting, and the digests of what was learned. Beside that it names where each of these lay
(`Lineage`). A run writes down once what its name is the digest of: its configuration and the files that this names
(`Foundation`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from orchestration.environment import code_commit, installed_versions
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.fields import from_fields, to_fields
from orchestration.outputs.kept import OutdatedError, read_sealed, sealed

MADE_OF = "made_of"
"""The field of a summary with the inputs of its address."""

LINEAGE = "lineage"
"""The field of a student's summary with a `Lineage`."""

FOUNDATION = "stillroom/foundation/1"
"""The schema of what a run rests on, with its version."""

FILE = "foundation.json"
"""The file of a run directory with its `Foundation`."""


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where lay what a student was made of, seen from the run root, and what it was made with.

    `run` is the name of the run directory. `start` is the untouched student, the student before or a model; of a model
    that was not made here `start_model` is the digest of its files (`outputs.foundations.model_digest`), else empty.
    `learned` are the digests of views and lessons by their files in the run directory. `commit` is that of the code, ""
    where it was installed without one.
    """

    run: str
    start: str
    start_model: str
    learned: Mapping[str, str]
    versions: Mapping[str, str]
    commit: str


@dataclass(frozen=True, slots=True)
class Foundation:
    """What a run is named by: the digest of its configuration, and those of the files that this names, by key."""

    config: str
    content: Mapping[str, str]


def lineage_of(*, run: Path, run_root: Path, start: Path, start_model: str, learned: Mapping[Path, str]) -> Lineage:
    """The lineage of a student that is made now; `learned` are digests by their files."""
    return Lineage(
        run=run.name,
        start=_seen_from(run_root, start),
        start_model=start_model,
        learned={_seen_from(run, path): digest for path, digest in sorted(learned.items())},
        versions=installed_versions(),
        commit=code_commit(),
    )


def to_summary(lineage: Lineage, *, made_of: Mapping[str, object]) -> dict[str, object]:
    """The fields of a student's summary that say where it comes from."""
    return {MADE_OF: dict(made_of), LINEAGE: to_fields(lineage)}


def from_summary(fields: Mapping[str, object]) -> Lineage | None:
    """What a student's summary says of where it comes from; None of one that an earlier version made.

    Raises:
        ValueError: it is not what any version writes.
    """
    raw = fields.get(LINEAGE)
    if raw is None:
        return None
    if not isinstance(raw, Mapping):
        raise ValueError(f"{LINEAGE} is not of its type")
    return from_fields(Lineage, raw)


def write_foundation(foundation: Foundation, run_dir: Path, *, experiment: str) -> None:
    """Write down what a run rests on; `experiment` is the digest that it is named by."""
    write_json(run_dir / FILE, sealed(FOUNDATION, experiment, to_fields(foundation)))


def read_foundation(run_dir: Path) -> Foundation | None:
    """What a run rests on; None where nothing is written down.

    Raises:
        OutdatedError: it is not what was written.
    """
    raw = read_sealed(run_dir / FILE, schema=FOUNDATION)
    try:
        return None if raw is None else from_fields(Foundation, raw)
    except ValueError as error:
        raise OutdatedError(f"{run_dir / FILE}: does not say what a run rests on ({error})") from error


def _seen_from(root: Path, path: Path) -> str:
    """A path below a root from there, so that both may be moved together; any other one as it is."""
    path, root = path.resolve(), root.resolve()
    return str(path.relative_to(root) if path.is_relative_to(root) else path)
