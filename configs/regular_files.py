"""Reading files that others may have put there: regular files only, never without bound, never a traceback.

A cache, an archive, a model directory and the temporary directory may hold anything: a FIFO (opening it waits for a
writer for ever), a link to `/dev/zero` (reading it never ends), a directory, a JSON document of a million brackets.
Everything that is read from such places comes through here. Where the name is ours (a manifest of the cache) a link
is refused; where people may link on purpose (the hub's snapshots link to its blobs, data files lie elsewhere) it is
followed, and only what it leads to has to be a regular file.
"""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Literal

from configs.errors import DistillError

Links = Literal["refuse", "follow"]

JSON_BYTES = 64 * 2**20
"""No JSON document that belongs to a model, a cache or a run is longer."""

# A FIFO opens at once with O_NONBLOCK, so that it can be looked at and refused; a regular file does not care.
_FLAGS = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


class UnreadableFileError(DistillError, ValueError):
    """What lies at a path is not a regular file, is longer than it may be, or does not hold what it should.

    A file that is missing or that the disk does not give is an `OSError` as ever: that says nothing of its content.
    """


def open_regular(path: Path, *, links: Links = "refuse") -> BinaryIO:
    """Open a regular file for reading.

    Raises:
        UnreadableFileError: it is a directory, a FIFO, a device, a socket, or a link where links are refused.
        OSError: it is missing or cannot be opened.
    """
    return os.fdopen(_open(path, _FLAGS if links == "follow" else _FLAGS | os.O_NOFOLLOW), "rb")


def open_own(path: Path, *, flags: int = 0) -> int:
    """The descriptor of a regular file of ours to read and write, made where there is none; `flags` are added.

    Raises:
        UnreadableFileError: it is a link, a directory, a FIFO, a device, or a socket; with the cure.
        OSError: it cannot be opened.
    """
    try:
        return _open(path, _FLAGS | os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | flags)
    except UnreadableFileError as error:
        raise UnreadableFileError(f"{error}: remove it") from None


def read_regular(path: Path, *, at_most: int, links: Links = "refuse") -> bytes:
    """The whole content of a regular file of at most `at_most` bytes.

    Raises:
        UnreadableFileError: see `open_regular`, or it is longer.
        OSError: it is missing or cannot be read.
    """
    with open_regular(path, links=links) as stream:
        size = os.fstat(stream.fileno()).st_size
        # Python makes room for what is asked for: no more than there is, unless it grows meanwhile.
        content = stream.read(min(size, at_most) + 1)
        if len(content) > size and size < at_most:
            content += stream.read(at_most - size)
    if len(content) > at_most:
        raise UnreadableFileError(f"{path}: is longer than the {at_most:,} bytes that it may have")
    return content


def read_json(path: Path, *, at_most: int = JSON_BYTES, links: Links = "refuse") -> object:
    """The JSON document in a regular file.

    Raises:
        UnreadableFileError: see `read_regular`, or it is not JSON that Python can hold.
        OSError: it is missing or cannot be read.
    """
    return parse_json(read_regular(path, at_most=at_most, links=links), origin=str(path))


def parse_json(content: bytes, *, origin: str) -> object:
    """A JSON document; `origin` names it in messages.

    Raises:
        UnreadableFileError: it is not UTF-8, not JSON, nested too deep, or holds an integer of thousands of digits.
    """
    try:
        parsed: object = json.loads(content.decode("utf-8"))
    except UnicodeDecodeError as error:
        raise UnreadableFileError(f"{origin}: byte {error.start} is not UTF-8") from None
    except RecursionError:
        raise UnreadableFileError(f"{origin}: is nested too deep") from None
    except ValueError as error:
        raise UnreadableFileError(f"{origin}: not valid JSON ({error})") from None
    return parsed


def _open(path: Path, flags: int) -> int:
    try:
        handle = os.open(path, flags, 0o644)
    except OSError as error:
        # What Linux says of a link that it may not follow, of a socket, and of a directory that would be written.
        kinds = {errno.ELOOP: "a symbolic link", errno.ENXIO: "a socket", errno.EISDIR: "a directory"}
        if error.errno in kinds:
            raise UnreadableFileError(f"{path}: is {kinds[error.errno]}, not a regular file") from None
        raise
    kind = os.fstat(handle).st_mode
    if not stat.S_ISREG(kind):
        os.close(handle)
        raise UnreadableFileError(f"{path}: is {_named(kind)}, not a regular file")
    return handle


def texts_within(document: object) -> Iterator[str]:
    """All texts of a JSON document, keys too; nothing recurses, for it may be as deep as the parser allows."""
    waiting = [document]
    while waiting:
        each = waiting.pop()
        if isinstance(each, str):
            yield each
        elif isinstance(each, Mapping):
            waiting += [*each.keys(), *each.values()]
        elif isinstance(each, list | tuple):
            waiting += each


def _named(mode: int) -> str:
    kinds = {
        stat.S_IFDIR: "a directory",
        stat.S_IFIFO: "a named pipe",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
        stat.S_IFSOCK: "a socket",
    }
    return kinds.get(stat.S_IFMT(mode), "something else")
