"""Who listens where: every listening TCP socket of a group of processes, looked for again and again while they live."""

from __future__ import annotations

import ipaddress
import os
import threading
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

_LISTENS = "0A"
LOOK_EVERY_S = 0.2


@dataclass(frozen=True, slots=True)
class Listener:
    """One socket that one process listens on; `process` is the beginning of its command line."""

    process: str
    address: str
    pid: int
    port: int


class Watch:
    """All listeners of the processes whose environment holds `mark`, from its start to its end."""

    def __init__(self, *, mark: str) -> None:
        self._mark = mark.encode()
        self._seen: set[Listener] = set()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._look, daemon=True)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def seen(self) -> frozenset[Listener]:
        return frozenset(self._seen)

    def _look(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            self._seen |= listeners(self._mark)


def listeners(mark: bytes) -> set[Listener]:
    """The listening sockets, at this moment, of all processes that were started with `mark` in their environment."""
    sockets = {f"socket:[{inode}]": where for inode, where in _listening().items()}
    found: set[Listener] = set()
    for process in Path("/proc").iterdir():
        if not process.name.isdigit():
            continue
        try:
            if mark not in (process / "environ").read_bytes():
                continue
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
            for entry in (process / "fd").iterdir():
                socket = sockets.get(os.readlink(entry)) if entry.is_symlink() else None
                if socket is not None:
                    found.add(Listener(command[:200], socket[0], int(process.name), socket[1]))
        except OSError:
            continue  # It ended, or one of its files was closed.
    return found


def _listening() -> dict[str, tuple[str, int]]:
    """Address and port of all listening TCP sockets of this machine by their inode."""
    found: dict[str, tuple[str, int]] = {}
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        for line in Path(table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == _LISTENS:
                address, _, port = fields[1].partition(":")
                found[fields[9]] = (_address(address), int(port, 16))
    return found


def _address(written: str) -> str:
    """The kernel writes each group of four bytes as one number of the machine's own byte order, which is little."""
    content = b"".join(bytes.fromhex(written[at : at + 8])[::-1] for at in range(0, len(written), 8))
    address = ipaddress.ip_address(content)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)
