"""Which artifact a tuned teacher of a task became, noted in the run directory for whoever looks for it later."""

from __future__ import annotations

import json
from pathlib import Path

from cache.disk.durable import replace_file
from configs.regular_files import UnreadableFileError, read_json

PREPARED = "prepared.json"
"""The file of a run directory with the digest of each tuned teacher by the teacher's name."""

FILE_BYTES = 2**20


def note_prepared(directory: Path, name: str, *, digest: str) -> None:
    """Note what the teacher of this name became."""
    noted = noted_prepared(directory)
    if noted.get(name) != digest:
        replace_file(directory / PREPARED, json.dumps(noted | {name: digest}, indent=1).encode())


def noted_prepared(directory: Path) -> dict[str, str]:
    """What was noted; nothing where nothing sound was."""
    try:
        said = read_json(directory / PREPARED, at_most=FILE_BYTES)
    except (OSError, UnreadableFileError):
        return {}
    return {name: digest for name, digest in said.items() if isinstance(digest, str)} if isinstance(said, dict) else {}
