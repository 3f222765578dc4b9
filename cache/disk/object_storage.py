"""A cache below a URL (`s3://`, `gs://`, `az://`), by way of obstore, with local copies of what was read.

Credentials, region and endpoint come from the usual environment variables of the service (for S3 `AWS_ACCESS_KEY_ID`,
`AWS_REGION`, `AWS_ENDPOINT_URL` ...). An exclusive name is a conditional put, which all three services have. There is
no rename and none is needed: objects are put under their final names, and nobody looks at a segment before its
manifest names it.

What was read is kept on this machine (`cache.disk.copies`). A large object comes in parts, several at once, since one
connection to such a service is slower than the line.
"""

from __future__ import annotations

import errno
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from datetime import timedelta

import obstore
from obstore.exceptions import AlreadyExistsError, BaseError
from obstore.store import from_url

from cache.disk.copies import Copies, copies_directory, copies_room
from cache.disk.failpoints import failpoint
from cache.disk.storage import NOTE_BYTES, Span
from configs.errors import ConfigError
from configs.regular_files import UnreadableFileError
from configs.visible_text import first_line

PARALLEL_REQUESTS = 8
PART_BYTES = 8 * 2**20
"""What one request asks for at most: large enough that its latency does not count."""

RETRIES = 5
GIVE_UP_AFTER = timedelta(seconds=60)
"""A service that does not answer for this long counts as an I/O error."""


class ObjectStorage:
    """A prefix of an object store; see `cache.disk.storage.Storage`."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._copies = Copies(url, root=copies_directory(), room=copies_room())
        self._fetched = set[str]()
        try:
            self._store = from_url(url, retry_config={"max_retries": RETRIES, "retry_timeout": GIVE_UP_AFTER})
        except (BaseError, ValueError) as error:
            raise ConfigError(f"runtime.cache_root={url}: cannot be used ({first_line(error)})") from error

    @property
    def place(self) -> str:
        """The URL."""
        return self._url

    def names(self, folder: str) -> list[str]:
        """See `cache.disk.storage.Storage`."""
        with self._as_os_errors(folder):
            found = obstore.list_with_delimiter(self._store, folder or None)
            paths = [*found["common_prefixes"], *(entry["path"] for entry in found["objects"])]
            return sorted(path.rpartition("/")[2] for path in paths)

    def sizes(self, folder: str) -> Mapping[str, int]:
        """See `cache.disk.storage.Storage`."""
        with self._as_os_errors(folder):
            return {
                entry["path"].removeprefix(f"{folder}/"): entry["size"]
                for page in obstore.list(self._store, folder)
                for entry in page
            }

    def read(self, name: str, *, at_most: int = NOTE_BYTES) -> bytes:
        """See `cache.disk.storage.Storage`."""
        with self._as_os_errors(name):
            found = obstore.get(self._store, name)
            size = found.meta["size"]
            if size > at_most:
                raise UnreadableFileError(f"{self._url}/{name}: is longer than the {at_most:,} bytes that it may have")
            # What answers has sent no more than its head so far: the body is left where it comes in parts.
            return bytes(found.bytes()) if size <= PART_BYTES else self._in_parts(name, size=size)

    def _in_parts(self, name: str, *, size: int) -> bytes:
        # As many parts in every round of requests: those of a short last one would be waited for while others idle.
        rounds = -(-size // (PARALLEL_REQUESTS * PART_BYTES))
        length = -(-size // (PARALLEL_REQUESTS * rounds))
        spans = [(start, min(length, size - start)) for start in range(0, size, length)]
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            return b"".join(pool.map(lambda span: self._part(name, span), spans))

    def _part(self, name: str, span: Span) -> obstore.Bytes:
        return obstore.get_range(self._store, name, start=span[0], length=span[1])

    def fetch(self, name: str, *, at_most: int) -> bytes:
        """See `cache.disk.storage.Objects`."""
        with suppress(FileNotFoundError):
            return self._copies.read(name, at_most=at_most)
        data = self.read(name, at_most=at_most)
        self._copies.keep(name, data)
        self._fetched.add(name)
        return data

    def fetch_spans(self, name: str, spans: Iterable[Span]) -> list[bytes]:
        """See `cache.disk.storage.Objects`.

        Of an object whose copy had to make room already only the parts are fetched: to copy it again for each of them
        would be many times as much.
        """
        spans = list(spans)
        with suppress(FileNotFoundError):
            return self._copies.read_spans(name, spans)
        with self._as_os_errors(name):
            size = obstore.head(self._store, name)["size"]
            if name in self._fetched:
                inside = [(start, min(length, size - start)) for start, length in spans]
                return [bytes(self._part(name, span)) if span[1] > 0 else b"" for span in inside]
        data = self.fetch(name, at_most=size)
        return [data[offset : offset + length] for offset, length in spans]

    def forget_copy(self, name: str) -> None:
        """See `cache.disk.storage.Storage`; whatever stands in its place goes."""
        self._copies.forget(name)

    def create(self, name: str, data: bytes) -> None:
        """See `cache.disk.storage.Storage`."""
        with self._as_os_errors(name):
            obstore.put(self._store, name, data, mode="create")

    def replace(self, name: str, data: bytes) -> None:
        """See `cache.disk.storage.Storage`."""
        with self._as_os_errors(name):
            obstore.put(self._store, name, data)

    def create_segment(self, name: str, objects: Mapping[str, bytes]) -> None:
        """See `cache.disk.storage.Storage`."""
        with ThreadPoolExecutor(PARALLEL_REQUESTS) as pool:
            list(pool.map(lambda item: self.create(f"segments/{name}/{item[0]}", item[1]), objects.items()))
        failpoint("segment-after-arrays")

    def delete(self, name: str) -> None:
        """See `cache.disk.storage.Storage`."""
        self.forget_copy(name)
        try:
            with self._as_os_errors(name):
                obstore.delete(self._store, name)
        except FileNotFoundError:
            return

    def delete_folder(self, name: str) -> None:
        """See `cache.disk.storage.Storage`."""
        for path in self.sizes(name):
            self.delete(f"{name}/{path}")

    def changed(self, name: str) -> float | None:
        """See `cache.disk.storage.Storage`, by the clock of the service."""
        with self._as_os_errors(name):
            entries = [entry for page in obstore.list(self._store, name) for entry in page]
            with suppress(FileNotFoundError):  # a folder is there by what lies below it
                entries.append(obstore.head(self._store, name))
            return max((entry["last_modified"].timestamp() for entry in entries), default=None)

    def unfinished(self) -> Mapping[str, float]:
        """See `cache.disk.storage.Storage`; a put is whole or not there."""
        return {}

    @contextmanager
    def _as_os_errors(self, name: str) -> Iterator[None]:
        try:
            yield
        except AlreadyExistsError as error:
            raise FileExistsError(errno.EEXIST, "exists", f"{self._url}/{name}") from error
        except BaseError as error:
            raise OSError(errno.EIO, first_line(error), f"{self._url}/{name}") from error
