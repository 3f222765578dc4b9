"""Directories that appear whole or not at all.

A model or a checkpoint is many files. It is written into a staging directory beside its final place, every file and
directory is synced, and one rename makes it visible. A process killed at any point leaves a staging directory that no
reader looks at.
"""

from __future__ import annotations

import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from configs.model_files import companions
from configs.places import STAGING


@contextmanager
def staged_directory(final: Path) -> Iterator[Path]:
    """Yield an empty directory that becomes `final` when the block ends without an error.

    An existing `final` is replaced. On an error the staging directory is removed and `final` is left as it was.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    staging = new_staging(final)
    try:
        yield staging
        commit_directory(staging, final)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise


def new_staging(final: Path) -> Path:
    """An empty staging directory beside `final`, on the same file system so that a rename is atomic."""
    staging = final.parent / f"{STAGING}{final.name}-{uuid.uuid4().hex[:12]}"
    staging.mkdir(parents=True)
    return staging


def commit_directory(staging: Path, final: Path) -> None:
    """Sync everything below `staging`, then rename it to `final`; an existing `final` is replaced."""
    _sync_tree(staging)
    if final.exists():
        old = final.parent / f"{STAGING}{final.name}-old-{uuid.uuid4().hex[:12]}"
        # A directory cannot be renamed over one that holds something: for a moment neither has the name `final`.
        os.rename(final, old)
        os.rename(staging, final)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(staging, final)
    _sync(final.parent)


def numbered(folder: Path, prefix: str) -> list[tuple[int, Path]]:
    """The entries `<prefix><number>` of a folder with their numbers, in numerical order: 1000 comes after 999."""
    found = []
    for path in folder.glob(f"{prefix}*"):
        number = path.name.removeprefix(prefix)
        if number.isascii() and number.isdecimal():
            found.append((int(number), path))
    return sorted(found)


def copy_companions(source: Path, target: Path) -> None:
    """Copy what belongs to a model besides weights and config: tokenizer, templates, generation config, licence.

    What an earlier stage wrote about itself stays behind: it does not describe the model that is written here.

    Raises:
        ModelError: one of them is not a regular file, or is longer than such a file may be.
    """
    for path in companions(source):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(exist_ok=True)
        shutil.copyfile(path, copy)


def _sync_tree(root: Path) -> None:
    """Flush every file and directory below `root` to disk, children before parents."""
    for folder, _, files in os.walk(root, topdown=False):
        for name in files:
            _sync(Path(folder, name))
        _sync(Path(folder))


def _sync(path: Path) -> None:
    """Flush one file or directory to disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
