"""What the commands of `distill cache` do, for one teacher or for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from cache import Damage, TeacherCache
from cache.disk.directory import read_identity
from cache.disk.storage import Storage, list_teachers, open_storage
from cache.identity import Identity
from cache.upkeep.inventory import TeacherInventory, teacher_inventory
from configs import ConfigError
from configs.places import is_url

SHORTEST_PREFIX = 4

Progress = Callable[[float], None]


@dataclass(frozen=True, slots=True)
class Teacher:
    """A teacher of a cache and where its objects lie."""

    root: Path | str
    identity: Identity
    storage: Storage

    @property
    def digest(self) -> str:
        """The identity's digest."""
        return self.identity.digest()


@dataclass(frozen=True, slots=True)
class Verified:
    """A teacher whose objects were all compared with their digests; `bytes` were read, `damaged` should be empty."""

    identity: str
    segments: int
    bytes: int
    damaged: tuple[Damage, ...]


def teachers(root: Path | str) -> list[Teacher]:
    """The teachers of a cache.

    Raises:
        ConfigError: there is no cache at `root`.
        CacheError: a teacher's description cannot be read.
    """
    if not is_url(root) and not Path(root).is_dir():
        raise ConfigError(f"--cache-root {root} is no directory: name the cache that runtime.cache_root points to")
    try:
        digests = list_teachers(root)
    except OSError as error:
        raise ConfigError(f"--cache-root {root} cannot be read ({error.strerror})") from error
    return [_open(root, digest) for digest in digests]


def select(found: Sequence[Teacher], prefix: str | None, *, root: Path | str) -> list[Teacher]:
    """The teachers whose identity begins like this, all of them without a prefix.

    Raises:
        ConfigError: none does.
    """
    if prefix is None:
        return list(found)
    chosen = [teacher for teacher in found if teacher.digest.startswith(prefix.lower())]
    if not chosen or len(prefix) < SHORTEST_PREFIX:
        known = ", ".join(teacher.digest[:12] for teacher in found) or "none"
        raise ConfigError(
            f"no teacher in {root} begins with {prefix}: name {SHORTEST_PREFIX} or more digits; there are {known}"
        )
    return chosen


def select_one(found: Sequence[Teacher], prefix: str, *, root: Path | str) -> Teacher:
    """The only teacher whose identity begins like this.

    Raises:
        ConfigError: none does, or several do.
    """
    chosen = select(found, prefix, root=root)
    if len(chosen) > 1:
        names = ", ".join(teacher.digest[:16] for teacher in chosen)
        raise ConfigError(f"{len(chosen)} teachers in {root} begin with {prefix}: {names}; name more digits")
    return chosen[0]


def inventories(found: Sequence[Teacher], *, with_tail: bool) -> list[TeacherInventory]:
    """What is kept of each teacher; `with_tail` reads every row's tail mass."""
    return [teacher_inventory(teacher.storage, teacher.digest, with_tail=with_tail) for teacher in found]


def verify(found: Sequence[Teacher], *, progress: Progress) -> list[Verified]:
    """Compare every object with its digest; `progress` is told how many MB were read."""
    results, before = [], 0
    for teacher in found:
        size, segments, damaged = 0, 0, []
        cache = TeacherCache.open(teacher.root, teacher.identity, create=False)
        for count, broken in cache.verify_segments():
            size, segments = size + count, segments + 1
            damaged += broken
            progress((before + size) / 1e6)
        before += size
        results.append(Verified(teacher.digest, segments, size, tuple(damaged)))
    return results


def _open(root: Path | str, digest: str) -> Teacher:
    storage = open_storage(root, digest, create=False)
    return Teacher(root, read_identity(storage), storage)
