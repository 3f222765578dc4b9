"""Directories that are made once and then stay: filled beside their final name, and renamed when they are whole."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4

from orchestration.outputs.locks import take_if_possible

STAGING = ".staging"
STAGING_IDLE_S = 600.0
"""Only a staging directory as old as this is looked at: between its making and its lock lies a moment."""

logger = logging.getLogger(__name__)


def make_once(target: Path, fill: Callable[[Path], None]) -> Path:
    """Fill a directory beside the target and rename it, unless the target is there; what killed runs left is removed.

    A killed run leaves no half-filled directory under the final name.
    """
    if target.exists():
        return target
    target.parent.mkdir(parents=True, exist_ok=True)
    _sweep(target.parent)
    staging = target.with_name(f"{target.name}.{uuid4().hex[:8]}{STAGING}")
    staging.mkdir()
    try:
        with _locked(staging):
            fill(staging)
            try:
                staging.rename(target)
            except OSError:
                if not target.exists():
                    raise
                logger.info("%s was made by another process meanwhile", target.name)
    finally:
        shutil.rmtree(staging, ignore_errors=True)
    return target


def _sweep(models_root: Path) -> None:
    """Remove the staging directories whose owner is dead: the kernel has let go of its lock."""
    for staging in models_root.glob(f"*{STAGING}"):
        try:
            old = time.time() - staging.lstat().st_mtime > STAGING_IDLE_S
            if not old or staging.is_symlink():
                continue
            with _locked(staging) as is_ours:
                if is_ours:
                    logger.info("removing %s, which a killed run left", staging)
                    shutil.rmtree(staging, ignore_errors=True)
        except OSError as error:
            logger.info("%s stays: %s", staging, error)


@contextmanager
def _locked(folder: Path) -> Iterator[bool]:
    """Hold a directory until the block ends or the process does; whether that worked, as some disks lock nothing."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield take_if_possible(handle)
    finally:
        os.close(handle)
