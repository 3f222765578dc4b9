"""Who is asking the teacher for what, so that pipelines that fill one cache at once pay once for what they share.

A claim is two objects: `claims/<number>.keys`, the claimed names (32 bytes each, sorted), whose creation takes the
number, and then `claims/<number>.json`, which says whose it is and is written anew as a heartbeat. Claims are advice:
one that is damaged, or whose owner is gone, is as good as none, and what that costs is a row paid for twice.

A new claim takes the next free number and then looks at all others. It counts if nobody holds a higher number by then;
otherwise it is withdrawn and made anew. So of two claims that count the higher one looked when the lower one was
there, and left its names alone; the lower one need not do the same, or nobody would ask. (Numbers come back when claims
are released, so a lower number may well be the later one; that is the claim that is withdrawn.) Keys without their JSON
are of a claim that has not looked yet and will find the higher number: nobody waits for it.
"""

from __future__ import annotations

import json
import re
import threading
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.disk.key_objects import Keys, key_array
from cache.disk.owners import HEARTBEAT_S, Owner
from cache.disk.storage import Storage
from cache.keys import KEY_BYTES
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json

CLAIM_SILENT_S = 300.0
"""An owner that cannot be looked at, on another machine for example, is taken for gone after this silence."""

LARGEST_CLAIM = 2**33
"""Bytes of the names of one claim at most."""

Mask = NDArray[Any]
"""Booleans, one a name."""

_NAME = re.compile(r"(\d{8,})\.(keys|json)")


@dataclass(frozen=True, slots=True)
class _Note:
    """The JSON of a claim. `claim` tells it from another one that has the same number later."""

    owner: Owner
    claim: str
    k: int

    def to_json(self) -> bytes:
        return json.dumps(asdict(self)).encode()


@dataclass(frozen=True, slots=True)
class Claim:
    """What one pipeline is asking for. `mine` [names] marks what nobody else had claimed before."""

    number: int
    mine: Mask


