"""What the commands of `distill cache` do, for one teacher or for all of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from cache import Damage, TeacherCache
from cache.disk.directory import read_identity
from cache.disk.roots import list_teachers, open_storage
from cache.disk.storage import Storage
from cache.identity import Identity
from cache.upkeep.proof import prove_segment
from configs import CacheError, ConfigError
from configs.places import is_url

SHORTEST_PREFIX = 4

TellMB = Callable[[float], None]

LeaveOut = Callable[[str], None]
"""Called with one line of reason for each teacher whose cache cannot be read and is left out."""

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True, slots=True)
class CachedTeacher:
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


def teachers(root: Path | str, *, left_out: LeaveOut) -> list[CachedTeacher]:
    """The teachers of a cache; `left_out` hears of those whose description cannot be read.

    Raises:
        ConfigError: there is no cache at `root`.
    """
    if not is_url(root) and not Path(root).is_dir():
        raise ConfigError(f"--cache-root {root} is not a directory: name the cache that runtime.cache_root points to")
    try:
        digests = list_teachers(root)
    except OSError as error:
        raise ConfigError(f"--cache-root {root} cannot be read ({error.strerror})") from error
    return each(digests, lambda digest: _open(root, digest), left_out=left_out)


def each(found: Sequence[Item], work: Callable[[Item], Result], *, left_out: LeaveOut) -> list[Result]:
    """`work` on one teacher after the other; `left_out` hears of those where it fails, and the others go on."""
    results = []
    for item in found:
        try:
            results.append(work(item))
        except CacheError as error:
            left_out(str(error))
    return results


def select(found: Sequence[CachedTeacher], prefix: str | None, *, root: Path | str) -> list[CachedTeacher]:
    """The teachers whose identity begins like this, all of them without a prefix.

    Raises:
        ConfigError: there is none.
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


def select_one(found: Sequence[CachedTeacher], prefix: str, *, root: Path | str) -> CachedTeacher:
    """The only teacher whose identity begins like this.

    Raises:
        ConfigError: there is none, or there are several.
    """
    chosen = select(found, prefix, root=root)
    if len(chosen) > 1:
        names = ", ".join(teacher.digest[:16] for teacher in chosen)
        raise ConfigError(f"{len(chosen)} teachers in {root} begin with {prefix}: {names}; name more digits")
    return chosen[0]


def verify(found: Sequence[CachedTeacher], *, deep: bool, left_out: LeaveOut, progress: TellMB) -> list[Verified]:
    """Compare every object with its digest; `progress` hears how many MB were read.

    `deep` also decodes everything, names every row anew and checks every number (`cache.upkeep.proof`).
    """
    before = 0

    def one(teacher: CachedTeacher) -> Verified:
        nonlocal before
        size, segments, damaged = 0, 0, list[Damage]()
        cache = TeacherCache.open(teacher.root, teacher.identity, create=False)
        prove = partial(prove_segment, identity=teacher.digest) if deep else None
        for count, broken in cache.verify_segments(prove):
            size, segments = size + count, segments + 1
            damaged += broken
            progress((before + size) / 1e6)
        before += size
        return Verified(teacher.digest, segments, size, tuple(damaged))

    return each(found, one, left_out=left_out)


def _open(root: Path | str, digest: str) -> CachedTeacher:
    storage = open_storage(root, digest, create=False)
    identity = read_identity(storage)
    if identity.digest() != digest:
        raise CacheError(f"{storage.place}: it says that it holds teacher {identity.digest()}: move it back")
    return CachedTeacher(root, identity, storage)
