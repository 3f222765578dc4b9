"""Saying that a view is used, and that its rows moved: each adds an object of its own beside the pin (`cache.pins`)."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Collection
from contextlib import suppress
from dataclasses import asdict, replace
from typing import Any

from cache.disk.storage import Storage
from cache.pins import FOLLOWED, PIN_DAYS, PLACES, Pin, pin_objects, pin_of, read_pin, read_pins, used_lately
from cache.views import CacheView
from configs.errors import CacheError
from configs.regular_files import parse_json


def pin_view(storage: Storage, view: CacheView, *, cut: int = 0) -> None:
    """Leave a pin that names the view and its segments, or say anew that the view is used.

    `cut` is the number of its rows that are prefixes of longer ones.

    Raises:
        CacheError: when the pin cannot be written.
    """
    try:
        names = storage.names("pins")
        known, there = read_pin(storage, view.digest, names=names), f"{view.digest}.npz" in names
        if known is None or known.segments != view.segments or not there:
            # The view first: a pin whose view is lacking cannot be counted up, a view without its pin is garbage.
            storage.replace(f"pins/{view.digest}.npz", view.to_bytes())
        followed = () if known is None else known.followed
        pin = replace(
            pin_of(view, readable=True), cut=cut, earlier=_earlier(known, now=view.segments), followed=followed
        )
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
    pin = read_pin(storage, view, names=storage.names("pins"))
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


def remove_pins(storage: Storage, views: Collection[str]) -> None:
    """Remove the pins of these view digests.

    Raises:
        OSError: when the place refuses.
    """
    names = storage.names("pins")
    for view in views:
        for name in pin_objects(view, names=names):
            storage.delete(name)


def _write(storage: Storage, pin: Pin) -> None:
    fields = asdict(pin)
    del fields["readable"]
    storage.replace(f"pins/{pin.view}.json", json.dumps(fields).encode())


def _place(storage: Storage, pin: Pin) -> None:
    """Say that a view is used now, where its rows stand as its pin has it."""
    segments = sorted(pin.segments or ())
    name = hashlib.sha256("\n".join(segments).encode()).hexdigest()[:32]
    data = json.dumps({"segments": segments, "used": time.time()}).encode()
    storage.replace(f"pins/{pin.view}.{name}{PLACES}", data)


def _follow(storage: Storage, view: str, *, to: str) -> None:
    with suppress(FileExistsError):  # said before
        storage.create(f"pins/{view}.{to}{FOLLOWED}", b"{}")


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


def _earlier(pin: Pin | None, *, now: Collection[str]) -> dict[str, float]:
    """Where the rows of a view stood when it was pinned before, as far as that still matters."""
    if pin is None or not pin.readable or pin.segments is None:
        return {}
    found = {**pin.earlier, **dict.fromkeys(pin.segments, pin.used)}
    return {name: used for name, used in found.items() if name not in now and used_lately(used, days=PIN_DAYS)}
