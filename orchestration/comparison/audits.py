"""What audits of a finished run found, as files below its directory: `audits/<audit>.json`.

Each is a sealed document (`orchestration.outputs.kept`), addressed by everything that the audit rests on: the weights
of the models, the rows and the settings. Whoever audits again finds it by that address and computes nothing; whoever
reports reads whatever is there, and a file of another version is named and not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from evaluation.side_effects.findings import Audit, Audited
from orchestration.outputs.artifacts import digest_of, write_json
from orchestration.outputs.fields import from_fields, to_fields
from orchestration.outputs.kept import OutdatedError, read_sealed, sealed

AUDIT = "stillroom/audit/2"
"""The schema of what is kept, with its version."""

FOLDER = "audits"
"""The folder of a run directory that holds them."""


def audit_path(run_dir: Path, name: str) -> Path:
    """Where the audit of this name lies."""
    return run_dir / FOLDER / f"{name}.json"


def write_audit(audit: Audit, run_dir: Path) -> Path:
    """Write what an audit found, in place of what an earlier one did; returns the path of the file."""
    path = audit_path(run_dir, audit.audit)
    write_json(path, sealed(AUDIT, _address(audit.rests_on), to_fields(audit)))
    return path


def read_audit(run_dir: Path, name: str, *, rests_on: Mapping[str, str] | None = None) -> Audit | None:
    """The audit of this name, or None where there is none; with `rests_on`, only one that was made from all that.

    Raises:
        OutdatedError: it is not what was written, another version wrote it, or it was made from something else.
    """
    path = audit_path(run_dir, name)
    raw = read_sealed(path, schema=AUDIT, digest=None if rests_on is None else _address(rests_on))
    if raw is None:
        return None
    try:
        audit = from_fields(Audit, raw)
    except ValueError as error:
        raise OutdatedError(f"{path}: is not an audit ({error})") from error
    if audit.audit != name:
        raise OutdatedError(f"{path}: is the audit {audit.audit}")
    return audit


def read_audits(run_dir: Path) -> Audited:
    """Every audit of a run that can be read, by name, and a line for each file that cannot."""
    found: dict[str, Audit] = {}
    unreadable: list[str] = []
    for path in sorted((run_dir / FOLDER).glob("*.json")):
        try:
            audit = read_audit(run_dir, path.stem)
        except OutdatedError as error:
            unreadable.append(f"{error}: audit the run again")
            continue
        if audit is not None:
            found[path.stem] = audit
    return Audited(found, tuple(unreadable))


def _address(rests_on: Mapping[str, str]) -> str:
    return digest_of(of="audit", rests_on=dict(rests_on))
