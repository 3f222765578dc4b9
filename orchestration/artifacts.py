"""What stages leave behind, addressed by everything that went into it.

A student or an evaluation whose digest exists is not made again, whichever experiment made it. A file lock an
artifact keeps two pipelines from making the same one side by side: the second waits and then finds it done.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cache.disk.durable import replace_file
from configs import ConfigError

RECIPE = 1
"""Raised by hand when a release trains or measures differently from the same inputs."""


def digest_of(**inputs: object) -> str:
    """SHA-256 (hex) over named inputs; anything that JSON cannot say is a defect."""
    return hashlib.sha256(json.dumps({"recipe": RECIPE, **inputs}, sort_keys=True).encode()).hexdigest()


@dataclass(frozen=True, slots=True)
class Artifacts:
    """The artifacts below a run root, shared by all its experiments."""

    root: Path

    def init_dir(self, digest: str) -> Path:
        """An untouched student."""
        return self.root / "inits" / digest[:16]

    def student_dir(self, digest: str) -> Path:
        """A trained student."""
        return self.root / "students" / digest[:16]

    def work_dir(self, digest: str) -> Path:
        """Checkpoints and curves of a student in training."""
        return self.root / "work" / digest[:16]

    def read_evaluation(self, digest: str) -> dict[str, object] | None:
        """A finished evaluation, or None."""
        path = self._evaluation(digest)
        if not path.exists():
            return None
        evaluation: dict[str, object] = json.loads(path.read_text())
        return evaluation

    def write_evaluation(self, digest: str, evaluation: Mapping[str, object]) -> None:
        """Keep an evaluation."""
        write_json(self._evaluation(digest), evaluation)

    @contextmanager
    def claim(self, digest: str) -> Iterator[None]:
        """Hold the right to make one artifact; freed by the kernel when the process dies."""
        path = self.root / "locks" / digest[:16]
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            yield

    def _evaluation(self, digest: str) -> Path:
        return self.root / "evaluations" / f"{digest[:16]}.json"


@contextmanager
def claim_directory(directory: Path) -> Iterator[None]:
    """Hold a run directory alone; freed by the kernel when the process dies.

    Raises:
        ConfigError: another process holds it.
    """
    with (directory / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ConfigError(
                f"{directory} is in use by another run of the same experiment: wait for it, or change name"
            ) from error
        yield


def write_json(path: Path, content: object) -> None:
    """Write a JSON file so that a reader sees all of it or nothing."""
    text = json.dumps(content, indent=2)
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_file(path, text.encode())
