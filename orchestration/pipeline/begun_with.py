"""Which teachers a run was begun with: a run directory is continued with the same, or not at all.

Behind a door another teacher may stand by the next start, under the same name. Weights that are here need no such note:
their digest is in the name of the run directory.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from cache.disk.durable import replace_file
from configs import ConfigError
from configs.regular_files import UnreadableFileError, read_json
from configs.teachers import key_of_teacher
from orchestration.inputs.teachers import Teacher

BEGUN_WITH = "teachers.json"
"""The file of a run directory with the identity (digest, hex) of each teacher by its name."""

FILE_BYTES = 2**20


def require_begun_with(directory: Path, teachers: Mapping[str, Teacher]) -> None:
    """Refuse a teacher behind a door that is not the one that the run was begun with; note those of a new run.

    Raises:
        ConfigError: naming both.
    """
    path, now = directory / BEGUN_WITH, {name: teacher.identity.digest() for name, teacher in teachers.items()}
    before = _read(path)
    for name, teacher in teachers.items():
        known = before.get(name)
        if teacher.door is not None and known is not None and known != now[name]:
            raise ConfigError(
                f"{key_of_teacher(name)}: {teacher.door.label} is {now[name][:12]}, and {directory} was begun with "
                f"{known[:12]}: ask a door that has that one, or remove the run directory to begin anew"
            )
    if before != now:
        replace_file(path, json.dumps(now, indent=1).encode())


def _read(path: Path) -> dict[str, str]:
    """What was noted; nothing where nothing sound was."""
    try:
        said = read_json(path, at_most=FILE_BYTES)
    except (OSError, UnreadableFileError):
        return {}
    if not isinstance(said, dict):
        return {}
    return {name: digest for name, digest in said.items() if isinstance(digest, str)}
