"""Archives taken apart and put together again."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

from rewriting_builders import names
from store_builders import open_cache, teacher_dir

Members = list[tuple[tarfile.TarInfo, bytes]]


def members(path: Path) -> Members:
    with tarfile.open(path) as file:
        return [(item, file.extractfile(item).read()) for item in file]  # type: ignore[union-attr]


def write(path: Path, content: Members) -> Path:
    with tarfile.open(path, "w") as file:
        for member, data in content:
            member.size = len(data)
            file.addfile(member, io.BytesIO(data))
    return path


def assert_nothing_came(root: Path) -> None:
    if teacher_dir(root).exists():
        assert names(root, "manifests") == []
        assert open_cache(root).stats().records == 0
