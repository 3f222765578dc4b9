"""What stages leave behind, addressed by everything that went into it.

A student or an evaluation whose digest exists, and which is still what was written (`orchestration.outputs.kept`), is
not made again, whichever experiment made it. A file lock an artifact keeps two pipelines from making the same one side
by side: the second says so, waits, and then finds it done.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import platform
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from cache.disk.durable import remove_leftovers, replace_file
from configs import ConfigError
from configs.places import DIGESTS, STAGING, SUMMARY
from configs.regular_files import open_own
from configs.visible_text import visible
from orchestration.outputs.fields import from_fields
from orchestration.outputs.kept import FileDigests, OutdatedError, read_directory, read_sealed, seal_directory, sealed
from orchestration.outputs.locks import take

RECIPE = 1
"""Raised by hand when a release trains or measures differently from the same inputs."""

START = "stillroom/start/1"
STUDENT = "stillroom/student/2"
EVALUATION = "stillroom/evaluation/2"
"""Schemas of what is kept, with their versions."""

MADE_ANEW = ": it is made anew"
"""Ends what is said of something that is kept and cannot be used."""

Value = TypeVar("Value")
Result = TypeVar("Result")

logger = logging.getLogger(__name__)


def digest_of(**inputs: object) -> str:
    """SHA-256 (hex) over named inputs; anything that JSON cannot say is a defect."""
    return hashlib.sha256(json.dumps({"recipe": RECIPE, **inputs}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts below a run root, shared by all its experiments. `say` tells a person what is unusual."""

    root: Path
    say: Callable[[str], None] = logger.warning
    _said: set[str] = field(default_factory=set)

    def init_dir(self, digest: str) -> Path:
        """An untouched student."""
        return self.root / "inits" / digest[:16]

    def student_dir(self, digest: str) -> Path:
        """A trained student."""
        return self.root / "students" / digest[:16]

    def work_dir(self, digest: str) -> Path:
        """Checkpoints and curves of a student in training."""
        return self.root / "work" / digest[:16]

    @property
    def digests(self) -> FileDigests:
        """The remembered hashes of files."""
        return FileDigests(self.root / DIGESTS)

    def has_start(self, digest: str) -> bool:
        """Whether an untouched student is there, whole and unharmed."""
        return self._directory(self.init_dir(digest), schema=START, digest=digest) is not None

    def keep_start(self, digest: str, fields: Mapping[str, object]) -> None:
        """Mark an untouched student as finished."""
        seal_directory(self.init_dir(digest), schema=START, digest=digest, fields=fields)

    def read_student(self, digest: str) -> dict[str, object] | None:
        """What `keep_student` said of a trained student that is there, whole and unharmed; else None."""
        return self._directory(self.student_dir(digest), schema=STUDENT, digest=digest)

    def keep_student(self, digest: str, fields: Mapping[str, object]) -> None:
        """Mark a trained student as finished."""
        seal_directory(self.student_dir(digest), schema=STUDENT, digest=digest, fields=fields)

    def read_evaluation(self, digest: str, kind: type[Value]) -> Value | None:
        """A finished evaluation that is still what was written, as a dataclass with a field `digest`; or None."""

        def read() -> Value | None:
            path = self._evaluation(digest)
            fields = read_sealed(path, schema=EVALUATION, digest=digest)
            try:
                return None if fields is None else from_fields(kind, {**fields, "digest": digest})
            except ValueError as error:
                raise OutdatedError(f"{path}: is not an evaluation ({error})") from error

        return self._unless_outdated(read)

    def holds_evaluation(self, digest: str) -> bool:
        """Whether an evaluation is there that is still what was written."""
        path = self._evaluation(digest)
        return self._unless_outdated(lambda: read_sealed(path, schema=EVALUATION, digest=digest)) is not None

    def write_evaluation(self, digest: str, evaluation: Mapping[str, object]) -> None:
        """Keep an evaluation; a dataclass becomes a mapping by `fields.to_fields`."""
        write_json(self._evaluation(digest), sealed(EVALUATION, digest, evaluation))

    @contextmanager
    def claim(self, digest: str, *, what: str) -> Iterator[None]:
        """Hold the right to make one artifact, `what` in words; freed by the kernel when the process dies.

        Waits for whoever holds it, and says so.

        Raises:
            ConfigError: the file system of the run root has no locks.
        """
        with self._lock(digest[:16]) as lock:
            if not _taken(lock, wait=False):
                holder = visible(os.pread(lock, 200, 0).decode("utf-8", "replace"))
                self.say(f"{what} is being made by another run ({holder or 'which one is not known'}): waiting for it")
                _taken(lock, wait=True)
            os.ftruncate(lock, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S")
            os.pwrite(lock, f"process {os.getpid()} on {platform.node()} since {since}".encode(), 0)
            yield

    def sweep(self) -> None:
        """Remove what killed runs left: half-written models, and the checkpoints of students that are finished."""
        for folder in ("inits", "students"):
            for path in self.root.glob(f"{folder}/{STAGING}*"):
                self._remove_unless_made(path, name=path.name.removeprefix(STAGING).partition("-")[0])
        for path in self.root.glob("work/*"):
            if self._is_of_finished(path):
                self._remove_unless_made(path, name=path.name)
        remove_leftovers(self.root / "evaluations")

    def _is_of_finished(self, work: Path) -> bool:
        summary = self.root / "students" / work.name / SUMMARY
        try:
            return read_sealed(summary, schema=STUDENT) is not None
        except OutdatedError:
            return False

    def _remove_unless_made(self, path: Path, *, name: str) -> None:
        with self._lock(name) as lock:
            if _taken(lock, wait=False):
                logger.info("%s was left by a killed run and is removed", path)
                shutil.rmtree(path, ignore_errors=True)

    def _directory(self, folder: Path, *, schema: str, digest: str) -> dict[str, object] | None:
        return self._unless_outdated(lambda: read_directory(folder, schema=schema, digest=digest, digests=self.digests))

    def _unless_outdated(self, read: Callable[[], Result | None]) -> Result | None:
        """What `read` gives; what is kept but cannot be used is named, once, and counts as absent."""
        try:
            return read()
        except OutdatedError as error:
            if str(error) not in self._said:
                self._said.add(str(error))
                self.say(f"{error}{MADE_ANEW}")
            return None

    @contextmanager
    def _lock(self, name: str) -> Iterator[int]:
        path = self.root / "locks" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        lock = open_own(path)
        try:
            yield lock
        finally:
            os.close(lock)

    def _evaluation(self, digest: str) -> Path:
        return self.root / "evaluations" / f"{digest[:16]}.json"


@contextmanager
def claim_directory(directory: Path) -> Iterator[None]:
    """Hold a run directory alone; freed by the kernel when the process dies.

    Raises:
        ConfigError: another process holds it, or the file system has no locks.
    """
    with os.fdopen(open_own(directory / ".lock"), "wb") as lock:
        if not _taken(lock.fileno(), wait=False):
            raise ConfigError(
                f"{directory} is in use by another run of the same experiment: wait for it, or change name"
            )
        yield


def _taken(lock: int, *, wait: bool) -> bool:
    """`locks.take`, for locks below the run root.

    Raises:
        ConfigError: the file system has no locks.
    """
    try:
        return take(lock, wait=wait)
    except OSError as error:
        raise ConfigError(
            f"runtime.run_root is on a file system that has no file locks ({error.strerror}): name a directory on "
            "another one, or have it mounted with locks"
        ) from error


def sweep_run(directory: Path) -> None:
    """Remove what a killed run left half written in its run directory, which the caller has claimed."""
    for folder in (directory, directory / "views"):
        remove_leftovers(folder, older_than_s=0.0)
    for path in directory.glob(f"rollouts/{STAGING}*"):
        shutil.rmtree(path, ignore_errors=True)


def write_json(path: Path, content: object) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    text = json.dumps(content, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
