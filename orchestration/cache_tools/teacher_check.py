"""`distill cache verify --teacher`: is the teacher on disk still the one under whose identity its answers are kept?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cache.fingerprint import fingerprint_model
from configs import DistillConfig
from configs.places import FINGERPRINTS
from orchestration.inputs.preflight import resolve_paths
from orchestration.inputs.teachers import open_teacher


@dataclass(frozen=True, slots=True)
class HashedTeacher:
    """The identity (digests, hex) that runs have taken the teacher for, and that of every byte read anew."""

    label: str
    remembered: str
    read: str

    @property
    def differs(self) -> bool:
        """Whether what was remembered of the files is no longer true."""
        return self.remembered != self.read


def hash_teacher(config: DistillConfig, *, config_dir: Path, progress: Callable[[int, int], None]) -> HashedTeacher:
    """Hash every weight of a config's teacher, and correct what is remembered of them.

    Raises:
        ModelError: it cannot be found or read.
    """
    config = resolve_paths(config, config_dir=config_dir)
    teacher = open_teacher(config)
    memo = config.runtime.models_root / FINGERPRINTS
    prints = fingerprint_model(teacher.files.directory, memo=memo, reread=True, progress=progress)
    read = replace(teacher.identity, weights_sha256=prints.weights_sha256, config_sha256=prints.config_sha256)
    return HashedTeacher(teacher.files.label, teacher.identity.digest(), read.digest())
