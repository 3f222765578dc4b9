"""Pins: which views somebody still reads, so that nobody deletes the segments that hold their rows.

A pin is `pins/<view digest>.json`, beside it the view itself as `pins/<view digest>.npz`. It says when its view was
last used; one that nobody used for long is dead, and `cache.upkeep.garbage` removes it. A pin that cannot be read may
name anything: it counts as live.

Several processes say something of one pin at once, without a lock: who makes the view, who reads it, and who moves its
rows. None of them changes what another wrote. Each adds an object of its own beside the pin, whose content follows from
its name (`cache.pinning`): `<view>.<segments>.places` (the view was used where its rows stood in these segments) and
`<view>.<segment>.followed` (rows of it moved to this segment). A pin is what all of them say together.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

from cache.arrays import LARGEST
from cache.disk.storage import Storage
from cache.views import CacheView
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json

PIN_DAYS = 30.0
"""A pin whose view nobody used for this long is dead."""

LATEST_S = 1e11
"""In the year 5138: what says that it was used later says nothing."""

PLACES, FOLLOWED = ".places", ".followed"
"""How the names of what is said beside a pin end."""

_DAY_S = 86_400.0
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
        return not self.readable or used_lately(self.used, days=days)

    def keeps(self, segment: str, *, days: float = PIN_DAYS, moved: bool = False) -> bool:
        """Whether somebody who used the view in the last `days` needs this segment, or may need it.

        With `moved` all its rows stand in another one, where a view follows them.
        """
        if moved and self.readable and not self.cut:
            return False
        if self.segments is None or (segment in self.segments and self.live(days=days)):
            return True
        return used_lately(self.earlier.get(segment, 0.0), days=days)


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
    return [pin for view in views if (pin := read_pin(storage, view, names=beside[view.partition(".")[0]])) is not None]


def read_pin(storage: Storage, view: str, *, names: Collection[str]) -> Pin | None:
    """The pin of this view with all that is said of it beside; `names` are those below `pins/`.

    Raises:
        OSError: when the place cannot be read.
    """
    pin = _read_alone(storage, view)
    if pin is None:
        return None
    beside = [name for name in names if name.startswith(f"{view}.")]
    moved = [name[len(view) + 1 : -len(FOLLOWED)] for name in beside if name.endswith(FOLLOWED)]
    used, earlier = pin.used, dict(pin.earlier)
    for name in beside:
        if not name.endswith(PLACES):
            continue
        segments, then = _read_places(storage, f"pins/{name}")
        used = max(used, then)
        for segment in segments:
            if segment not in (pin.segments or ()):
                earlier[segment] = max(then, earlier.get(segment, 0.0))
    followed = tuple(dict.fromkeys([*pin.followed, *moved]))
    return replace(pin, used=used, earlier=earlier, followed=followed)


def pin_of(view: CacheView, *, readable: bool) -> Pin:
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


def used_lately(used: float, *, days: float) -> bool:
    """Whether a time of use (seconds since 1970) lies in the last `days`."""
    return time.time() - used <= days * _DAY_S


def keepers(pins: Iterable[Pin], segment: str, *, days: float = PIN_DAYS, moved: bool = False) -> list[Pin]:
    """The pins that keep a segment; see `Pin.keeps`."""
    return [pin for pin in pins if pin.keeps(segment, days=days, moved=moved)]


def pin_objects(view: str, *, names: Iterable[str]) -> list[str]:
    """The objects of a pin among the names below `pins/`, in the order in which they go: that which counts first."""
    beside = sorted(name for name in names if name.startswith(f"{view}.") and name.endswith((PLACES, FOLLOWED)))
    return [f"pins/{name}" for name in (f"{view}.json", *beside, f"{view}.npz")]


def view_of(name: str) -> str | None:
    """Whose view an object below `pins/` belongs to that is not a pin itself."""
    return name.partition(".")[0] if name.endswith((PLACES, FOLLOWED, ".npz")) else None


def read_view(storage: Storage, view: str) -> CacheView | None:
    """The pinned view of this digest; `None` when it is gone or not what was written.

    Raises:
        OSError: when it cannot be read.
    """
    name = f"pins/{view}.npz"
    with suppress(FileNotFoundError, CacheError, UnreadableFileError):  # the pin alone still counts
        return CacheView.from_bytes(storage.read(name, at_most=LARGEST), name=f"{storage.place}/{name}")
    return None


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
    return pin_of(found, readable=False)
