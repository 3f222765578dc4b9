"""Whose work something is, and whether that process is still alive.

A process that leaves work in progress in the cache (a staging directory, a claim) says who it is and repeats it now
and then. Death is proved only by the same kernel in the same process namespace; anything else, another container or
another machine included, has to be silent for a long time.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from configs.regular_files import UnreadableFileError, parse_json

HEARTBEAT_S = 30.0
"""How often an owner says that it is there."""

UNKNOWN_START = 0
"""Stands for a start that the process itself could not see."""

_BOOT_ID = "/proc/sys/kernel/random/boot_id"


@dataclass(frozen=True, slots=True)
class Owner:
    """A process: where it runs, when it started (clock ticks since boot), and when it was last heard of (seconds)."""

    host: str
    boot_id: str
    namespace: str
    pid: int
    start_ticks: int
    heartbeat: float

    @classmethod
    def here(cls) -> Owner:
        """This process, now."""
        return cls(
            host=socket.gethostname(),
            boot_id=_text(_BOOT_ID),
            namespace=_namespace(),
            pid=os.getpid(),
            start_ticks=_start_ticks(os.getpid()) or UNKNOWN_START,
            heartbeat=time.time(),
        )

    @classmethod
    def from_json(cls, data: bytes) -> Owner | None:
        """The owner that `to_json` wrote, or its bare fields; `None` for anything else."""
        try:
            fields = parse_json(data, origin="owner")
        except UnreadableFileError:
            return None
        return cls.from_fields(fields)

    @classmethod
    def from_fields(cls, fields: object) -> Owner | None:
        """The owner of these fields of JSON; `None` when they are not those of one."""
        try:
            named = dict(fields)  # type: ignore[call-overload]  # what is not a dictionary is refused here
            check = named.pop("check", None)
            owner = cls(**named)
        except (ValueError, TypeError):
            return None
        texts = all(isinstance(text, str) for text in (owner.host, owner.boot_id, owner.namespace))
        numbers = all(type(number) is int and 0 <= number < 2**63 for number in (owner.pid, owner.start_ticks))
        known = texts and numbers and owner.pid > 0 and type(owner.heartbeat) in (int, float)
        sound = known and math.isfinite(owner.heartbeat) and check in (None, owner._check())
        return owner if sound else None

    def to_json(self) -> bytes:
        """As it is stored: with a checksum, because a process of another number would look dead."""
        return json.dumps(asdict(self) | {"check": self._check()}).encode()

    def _check(self) -> int:
        return zlib.crc32(json.dumps(asdict(self), sort_keys=True).encode())

    def heard(self) -> Owner:
        """The same owner, heard of now."""
        return replace(self, heartbeat=time.time())

    def gone(self, *, silent_s: float) -> bool:
        """Whether the process is provably dead, or has been silent for so long."""
        boot_id, namespace = _text(_BOOT_ID), _namespace()
        if (self.boot_id, self.namespace) == (boot_id, namespace) and boot_id and namespace:
            dead = _dead(self.pid, start_ticks=self.start_ticks)
            if dead is not None:
                return dead
        return time.time() - self.heartbeat > silent_s


def _dead(pid: int, *, start_ticks: int) -> bool | None:
    """Whether the process of this number that started then has ended; `None` when the system does not let us see.

    Where `/proc` hides the processes of others (`hidepid`) or no file can be opened, it looks as if they were dead:
    only the kernel's answer to a signal that is not sent proves it, or a start that is seen to be another.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except (PermissionError, OverflowError):
        pass  # somebody else's process of this number
    started = _start_ticks(pid)
    if started is None or start_ticks == UNKNOWN_START:
        return None
    return started != start_ticks


def _start_ticks(pid: int) -> int | None:
    """When a process started, `None` when it cannot be seen; a number that is used again has another start.

    One that is over and only waits for its parent to look (a zombie) started at no time.
    """
    text = _text(f"/proc/{pid}/stat")
    # The command's name stands in brackets and may itself hold brackets and blanks.
    fields = text.rpartition(")")[2].split()
    if len(fields) <= 19:
        return None
    return int(fields[19]) if fields[0] not in "ZX" else -1


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""


def _text(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""
