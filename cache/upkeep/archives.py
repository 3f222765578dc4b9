"""A teacher's cache as one file, to be carried elsewhere: an uncompressed tar.

It holds `identity.json`, `fingerprint.json` where there is one, then for each segment its objects, its keys and its
manifest under the names that they have in the cache, and last `complete.json`, which lists the segments: a file without
it was cut short. Replaced and damaged segments are left out, pins, claims and marks as well, and what could not be
answered: an engine elsewhere has other memory, and what it is not asked it cannot answer.

An archive comes from anywhere, so nothing in it is believed: every name, size and digest in the whole file is checked,
and every row is decoded and named anew (`cache.upkeep.proof`), before the first segment becomes visible. Rows that were
forgotten here (`cache.erasures`) are not taken in, whenever the archive was made. Of a teacher
whose weights nobody can hash, what it said first there is held against what it said first here.
"""

from __future__ import annotations

import json
import tarfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO

from cache.disk.directory import DESCRIPTION, FINGERPRINT, open_directory, parse_fingerprint
from cache.disk.durable import large_file
from cache.disk.manifests import ARRIVED, FORMAT, DamagedObject, Manifest, arrival_ns, read_manifest
from cache.disk.owners import Owner
from cache.disk.storage import Storage
from cache.disk.verified import read_verified
from cache.erasures import Erasures
from cache.library import Library
from cache.protocols import Progress
from cache.upkeep.archive_file import COMPLETE, Archive, add_member, open_archive, segment_objects
from cache.upkeep.garbage import SILENT_S, place_errors
from cache.upkeep.proof import prove_segment
from cache.upkeep.raw_columns import listed, live_segments
from cache.upkeep.sifting import Sieve, Sifted
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError
from configs.visible_text import first_line

EARLIEST_NS = 10**18
"""September 2001: a segment that says it is older does not know its time."""


Differs = Callable[[Any, Any], str | None]
"""Why two of one name are not the same teacher by what they said first, here and there, in a line; None if they are."""


def differs_at_all(here: Any, there: Any) -> str | None:
    """For whoever cannot read what was said."""
    return None if here == there else "they are not equal"


@dataclass(frozen=True, slots=True)
class ExportReport:
    """What went into an archive; `damaged` segments did not."""

    identity: str
    path: str
    segments: int
    rows: int
    bytes: int
    damaged: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class ImportReport:
    """What came out of an archive. `skipped` segments are here already, or were replaced or set aside here.

    `forgotten` rows of it were forgotten here, and stay out.
    """

    identity: str
    imported: tuple[str, ...]
    skipped: tuple[str, ...]
    rows: int
    bytes: int
    forgotten: int = 0


def export_archive(storage: Storage, path: Path, *, identity: str, progress: Progress | None = None) -> ExportReport:
    """Write all sound segments of a teacher into one file, which appears when it is whole.

    Raises:
        CacheError: when the cache cannot be read or the file cannot be written.
    """
    try:
        with large_file(path) as file:
            report = _write(file, storage, path, identity=identity, progress=progress)
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise CacheError(f"{error.filename or path}: the archive cannot be written ({reason})") from error
    return report


def import_archive(
    root: Path | str, path: Path, *, progress: Progress | None = None, differs: Differs = differs_at_all
) -> ImportReport:
    """Take the segments of an archive into the cache below `root`, in the place of the teacher that it names.

    `differs` compares what that teacher said first, where both sides know it.

    Raises:
        CacheError: when the archive is not whole and sound, or the cache cannot be written. What was imported before a
            disk failed stays; a second import goes on from there.
        ConfigError: when the place cannot be used.
    """
    with open_archive(path) as archive:
        identity = archive.identity()
        manifests, said = archive.manifests(identity.digest()), archive.fingerprint()
        total, done = sum(manifest.disk_bytes for manifest in manifests), 0
        for manifest in manifests:
            for name, info in segment_objects(manifest).items():
                archive.read(name, info)
            with _sound(archive):
                prove_segment(archive, manifest, identity=identity.digest())
            done += manifest.disk_bytes
            if progress is not None:
                progress(done, 2 * total)
        with _sound(archive):
            sieve = Sieve(archive, manifests, Erasures.read(root))
        storage = open_directory(root, identity, create=True)
        if said is not None:
            _keep_fingerprint(storage, archive, *said, differs=differs)
        here = Library(storage, identity=identity.digest(), cache_bytes=0)
        imported, skipped = list[Manifest](), list[Manifest]()
        # The oldest first: of what came together the older answer stays the older one.
        for manifest in sorted(manifests, key=lambda manifest: manifest.order):
            with _sound(archive):
                sifted = sieve.sift(manifest)
            if sifted is not None:
                with place_errors(storage):
                    taken = _take(storage, sifted, newest=here.newest_ns)
                (imported if taken else skipped).append(sifted.manifest)
            done += manifest.disk_bytes
            if progress is not None:
                progress(done, 2 * total)
    return ImportReport(
        identity=identity.digest(),
        imported=tuple(manifest.uuid for manifest in imported),
        skipped=tuple(manifest.uuid for manifest in skipped),
        rows=sum(manifest.rows for manifest in imported),
        bytes=sum(manifest.disk_bytes for manifest in imported),
        forgotten=sieve.rows,
    )


