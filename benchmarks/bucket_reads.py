"""A large object of a bucket: in parts, several at once, beside one request; then from its copy here.

The service is a server of its own process that lets every connection have so many bytes a second, as large object
stores do: one connection to them is slower than the line.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import re
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing.connection import Connection
from pathlib import Path
from unittest.mock import patch

from benchmarks.measurement import Measurement, at_least
from cache.disk import object_storage
from cache.disk.object_storage import PARALLEL_REQUESTS, ObjectStorage

OBJECT_BYTES = 96 * 2**20
CONNECTION_BYTES = 24 * 2**20
"""A second, of each connection."""

WRITTEN_AT_ONCE = 2**18
NAME = "segments/large"


def bench_bucket_reads() -> Iterator[Measurement]:
    """MiB a second of the first read, either way, and of the second one."""
    with tempfile.TemporaryDirectory() as copies, _service() as port:
        place = {
            "AWS_ACCESS_KEY_ID": "nobody",
            "AWS_SECRET_ACCESS_KEY": "nothing",
            "AWS_REGION": "us-east-1",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
            "AWS_ALLOW_HTTP": "true",
            "STILLROOM_COPIES": copies,
        }
        with patch.dict(os.environ, place):
            in_parts = _rate("s3://bucket/parts")
            again = _rate("s3://bucket/parts")
            with patch.object(object_storage, "PART_BYTES", OBJECT_BYTES):
                whole = _rate("s3://bucket/whole")
        copied = _read_rate(next(path for path in Path(copies).rglob("large") if path.is_file()))
    yield Measurement(
        f"object of {OBJECT_BYTES >> 20} MiB, {PARALLEL_REQUESTS} parts at once", in_parts, "MiB/s", digits=0,
        peers={"one request": whole}, note=f"a connection has {CONNECTION_BYTES >> 20} MiB/s",
    )  # fmt: skip
    yield at_least("the same / one request", in_parts / whole, 0.5 * PARALLEL_REQUESTS, digits=1)
    yield Measurement("its copy here", again, "MiB/s", digits=0, peers={"reading the file": copied})


def _rate(url: str) -> float:
    started = time.perf_counter()
    data = ObjectStorage(url).fetch(NAME, at_most=OBJECT_BYTES)
    assert len(data) == OBJECT_BYTES
    return OBJECT_BYTES / 2**20 / (time.perf_counter() - started)


def _read_rate(path: Path) -> float:
    started = time.perf_counter()
    path.read_bytes()
    return OBJECT_BYTES / 2**20 / (time.perf_counter() - started)


@contextmanager
def _service() -> Iterator[int]:
    """The port of the server, which ends with the context."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_serve, args=(theirs,), daemon=True)
    process.start()
    try:
        yield int(ours.recv())
    finally:
        process.kill()
        process.join()


def _serve(told: Connection) -> None:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Throttled)
    told.send(server.server_address[1])
    server.serve_forever()


class _Throttled(BaseHTTPRequestHandler):
    """Zeros, at so many bytes a second for each connection."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """The object, or the asked part of it."""
        first, last = 0, OBJECT_BYTES - 1
        asked = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if asked is not None:
            first, last = int(asked[1]), min(int(asked[2] or last), last)
        self.send_response(200 if asked is None else 206)
        self.send_header("Content-Length", str(last + 1 - first))
        if asked is not None:
            self.send_header("Content-Range", f"bytes {first}-{last}/{OBJECT_BYTES}")
        self.send_header("ETag", '"zeros"')
        self.send_header("Last-Modified", "Thu, 01 Jan 1970 00:00:00 GMT")
        self.end_headers()
        # A client that wants parts leaves the whole body where it is.
        with contextlib.suppress(ConnectionError):
            self._send(last + 1 - first)

    def _send(self, left: int) -> None:
        started, sent = time.monotonic(), 0
        while left:
            some = min(left, WRITTEN_AT_ONCE)
            self.wfile.write(bytes(some))
            left, sent = left - some, sent + some
            time.sleep(max(0.0, sent / CONNECTION_BYTES - (time.monotonic() - started)))

    def log_message(self, *_: object) -> None:
        """Nothing."""
