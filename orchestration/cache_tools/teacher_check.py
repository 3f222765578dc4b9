"""`distill cache verify --teacher`: is a teacher on disk still the one under whose identity its answers are kept?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from cache.fingerprint import fingerprint_model
from configs import DistillConfig
from configs.places import FINGERPRINTS
from orchestration.cache_tools.configured_teachers import configured_teachers
from orchestration.inputs.real_paths import resolve_paths


@dataclass(frozen=True, slots=True)
class HashedTeacher:
    """The identity (digests, hex) that runs have taken a teacher for, and that of every byte read anew.

    `name` is what the experiment calls it.
    """

    name: str
    label: str
    remembered: str
    read: str

    @property
    def differs(self) -> bool:
        """Whether what was remembered of the files is no longer true."""
        return self.remembered != self.read


def hash_teachers(
    config: DistillConfig, *, config_dir: Path, progress: Callable[[int, int], None], prefix: str | None = None
) -> list[HashedTeacher]:
    """Hash every weight of a config's teachers, and correct what is remembered of them.

    Those alone whose identity begins with `prefix`, where one is given. `progress` hears of bytes, over all of them.

    Raises:
        ConfigError: there is no such teacher.
        ModelError: one cannot be found or read.
    """
    config = resolve_paths(config, config_dir=config_dir)
    memo, before, found = config.runtime.models_root / FINGERPRINTS, 0, list[HashedTeacher]()
    for name, teacher in configured_teachers(config, prefix).items():
        hashed = 0

        def tell(done: int, total: int, *, before: int = before) -> None:
            nonlocal hashed
            hashed = total
            progress(before + done, before + total)

        prints = fingerprint_model(teacher.files.directory, memo=memo, reread=True, progress=tell)
        before += hashed
        read = replace(teacher.by_weights, weights_sha256=prints.weights_sha256, config_sha256=prints.config_sha256)
        found.append(HashedTeacher(name, teacher.files.label, teacher.identity.digest(), read.digest()))
    return found