@contextmanager
def _sound(archive: Archive) -> Iterator[None]:
    """What is read of an archive is what its manifests say.

    Raises:
        CacheError: it is not.
    """
    try:
        yield
    except DamagedObject as error:
        raise archive.refused(str(error)) from error


def _write(file: BinaryIO, storage: Storage, path: Path, *, identity: str, progress: Progress | None) -> ExportReport:
    manifests, damaged = [], []
    for name in live_segments(storage):
        try:
            manifests.append(read_manifest(storage, name, identity=identity))
        except FileNotFoundError:
            continue
        except DamagedObject as error:
            damaged.append(error.segment)
    total, done, whole = sum(manifest.disk_bytes for manifest in manifests), 0, []
    with tarfile.open(fileobj=file, mode="w") as archive:
        add_member(archive, DESCRIPTION, storage.read(DESCRIPTION))
        with suppress(FileNotFoundError):
            add_member(archive, FINGERPRINT, storage.read(FINGERPRINT))
        for manifest in manifests:
            try:
                # All of a segment is checked before any of it is written.
                objects = {
                    name: read_verified(storage, name, info, segment=manifest.uuid)
                    for name, info in segment_objects(manifest).items()
                }
            except DamagedObject as error:
                damaged.append(error.segment)
                continue
            for name, data in objects.items():
                add_member(archive, name, data)
            add_member(archive, f"manifests/{manifest.uuid}.json", manifest.to_json())
            whole.append(manifest)
            done += manifest.disk_bytes
            if progress is not None:
                progress(done, total)
        note = {"format": FORMAT, "segments": [manifest.uuid for manifest in whole]}
        add_member(archive, COMPLETE, json.dumps(note).encode())
    return ExportReport(
        identity=identity,
        path=str(path),
        segments=len(whole),
        rows=sum(manifest.rows for manifest in whole),
        bytes=file.tell(),
        damaged=tuple(damaged),
    )


def _keep_fingerprint(storage: Storage, archive: Archive, data: bytes, said: Any, *, differs: Differs) -> None:
    """Take what the teacher said first there, unless it is known what it said here: that has to be the same model."""
    with place_errors(storage):
        try:
            if differs(said, said) is None:  # whatever reads it later can
                storage.create(FINGERPRINT, data)
            return
        except FileExistsError:
            first = parse_fingerprint(storage.read(FINGERPRINT), path=f"{storage.place}/{FINGERPRINT}")
    if (reason := differs(first, said)) is not None:
        raise archive.refused(
            f"its rows are of another model under the same name than those in {storage.place} ({reason}): keep apart "
            "what each says, with another epoch"
        )


def _take(storage: Storage, sifted: Sifted, *, newest: Callable[[], int]) -> bool:
    """Make one segment count, unless it is known here. It is younger than all that is here, whatever it says."""
    manifest = sifted.manifest
    name = manifest.uuid
    if any(name in listed(storage, folder) for folder in ("tombstones", "quarantine", "manifests")):
        return False
    with _staged(storage, name):
        if name in listed(storage, "manifests"):
            return False  # another import was faster
        # Of an import that was killed; nobody else has this name, which the staging is proof of.
        storage.delete_folder(f"segments/{name}")
        storage.delete(f"manifests/{name}.keys")
        storage.create_segment(name, sifted.objects)
        storage.create(f"manifests/{name}.keys", sifted.keys)
        said = min(max(manifest.created_ns, EARLIEST_NS), time.time_ns())
        arrived = replace(
            manifest,
            created_ns=arrival_ns(said, newest=newest()),
            provenance={**manifest.provenance, ARRIVED: "import"},
        )
        with suppress(FileExistsError):
            storage.create(f"manifests/{name}.json", arrived.to_json())
    return True


@contextmanager
def _staged(storage: Storage, name: str) -> Iterator[None]:
    """Hold the place of a segment, taken over from an owner that is gone."""
    note = f"staging/{name}/owner.json"
    owner = None
    with suppress(FileNotFoundError, UnreadableFileError):
        owner = Owner.from_json(storage.read(note))
    if owner is not None and owner.gone(silent_s=SILENT_S):
        storage.delete_folder(f"staging/{name}")
    try:
        storage.create(note, Owner.here().to_json())
    except FileExistsError as error:
        raise CacheError(f"{storage.place}: segment {name} is being written by another process: wait for it") from error
    try:
        yield
    finally:
        with suppress(OSError):  # gc knows by its owner what is left
            storage.delete_folder(f"staging/{name}")
