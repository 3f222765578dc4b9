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
from cache.disk.signal_encoding import MeasuredError, errors_together
from cache.disk.storage import Storage
from cache.failures import count_failures
from cache.library import Library
from cache.pins import Pin, read_pins, read_view
from cache.protocols import Progress
from cache.reading import ViewReader
from cache.signals import SIGNAL_NAMES
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import RawSegment, listed
from configs.errors import CacheError
from configs.teachers import NOT_STATED

TEXT = "text"
"""How rows without log-probabilities are counted."""

_TAIL = "tail_logmass"


@dataclass(frozen=True, slots=True)
class DatasetInventory:
    """A pinned view: what it is of, its counts, and when it was last used (seconds since 1970).

    In a view of signals `rows` counts these and `k` is their width; its `response_tokens` are those of second texts.
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
class SignalsInventory:
    """The signals of one teacher: how many different ones, and the `rows` of all live segments with their `bytes`.

    `names` counts rows by what was asked (empty when no array was to be read), `widths` lists the values a row.
    `errors` has what each encoding lost, as measured when its segments were written: the largest error of any value,
    and the root mean square; an exact encoding, or one of which that is not known, is not named.
    """

    records: int
    rows: int
    bytes: int
    bytes_per_row: float
    names: dict[str, int]
    encodings: dict[str, int]
    widths: tuple[int, ...]
    errors: dict[str, tuple[float, float]]


@dataclass(frozen=True, slots=True)
class TeacherInventory:
    """Everything that is counted of one teacher.

    `records` counts different sequences; tokens and rows are those of all live segments, a sequence that stands in two
    of them counted twice. `bytes` is all that lies below the teacher's place, `referenced_bytes` what live segments
    name. `encodings` maps each encoding (`text` for rows without log-probabilities) to its rows, `rollouts` each stage
    whose student wrote sequences to the bytes of `referenced_bytes` that they take. What is counted of sequences leaves
    `signals` out, which have counts of their own. `failures` are requests that the teacher could not answer, by the
    version of its engine.
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
    signals: SignalsInventory
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
    failures: dict[str, int]


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
        sequences = [manifest for manifest in manifests if not manifest.signals]
        pins = read_pins(storage)
        response_tokens = sum(manifest.response_tokens for manifest in sequences)
        of_sequences = sum(manifest.named_bytes for manifest in sequences)
        return TeacherInventory(
            identity=identity,
            verifiable=read_identity(storage).verifiable,
            records=library.sound(library.index.count),
            rows=sum(manifest.rows for manifest in sequences),
            scored_rows=sum(manifest.scored_rows for manifest in sequences),
            tokens=sum(manifest.tokens for manifest in sequences),
            response_tokens=response_tokens,
            generations=sum(manifest.generations for manifest in sequences),
            bytes=sum(storage.sizes("").values()),
            referenced_bytes=sum(manifest.named_bytes for manifest in manifests),
            bytes_per_token=of_sequences / response_tokens if response_tokens else 0.0,
            segments=len(manifests),
            encodings=_encodings(storage, sequences),
            rollouts=_rollouts(sequences),
            signals=_signals(storage, library, with_names=with_tail),
            vocab=tuple(sorted({manifest.vocab for manifest in sequences})),
            k=tuple(sorted({manifest.k for manifest in sequences if manifest.k})),
            licences=tuple(dict.fromkeys(manifest.licence for manifest in manifests)),
            provenances=_provenances(manifests),
            mean_tail_mass=_mean(_tails(storage, manifests, progress)) if with_tail else None,
            datasets=tuple(_dataset(storage, pin, library, with_tail=with_tail) for pin in pins if pin.readable),
            quarantined=len(listed(storage, "quarantine")),
            tombstoned=len(listed(storage, "tombstones")),
            staging=len(storage.names("staging")),
            unreadable_pins=sum(not pin.readable for pin in pins),
            failures=count_failures(storage, identity=identity),
        )


def imported_licences(storage: Storage, identity: str) -> tuple[str, ...]:
    """Under what the teacher of this digest was used for rows that came with an archive; "not stated" of older ones.

    Raises:
        CacheError: when the place cannot be read, or is of another format or teacher.
    """
    with place_errors(storage):
        library = Library(storage, identity=identity, cache_bytes=0)
        library.refresh()
        manifests = sorted(library.manifests, key=lambda manifest: manifest.order)
        said = (manifest.licence or NOT_STATED for manifest in manifests if manifest.imported)
        return tuple(dict.fromkeys(said))


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


def _signals(storage: Storage, library: Library, *, with_names: bool) -> SignalsInventory:
    manifests = [manifest for manifest in library.manifests if manifest.signals]
    names, encodings = Counter[str](), Counter[str]()
    errors: dict[str, list[tuple[MeasuredError, float]]] = {}
    for manifest in manifests:
        encoding = str(manifest.encoding)
        encodings[encoding] += manifest.rows
        share = MeasuredError.of(manifest.provenance), float(manifest.scored_rows * manifest.k)
        errors.setdefault(encoding, []).append(share)
        with suppress(DamagedObject):  # counted as lost by whoever reads it
            asked = RawSegment(storage, manifest).column("signal") if with_names else np.empty(0, dtype=np.uint8)
            counts = np.bincount(asked, minlength=len(SIGNAL_NAMES)).tolist()
            names.update({name: count for name, count in zip(SIGNAL_NAMES, counts, strict=False) if count})
    rows, size = sum(encodings.values()), sum(manifest.named_bytes for manifest in manifests)
    together = {encoding: errors_together(parts) for encoding, parts in errors.items()}
    return SignalsInventory(
        records=library.sound(lambda: library.index.count(signals=True)),
        rows=rows,
        bytes=size,
        bytes_per_row=size / rows if rows else 0.0,
        names=dict(names.most_common()),
        encodings=dict(encodings.most_common()),
        widths=tuple(sorted({manifest.k for manifest in manifests})),
        errors={name: (error.largest, error.rms) for name, error in together.items() if error.provenance()},
    )


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
