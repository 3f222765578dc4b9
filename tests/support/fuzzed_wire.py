"""What a client reads of a door, fuzzed by coverage: `python fuzzed_wire.py CORPUS -runs=N` (atheris, libFuzzer's options).

Every input is read as it is and under a right checksum. It ends as an answer or as a `WireError`; all else is a find.
Started by `tests/slow/test_wire_fuzz.py`.
"""

from __future__ import annotations

import struct
import sys

import atheris
import google_crc32c

with atheris.instrument_imports(include=["teacher_server.http", "cache.records", "cache.signals"]):
    from cache import SignalRecord, TeacherRecord
    from cache.protocols import Failure
    from teacher_server.http.signals.wire import decode_signals
    from teacher_server.http.wire import WireError, decode_records

IDENTITY = "d" * 64
VOCAB = 151


def read(data: bytes) -> None:
    """Read an input in every way that a client would."""
    for body in (data, data + struct.pack("<I", google_crc32c.value(data))):
        for signals in (False, True):
            try:
                rows = (
                    decode_signals(body, identity=IDENTITY)
                    if signals
                    else decode_records(body, identity=IDENTITY, vocab=VOCAB)
                )
            except WireError:
                continue
            for row in rows:
                assert isinstance(row.outcome, Failure | TeacherRecord | SignalRecord) and type(row.cached) is bool
                assert not isinstance(row.outcome, Failure) or type(row.outcome.reason) is str


if __name__ == "__main__":
    atheris.Setup(sys.argv, read)
    atheris.Fuzz()
