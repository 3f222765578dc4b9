"""Whose work something is, and whether that process is still alive.

A process that leaves work in progress in the cache (a staging directory, a claim) says who it is and repeats it now
and then. Death is proved only by the same kernel in the same process namespace; anything else, another container or
another machine included, has to be silent for a long time.
"""

from __future__ import annotations

import json
import os
import socket
import time
import zlib
from dataclasses import asdict, dataclass, replace
from pathlib import Path

HEARTBEAT_S = 30.0
"""How often an owner says that it is there."""


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
            boot_id=_text("/proc/sys/kernel/random/boot_id"),
            namespace=_namespace(),
            pid=os.getpid(),
            start_ticks=_start_ticks(os.getpid()) or 0,
            heartbeat=time.time(),
        )

    @classmethod
    def from_json(cls, data: bytes) -> Owner | None:
        """The owner that `to_json` wrote, or its bare fields; `None` for anything else."""
        try:
            fields = json.loads(data)
            check = fields.pop("check", None)
            owner = cls(**fields)
        except (ValueError, TypeError, AttributeError):
            return None
        return owner if check in (None, owner._check()) else None

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
        here = Owner.here()
        if (self.boot_id, self.namespace) == (here.boot_id, here.namespace) and self.boot_id and self.namespace:
            return _start_ticks(self.pid) != self.start_ticks
        return time.time() - self.heartbeat > silent_s


def _start_ticks(pid: int) -> int | None:
    """When a process started, `None` when there is none; a number that is used again has another start."""
    text = _text(f"/proc/{pid}/stat")
    # The command's name stands in brackets and may itself hold brackets and blanks.
    fields = text.rpartition(")")[2].split()
    return int(fields[19]) if len(fields) > 19 and fields[0] not in "ZX" else None


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
