"""What the cache of one teacher holds, counted: for `distill cache ls` and `info`."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from cache.answers import Answers
from cache.disk.directory import read_identity
from cache.disk.gather import ranges
from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.storage import Storage
from cache.library import Library
from cache.pins import Pin, read_pins, read_view
from cache.protocols import Progress
from cache.reading import ViewReader
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import RawSegment, listed
from configs.errors import CacheError

TEXT = "text"
"""How rows without log-probabilities are counted."""

_TAIL = "tail_logmass"


@dataclass(frozen=True, slots=True)
class DatasetInventory:
    """A pinned view: what it is of, its counts, and when it was last used (seconds since 1970).

    `mean_tail_mass` is the mean probability outside the stored top-k over exactly its scored rows; `None` when it was
    not asked for, when there are none, or when rows of the view are lost (`sound` is then off).
    """

    dataset: str
    view: str
    rows: int
    tokens: int
    response_tokens: int
    k: int
    used: float
    sound: bool
    mean_tail_mass: float | None


@dataclass(frozen=True, slots=True)
class TeacherInventory:
    """Everything that is counted of one teacher.

    `records` counts different sequences; tokens and rows are those of all live segments, a sequence that stands in two
    of them counted twice. `bytes` is all that lies below the teacher's place, `referenced_bytes` what live segments
    name. `encodings` maps each encoding (`text` for rows without log-probabilities) to its rows, `rollouts` each stage
    whose student wrote sequences to the bytes of `referenced_bytes` that they take.
    """

    identity: str
    verifiable: bool
    records: int
    rows: int
    scored_rows: int
    tokens: int
    response_tokens: int
    generations: int
    bytes: int
    referenced_bytes: int
    bytes_per_token: float
    segments: int
    encodings: dict[str, int]
    rollouts: dict[str, int]
    vocab: tuple[int, ...]
    k: tuple[int, ...]
    licences: tuple[str | None, ...]
    provenances: tuple[dict[str, str], ...]
    mean_tail_mass: float | None
    datasets: tuple[DatasetInventory, ...]
    quarantined: int
    tombstoned: int
    staging: int
    unreadable_pins: int


def teacher_inventory(
    storage: Storage, identity: str, *, with_tail: bool = True, progress: Progress | None = None
) -> TeacherInventory:
    """Count what is held of the teacher of this digest; without `with_tail` no array is read.

    Raises:
        CacheError: when the place cannot be read, or is of another format or teacher.
    """
    with place_errors(storage):
        library = Library(storage, identity=identity, cache_bytes=0)
        library.refresh()
        manifests = sorted(library.manifests, key=lambda manifest: manifest.order)
        pins = read_pins(storage)
        referenced = sum(manifest.named_bytes for manifest in manifests)
        response_tokens = sum(manifest.response_tokens for manifest in manifests)
        return TeacherInventory(
            identity=identity,
            verifiable=read_identity(storage).verifiable,
            records=library.sound(library.index.count),
            rows=sum(manifest.rows for manifest in manifests),
            scored_rows=sum(manifest.scored_rows for manifest in manifests),
            tokens=sum(manifest.tokens for manifest in manifests),
            response_tokens=response_tokens,
            generations=sum(manifest.generations for manifest in manifests),
            bytes=sum(storage.sizes("").values()),
            referenced_bytes=referenced,
            bytes_per_token=referenced / response_tokens if response_tokens else 0.0,
            segments=len(manifests),
            encodings=_encodings(storage, manifests),
            rollouts=_rollouts(manifests),
            vocab=tuple(sorted({manifest.vocab for manifest in manifests})),
            k=tuple(sorted({manifest.k for manifest in manifests if manifest.k})),
            licences=tuple(dict.fromkeys(manifest.licence for manifest in manifests)),
            provenances=_provenances(manifests),
            mean_tail_mass=_mean(_tails(storage, manifests, progress)) if with_tail else None,
            datasets=tuple(_dataset(storage, pin, library, with_tail=with_tail) for pin in pins if pin.readable),
            quarantined=len(listed(storage, "quarantine")),
            tombstoned=len(listed(storage, "tombstones")),
            staging=len(storage.names("staging")),
            unreadable_pins=sum(not pin.readable for pin in pins),
        )


def _encodings(storage: Storage, manifests: Sequence[Manifest]) -> dict[str, int]:
    """Rows of each encoding, the most frequent first; segments with log-probabilities may hold text as well."""
    found = Counter[str]()
    for manifest in manifests:
        scored = 0
        if manifest.encoding is not None and manifest.scored_rows == manifest.response_tokens:
            scored = manifest.rows
            found[manifest.encoding] += scored
        elif manifest.encoding is not None:
            with suppress(DamagedObject):
                scored = int(np.count_nonzero(RawSegment(storage, manifest).tables().entries["k"]))
            found[manifest.encoding] += scored
        found[TEXT] += manifest.rows - scored
    return {name: count for name, count in found.most_common() if count}


def _rollouts(manifests: Sequence[Manifest]) -> dict[str, int]:
    """Bytes by the stage that wrote them."""
    found = Counter[str]()
    for manifest in manifests:
        if manifest.rollout is not None:
            found[manifest.rollout] += manifest.named_bytes
    return dict(found)


def _provenances(manifests: Sequence[Manifest]) -> tuple[dict[str, str], ...]:
    distinct = dict.fromkeys(tuple(sorted(each.origin.items())) for each in manifests)
    return tuple(dict(items) for items in distinct)


def _tails(storage: Storage, manifests: Sequence[Manifest], progress: Progress | None) -> Iterator[NDArray[np.float64]]:
    """The tail mass of all scored rows that have one, a segment at a time."""
    for done, manifest in enumerate(manifests):
        segment = RawSegment(storage, manifest)
        if segment.holds(_TAIL):
            with suppress(DamagedObject):  # counted as lost by whoever reads it
                yield np.exp(segment.column(_TAIL).astype(np.float64))
        if progress is not None:
            progress(done + 1, len(manifests))


def _mean(parts: Iterator[NDArray[np.float64]]) -> float | None:
    total, count = 0.0, 0
    for part in parts:
        total, count = total + float(part.sum()), count + len(part)
    return total / count if count else None


def _dataset(storage: Storage, pin: Pin, library: Library, *, with_tail: bool) -> DatasetInventory:
    sound, mean = True, None
    if with_tail:
        try:
            mean = _mean(_view_tails(storage, pin, library))
        except CacheError:
            sound = False
    return DatasetInventory(
        dataset=pin.dataset,
        view=pin.view,
        rows=pin.rows,
        tokens=pin.tokens,
        response_tokens=pin.response_tokens,
        k=pin.k,
        used=pin.used,
        sound=sound,
        mean_tail_mass=mean,
    )


def _view_tails(storage: Storage, pin: Pin, library: Library) -> Iterator[NDArray[np.float64]]:
    """The tail mass of the scored rows of a view, wherever they stand now.

    Raises:
        CacheError: when the view or rows of it are lost.
    """
    view = read_view(storage, pin.view)
    if view is None:
        raise CacheError(f"{storage.place}/pins/{pin.view}.npz: not a sound view")
    entries = ViewReader(library, Answers(library, identity=view.identity), identity=view.identity).entries(view)
    for number in np.unique(entries["segment"]).tolist():
        segment = RawSegment(storage, library.segment(number).manifest)
        if not segment.holds(_TAIL):
            continue
        here = entries[entries["segment"] == number]
        scored = here[segment.column("k")[here["row"]] > 0]
        starts = segment.column("row_offsets")[scored["row"]]
        flat = ranges(starts, scored["length"] - scored["prompt_len"])
        yield np.exp(segment.column(_TAIL)[flat].astype(np.float64))
