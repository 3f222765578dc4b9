"""A stream to a terminal or pipe that may go away: what cannot be written any more is dropped, and the work goes on.

A pipe whose reader has ended answers EPIPE, a terminal that was closed EIO. Neither says anything about the run, whose
log is a file.
"""

from __future__ import annotations

import io


class _Lasting(io.FileIO):
    """Writes that fail count as done."""

    def write(self, data: object, /) -> int:
        try:
            return super().write(data)  # type: ignore[arg-type]
        except OSError:
            return memoryview(data).nbytes  # type: ignore[arg-type]


def lasting_stream(descriptor: int) -> io.TextIOWrapper:
    """A text stream over `descriptor`, which it owns, that never fails."""
    return io.TextIOWrapper(
        io.BufferedWriter(_Lasting(descriptor, "w")), encoding="utf-8", errors="replace", line_buffering=True
    )