class Claims:
    """The claims on the rows of one teacher. An instance belongs to one thread."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._names: dict[str, Keys] = {}

    def held(self, names: Sequence[bytes], *, k: int) -> Mask:
        """Which names [names] somebody who lives has claimed with at least `k` log-probabilities.

        Raises:
            CacheError: when the claims cannot be read.
        """
        with self._errors():
            return self._held(key_array(names), k=k, others=self._numbers("json"))

    @contextmanager
    def claim(self, names: Sequence[bytes], *, k: int) -> Iterator[Claim]:
        """Claim these request names for as long as the context lasts.

        `k` is the number of log-probabilities that will be asked for, 0 where any answer serves: a completion that is
        under way is worth waiting for whatever its k, because more log-probabilities are a score of it.

        Raises:
            CacheError: when the claim cannot be written.
        """
        wanted = key_array(names)
        note = _Note(Owner.here(), str(uuid.uuid4()), k)
        with self._errors():
            number = self._take(np.unique(wanted).tobytes(), note)
            held = self._held(wanted, k=k, others=self._numbers("json") - {number}, own=number)
            self._sweep(number)
        released = threading.Event()
        heart = threading.Thread(target=_beat, args=(self._storage, number, note, released), daemon=True)
        heart.start()
        try:
            yield Claim(number, ~held)
        finally:
            released.set()
            heart.join()
            # What cannot be deleted now goes when another claim finds that this process is gone.
            with suppress(OSError):
                if _stands(self._storage, number, note):
                    _remove(self._storage, number)

    def _take(self, keys: bytes, note: _Note) -> int:
        """Write a claim under a number that is the highest when all is written."""
        while True:
            number = max(self._numbers("keys") | self._numbers("json"), default=0) + 1
            try:
                self._storage.create(_path(number, "keys"), keys)
                # Should another have the number by now, our keys were swept as those of the dead, and it is his.
                self._storage.create(_path(number, "json"), note.to_json())
            except FileExistsError:
                continue
            highest = max(self._numbers("keys") | self._numbers("json"), default=0)
            if number == highest and self._read_keys(number) == keys and _stands(self._storage, number, note):
                return number
            _remove(self._storage, number)

    def _held(self, wanted: Keys, *, k: int, others: set[int], own: int | None = None) -> Mask:
        held = np.zeros(len(wanted), dtype=bool)
        known, self._names = self._names, {}
        for number in others:
            note = _read_note(self._storage, number)
            if note is None or note.k < k or note.owner.gone(silent_s=CLAIM_SILENT_S):
                continue
            if own is not None and number > own and note.k == k:
                # It came after us and left our names alone; did we leave it the same, nobody would ask. (Had it asked
                # for more log-probabilities than we do, it would not have been content with ours.)
                continue
            names = known[note.claim] if note.claim in known else self._read_names(number)
            # Without its keys it is about to be withdrawn, and made anew by the same name.
            if names is not None:
                self._names[note.claim] = names
                held |= _among(names, wanted)
        return held

    def _read_names(self, number: int) -> Keys | None:
        """The names of a claim, which never change; `None` where they are gone."""
        data = self._read_keys(number)
        return None if data is None else np.sort(key_array([data[: len(data) // KEY_BYTES * KEY_BYTES]]))

    def _read_keys(self, number: int) -> bytes | None:
        try:
            return self._storage.read(_path(number, "keys"), at_most=LARGEST_CLAIM)
        except (FileNotFoundError, UnreadableFileError):
            return None

    def _sweep(self, number: int) -> None:
        """Delete the claims below a number that counts of which nobody is alive, and keys that have no JSON.

        Nobody can take such a number for good meanwhile: who tries finds the higher one, which is released only after
        the sweep, or finds that what it wrote was swept.
        """
        noted = self._numbers("json")
        for other in sorted(noted | self._numbers("keys")):
            if other < number:
                note = _read_note(self._storage, other)
                if note is None or note.owner.gone(silent_s=CLAIM_SILENT_S):
                    _remove(self._storage, other)

    def _numbers(self, kind: str) -> set[int]:
        found = (_NAME.fullmatch(name) for name in self._storage.names("claims"))
        return {int(match[1]) for match in found if match is not None and match[2] == kind}

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise CacheError(
                f"{self._storage.place}/claims: cannot be used ({error.strerror}): check the cache root"
            ) from error


def _among(held: Keys, names: Keys) -> Mask:
    """Which names are among those held, which are sorted."""
    if not len(held):
        return np.zeros(len(names), dtype=bool)
    at = np.minimum(np.searchsorted(held, names), len(held) - 1)
    return np.asarray(held[at] == names)


def _read_note(storage: Storage, number: int) -> _Note | None:
    """The JSON of a claim; `None` when it is gone or damaged."""
    try:
        name = _path(number, "json")
        body: Any = parse_json(storage.read(name), origin=name)
        owner, claim, k = Owner.from_fields(body["owner"]), body["claim"], body["k"]
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return _Note(owner, claim, k) if owner is not None and isinstance(claim, str) and type(k) is int else None


def _beat(storage: Storage, number: int, note: _Note, released: threading.Event) -> None:
    """Say every `HEARTBEAT_S` that the owner lives, until the claim is released or was taken away."""
    while not released.wait(HEARTBEAT_S):
        # A heartbeat that cannot be written is tried again; until then others may take the owner for gone.
        with suppress(OSError):
            if not _stands(storage, number, note):
                return
            storage.replace(_path(number, "json"), replace(note, owner=note.owner.heard()).to_json())


def _stands(storage: Storage, number: int, note: _Note) -> bool:
    """Whether the number is still of this claim: who was silent for long may have lost it to another."""
    found = _read_note(storage, number)
    return found is not None and found.claim == note.claim


def _remove(storage: Storage, number: int) -> None:
    # Keys that are left alone count for nothing; a JSON that is left alone would look like a damaged claim.
    for kind in ("json", "keys"):
        storage.delete(_path(number, kind))


def _path(number: int, kind: str) -> str:
    return f"claims/{number:08d}.{kind}"
