"""Packing a cache for the golden files, the same bytes for the same cache."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path


def pack_golden(root: Path) -> bytes:
    """A compressed archive of all files of a cache."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path in sorted(root.rglob("*")):
            if path.is_file() and path.parent.name != "staging":
                info = tarfile.TarInfo(path.relative_to(root).as_posix())
                info.size = path.stat().st_size
                archive.addfile(info, io.BytesIO(path.read_bytes()))
    return gzip.compress(buffer.getvalue(), mtime=0)
