"""Pins: which views somebody still reads, so that nobody deletes the segments that hold their rows.

A pin is `pins/<view digest>.json`, beside it the view itself as `pins/<view digest>.npz`. It says when its view was
last used; one that nobody used for long is dead, and `cache.upkeep.garbage` removes it. A pin that cannot be read may
name anything: it counts as live.
"""

from __future__ import annotations

import json
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace

from cache.disk.storage import Storage
from cache.views import CacheView
from configs.errors import CacheError

PIN_DAYS = 30.0
"""A pin whose view nobody used for so long is dead."""

_DAY_S = 86_400.0


@dataclass(frozen=True, slots=True)
class Pin:
    """A pinned view: its digest, what it is of, and when it was last used (seconds since 1970).

    `segments` is `None` when neither the pin nor its view can be read; such a pin keeps every segment. `earlier` are
    segments where rows of the view stood before they moved, with the time when it was last pinned there: whoever
    opened it then may still read them; `followed` are those to which rows moved since. `cut` counts rows that are
    prefixes of stored sequences: they can be read where they stand and cannot be found again when they move.
    """

    view: str
    dataset: str
    segments: tuple[str, ...] | None
    used: float
    rows: int
    tokens: int
    response_tokens: int
    k: int
    cut: int = 0
    earlier: Mapping[str, float] = field(default_factory=dict)
    followed: tuple[str, ...] = ()
    readable: bool = True

    def live(self, *, days: float = PIN_DAYS) -> bool:
        """Whether somebody used the view in the last `days`, or may have."""
        return not self.readable or _recent(self.used, days=days)

    def keeps(self, segment: str, *, days: float = PIN_DAYS, moved: bool = False) -> bool:
        """Whether somebody who used the view in the last `days` needs this segment, or may need it.

        With `moved` all its rows stand in another one, where a view follows them.
        """
        if moved and self.readable and not self.cut:
            return False
        if self.segments is None or (segment in self.segments and self.live(days=days)):
            return True
        return _recent(self.earlier.get(segment, 0.0), days=days)


def pin_view(storage: Storage, view: CacheView, *, cut: int = 0) -> None:
    """Leave a pin that names the view and its segments, or say anew that the view is used.

    `cut` is the number of its rows that are prefixes of longer ones.

    Raises:
        CacheError: when the pin cannot be written.
    """
    try:
        known = _read(storage, view.digest)
        there = f"{view.digest}.npz" in storage.names("pins")
        if known is None or known.segments != view.segments or not there:
            # The view first: a pin whose view is lacking cannot be counted up, a view without its pin is garbage.
            storage.replace(f"pins/{view.digest}.npz", view.to_bytes())
        followed = () if known is None else known.followed
        pin = replace(_of(view, readable=True), cut=cut, earlier=_earlier(known, now=view.segments), followed=followed)
        _write(storage, pin)
    except OSError as error:
        raise CacheError(
            f"{storage.place}/pins/{view.digest}.json: the view cannot be pinned ({error.strerror}): make the cache "
            "writable"
        ) from error


def touch_pin(storage: Storage, view: str) -> None:
    """Say that the view of this digest is used now; nothing when it has no pin that can be read.

    Raises:
        OSError: when the pin cannot be written.
    """
    pin = _read(storage, view)
    if pin is not None and pin.readable:
        _write(storage, replace(pin, used=time.time()))


def follow_rows(storage: Storage, *, sources: Collection[str], to: str) -> None:
    """Note in the pins of views with rows in these segments that all of these rows move to another one.

    Raises:
        OSError: when the place cannot be read or written.
    """
    for pin in read_pins(storage):
        held = {*(pin.segments or ()), *pin.earlier, *pin.followed}
        if pin.readable and not held.isdisjoint(sources):
            _write(storage, replace(pin, followed=(*pin.followed, to)))


