"""Pins: which views somebody still reads, so that nobody deletes the segments that hold their rows.

A pin is `pins/<view digest>.json`, beside it the view itself as `pins/<view digest>.npz`. It says when its view was
last used; one that nobody used for long is dead, and `cache.upkeep.garbage` removes it. A pin that cannot be read may
name anything: it counts as live.

Several processes say something of one pin at once, without a lock: who makes the view, who reads it, and who moves its
rows. None of them changes what another wrote. Each adds an object of its own beside the pin, whose content follows from
its name: `<view>.<segments>.places` (the view was used where its rows stood in these segments) and
`<view>.<segment>.followed` (rows of it moved to this segment). A pin is what all of them say together.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from cache.arrays import LARGEST
from cache.disk.storage import Storage
from cache.views import CacheView
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json

PIN_DAYS = 30.0
"""A pin whose view nobody used for so long is dead."""

LATEST_S = 1e11
"""In the year 5138: what says that it was used later says nothing."""

_DAY_S = 86_400.0
_PLACES, _FOLLOWED = ".places", ".followed"
_MALFORMED = (ValueError, KeyError, TypeError, AttributeError, OverflowError)


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
        names = storage.names("pins")
        known, there = _read(storage, view.digest, names=names), f"{view.digest}.npz" in names
        if known is None or known.segments != view.segments or not there:
            # The view first: a pin whose view is lacking cannot be counted up, a view without its pin is garbage.
            storage.replace(f"pins/{view.digest}.npz", view.to_bytes())
        followed = () if known is None else known.followed
        pin = replace(_of(view, readable=True), cut=cut, earlier=_earlier(known, now=view.segments), followed=followed)
        _place(storage, pin)
        _write(storage, pin)
        # Whoever moved these rows a moment ago may have looked for pins before this one was there.
        for segment in _replacements(storage, view.segments):
            _follow(storage, view.digest, to=segment)
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
    pin = _read(storage, view, names=storage.names("pins"))
    if pin is not None and pin.readable:
        _place(storage, pin)


def follow_rows(storage: Storage, *, sources: Collection[str], to: str) -> None:
    """Note beside the pins of views with rows in these segments that all of these rows move to another one.

    To be called before the segments are marked as replaced and once more after: whoever pins a view meanwhile either
    is seen by the second call, or sees the marks.

    Raises:
        OSError: when the place cannot be read or written.
    """
    for pin in read_pins(storage):
        held = {*(pin.segments or ()), *pin.earlier, *pin.followed}
        if pin.readable and not held.isdisjoint(sources):
            _follow(storage, pin.view, to=to)


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
    listed = storage.names("pins")
    beside = dict[str, list[str]]()
    for name in listed:
        beside.setdefault(name.partition(".")[0], []).append(name)
    views = [name.removesuffix(".json") for name in listed if name.endswith(".json")]
    return [pin for view in views if (pin := _read(storage, view, names=beside[view.partition(".")[0]])) is not None]


def keepers(pins: Iterable[Pin], segment: str, *, days: float = PIN_DAYS, moved: bool = False) -> list[Pin]:
    """The pins that keep a segment; see `Pin.keeps`."""
    return [pin for pin in pins if pin.keeps(segment, days=days, moved=moved)]


def remove_pins(storage: Storage, views: Collection[str]) -> None:
    """Remove the pins of these view digests.

    Raises:
        OSError: when the place refuses.
    """
    names = storage.names("pins")
    for view in views:
        for name in pin_objects(view, names=names):
            storage.delete(name)


def pin_objects(view: str, *, names: Iterable[str]) -> list[str]:
    """The objects of a pin among the names below `pins/`, in the order in which they go: that which counts first."""
    beside = sorted(name for name in names if name.startswith(f"{view}.") and name.endswith((_PLACES, _FOLLOWED)))
    return [f"pins/{name}" for name in (f"{view}.json", *beside, f"{view}.npz")]


def view_of(name: str) -> str | None:
    """Whose view an object below `pins/` belongs to that is not a pin itself."""
    return name.partition(".")[0] if name.endswith((_PLACES, _FOLLOWED, ".npz")) else None


def read_view(storage: Storage, view: str) -> CacheView | None:
    """The pinned view of this digest; `None` when it is gone or not what was written.

    Raises:
        OSError: when it cannot be read.
    """
    name = f"pins/{view}.npz"
    with suppress(FileNotFoundError, CacheError, UnreadableFileError):  # the pin alone still counts
        return CacheView.from_bytes(storage.read(name, at_most=LARGEST), name=f"{storage.place}/{name}")
    return None


def _write(storage: Storage, pin: Pin) -> None:
    fields = asdict(pin)
    del fields["readable"]
    storage.replace(f"pins/{pin.view}.json", json.dumps(fields).encode())


def _place(storage: Storage, pin: Pin) -> None:
    """Say that a view is used now, where its rows stand as its pin has it."""
    segments = sorted(pin.segments or ())
    name = hashlib.sha256("\n".join(segments).encode()).hexdigest()[:32]
    data = json.dumps({"segments": segments, "used": time.time()}).encode()
    storage.replace(f"pins/{pin.view}.{name}{_PLACES}", data)


def _follow(storage: Storage, view: str, *, to: str) -> None:
    with suppress(FileExistsError):  # said before
        storage.create(f"pins/{view}.{to}{_FOLLOWED}", b"{}")


def _replacements(storage: Storage, segments: Collection[str]) -> list[str]:
    """Where the rows of these segments moved, as far as marks tell."""
    marked = {name.removesuffix(".json") for name in storage.names("tombstones") if name.endswith(".json")}
    found, left = list[str](), [segment for segment in segments if segment in marked]
    while left:
        name = f"tombstones/{left.pop()}.json"
        with suppress(FileNotFoundError, ValueError, KeyError, TypeError):
            mark: Any = parse_json(storage.read(name), origin=name)
            to = mark["replaced_by"]
            if mark["moved"] is True and isinstance(to, str) and to not in found:
                found.append(to)
                left += [to] if to in marked else []
    return found


def _read(storage: Storage, view: str, *, names: Collection[str]) -> Pin | None:
    """The pin of this view with all that is said of it beside; `names` are those below `pins/`."""
    pin = _read_alone(storage, view)
    if pin is None:
        return None
    beside = [name for name in names if name.startswith(f"{view}.")]
    moved = [name[len(view) + 1 : -len(_FOLLOWED)] for name in beside if name.endswith(_FOLLOWED)]
    used, earlier = pin.used, dict(pin.earlier)
    for name in beside:
        if not name.endswith(_PLACES):
            continue
        segments, then = _read_places(storage, f"pins/{name}")
        used = max(used, then)
        for segment in segments:
            if segment not in (pin.segments or ()):
                earlier[segment] = max(then, earlier.get(segment, 0.0))
    followed = tuple(dict.fromkeys([*pin.followed, *moved]))
    return replace(pin, used=used, earlier=earlier, followed=followed)


def _read_places(storage: Storage, name: str) -> tuple[tuple[str, ...], float]:
    """Segments where a view was used, and when; none, and the time of the file, where that cannot be read."""
    try:
        fields: Any = parse_json(storage.read(name), origin=name)
        return _names(fields["segments"]), _moment(fields["used"])
    except FileNotFoundError:
        return (), 0.0
    except _MALFORMED:
        return (), storage.changed(name) or 0.0


def _moment(value: object) -> float:
    """Seconds since 1970; no other number is a time."""
    if type(value) not in (int, float) or not 0 <= float(value) < LATEST_S:  # type: ignore[arg-type]
        raise ValueError(f"{value} is not a time")
    return float(value)  # type: ignore[arg-type]


def _number(value: object) -> int:
    if type(value) is not int or not 0 <= value < 2**63:
        raise ValueError(f"{value} is not a count")
    return value


def _read_alone(storage: Storage, view: str) -> Pin | None:
    name = f"pins/{view}.json"
    try:
        fields: Any = parse_json(storage.read(name), origin=name)
        return Pin(
            view=view,
            dataset=str(fields["dataset"]),
            segments=_names(fields["segments"]),
            used=_moment(fields["used"]),
            # Pins of before did not say what their view holds.
            rows=_number(fields.get("rows", 0)),
            tokens=_number(fields.get("tokens", 0)),
            response_tokens=_number(fields.get("response_tokens", 0)),
            k=_number(fields.get("k", 0)),
            cut=_number(fields.get("cut", 1)),
            earlier={str(segment): _moment(used) for segment, used in fields.get("earlier", {}).items()},
            followed=_names(fields.get("followed", [])),
        )
    except FileNotFoundError:
        return None
    except _MALFORMED:
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