def followed_segments(storage: Storage, *, standing: Collection[str]) -> set[str]:
    """Segments where views that somebody uses find rows by their ids alone, as those they name stand no more.

    Raises:
        OSError: when the place cannot be read.
    """
    return {
        segment
        for pin in read_pins(storage)
        if pin.live() and not {*(pin.segments or ()), *pin.earlier} <= set(standing)
        for segment in pin.followed
    }


def read_pins(storage: Storage) -> list[Pin]:
    """All pins, live and dead.

    Raises:
        OSError: when the place cannot be read.
    """
    names = [name.removesuffix(".json") for name in storage.names("pins") if name.endswith(".json")]
    return [pin for name in names if (pin := _read(storage, name)) is not None]


def keepers(pins: Iterable[Pin], segment: str, *, days: float = PIN_DAYS, moved: bool = False) -> list[Pin]:
    """The pins that keep a segment; see `Pin.keeps`."""
    return [pin for pin in pins if pin.keeps(segment, days=days, moved=moved)]


def remove_pins(storage: Storage, views: Collection[str]) -> None:
    """Remove the pins of these view digests.

    Raises:
        OSError: when the place refuses.
    """
    for view in views:
        storage.delete(f"pins/{view}.json")
        storage.delete(f"pins/{view}.npz")


def read_view(storage: Storage, view: str) -> CacheView | None:
    """The pinned view of this digest; `None` when it is gone or not what was written.

    Raises:
        OSError: when it cannot be read.
    """
    name = f"pins/{view}.npz"
    with suppress(FileNotFoundError, CacheError):  # the pin alone still counts
        return CacheView.from_bytes(storage.read(name), name=f"{storage.place}/{name}")
    return None


def _write(storage: Storage, pin: Pin) -> None:
    fields = asdict(pin)
    del fields["readable"]
    storage.replace(f"pins/{pin.view}.json", json.dumps(fields).encode())


def _read(storage: Storage, view: str) -> Pin | None:
    try:
        data = storage.read(f"pins/{view}.json")
    except FileNotFoundError:
        return None
    try:
        fields = json.loads(data)
        return Pin(
            view=view,
            dataset=str(fields["dataset"]),
            segments=_names(fields["segments"]),
            used=float(fields["used"]),
            # Pins of before did not say what their view holds.
            rows=int(fields.get("rows", 0)),
            tokens=int(fields.get("tokens", 0)),
            response_tokens=int(fields.get("response_tokens", 0)),
            k=int(fields.get("k", 0)),
            cut=int(fields.get("cut", 1)),
            earlier={str(name): float(used) for name, used in fields.get("earlier", {}).items()},
            followed=_names(fields.get("followed", [])),
        )
    except (ValueError, KeyError, TypeError, AttributeError):
        return _guess(storage, view)


def _names(segments: object) -> tuple[str, ...]:
    if not isinstance(segments, list) or not all(isinstance(name, str) for name in segments):
        raise TypeError("segments are a list of names")
    return tuple(segments)


def _guess(storage: Storage, view: str) -> Pin:
    """What is left of a pin that cannot be read: its view, if that is sound."""
    found = read_view(storage, view)
    if found is None or found.digest != view:
        return Pin(view, "", None, time.time(), 0, 0, 0, 0, readable=False)
    return _of(found, readable=False)


def _of(view: CacheView, *, readable: bool) -> Pin:
    """The pin of a view that is used now."""
    return Pin(
        view=view.digest,
        dataset=view.dataset,
        segments=view.segments,
        used=time.time(),
        rows=len(view),
        tokens=view.tokens,
        response_tokens=view.response_tokens,
        k=view.k,
        readable=readable,
    )


def _earlier(pin: Pin | None, *, now: Collection[str]) -> dict[str, float]:
    """Where the rows of a view stood when it was pinned before, as far as that still matters."""
    if pin is None or not pin.readable or pin.segments is None:
        return {}
    found = {**pin.earlier, **dict.fromkeys(pin.segments, pin.used)}
    return {name: used for name, used in found.items() if name not in now and _recent(used, days=PIN_DAYS)}


def _recent(used: float, *, days: float) -> bool:
    return time.time() - used <= days * _DAY_S
