"""The manifest of a segment: what makes it count, and how to tell that it is still what was written.

A manifest is one line of canonical JSON, `{"body": {...}, "sha256": "<hex>"}`, where the digest covers the canonical
JSON of the body. It names every object of its segment with size and SHA-256. Readers trust nothing else: a segment
without a manifest does not exist, an object that differs from its manifest is damaged.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from cache.disk.encoding import ENCODINGS
from cache.disk.signal_encoding import ERROR_PREFIX, SIGNAL_ENCODINGS
from cache.disk.spending import PREFIX
from cache.disk.storage import Storage
from configs.errors import CacheError
from configs.regular_files import UnreadableFileError, parse_json
from configs.visible_text import visible

FORMAT = 1
"""Version of the on-disk format; a reader refuses any other."""

RANKED_FORMAT = 2
"""Of a segment whose token ids are kept by their ranks, which a reader of the first version does not know."""

LARGEST_COUNT = 2**32 - 1
LARGEST_OBJECT = 2**40
LARGEST_MANIFEST = 2**24

ARRIVED = "arrived"
"""Of the provenance of a segment that came out of an archive: `import`."""

_UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")

ARRIVAL_STEP_NS = 2**20
"""Between two segments whose order is not that of their times: merging takes a nanosecond off each time."""


class DamagedObject(CacheError):
    """An object on disk differs from its manifest. `segment` is the uuid, `name` the object's path inside it."""

    def __init__(self, segment: str, name: str, reason: str) -> None:
        super().__init__(visible(f"segment {segment} object {name}: {reason}", at_most=500))
        self.segment, self.name, self.reason = segment, name, reason

    def __reduce__(self) -> tuple[type[DamagedObject], tuple[str, str, str]]:
        return type(self), (self.segment, self.name, self.reason)


@dataclass(frozen=True, slots=True)
class ObjectInfo:
    """Size in bytes and SHA-256 (hex) of one object."""

    size: int
    sha256: str

    @classmethod
    def of(cls, data: bytes) -> ObjectInfo:
        """Describe these bytes."""
        return cls(len(data), hashlib.sha256(data).hexdigest())


@dataclass(frozen=True, slots=True)
class Manifest:
    """Everything a reader needs to know of a segment before it opens it.

    `rows` counts sequences, `scored_rows` the positions with log-probabilities, `tokens` prompt and response tokens
    together. `k` and `encoding` are those of all scored rows (0 and `None` in a segment of text alone).
    In a segment of signals (`cache.signals`) `k` is W, `scored_rows` counts rows of W values, and `vocab` is 0.
    `objects` is keyed by path below `segments/<uuid>/`; `keys` describes `manifests/<uuid>.keys`. `rollout` names the
    stage whose student wrote the sequences, which the teacher then scored; `None` in all other segments.

    `created_ns` is when the segment came to this place, and never before one that was here when it came, whatever the
    clock said: the oldest answers, and an answer that was given stays.
    """

    uuid: str
    identity: str
    created_ns: int
    rows: int
    scored_rows: int
    tokens: int
    response_tokens: int
    generations: int
    vocab: int
    k: int
    encoding: str | None
    chunk_rows: int
    keys: ObjectInfo
    objects: Mapping[str, ObjectInfo]
    provenance: Mapping[str, str] = field(default_factory=dict)
    licence: str | None = None
    rollout: str | None = None
    format: int = FORMAT

    @property
    def order(self) -> tuple[int, str]:
        """Sorts segments by age; among equals the oldest wins."""
        return self.created_ns, self.uuid

    @property
    def signals(self) -> bool:
        """Whether the rows are signals."""
        return self.encoding in SIGNAL_ENCODINGS

    @property
    def ranked(self) -> bool:
        """Whether token ids are kept by their ranks (`cache.disk.ranked_ids`)."""
        return self.format == RANKED_FORMAT

    @property
    def origin(self) -> dict[str, str]:
        """Where the rows come from, which many segments share: the provenance without what was spent and measured."""
        measured = (PREFIX, ERROR_PREFIX)
        return {name: text for name, text in self.provenance.items() if not name.startswith(measured)}

    @property
    def imported(self) -> bool:
        """Whether the segment came out of an archive."""
        return self.provenance.get(ARRIVED) == "import"

    @property
    def disk_bytes(self) -> int:
        """Size of all objects, the manifest itself aside."""
        return self.keys.size + sum(info.size for info in self.objects.values())

    @property
    def named_bytes(self) -> int:
        """Size of all objects and of the manifest itself."""
        return self.disk_bytes + len(self.to_json())

    def to_json(self) -> bytes:
        """The manifest as it stands on disk."""
        written = asdict(self)
        if self.rollout is None:
            del written["rollout"]  # readers that know of no rollouts refuse a field that they do not know
        body = _canonical_json(written)
        digest = hashlib.sha256(body.encode()).hexdigest()
        return f'{{"body":{body},"sha256":"{digest}"}}'.encode()


def arrival_ns(wanted: int, *, newest: int) -> int:
    """The `created_ns` of a segment that comes to a place whose youngest one has `newest`.

    That is `wanted`, the time by somebody's clock, unless the clock says that it comes before what is there.
    """
    return max(wanted, newest + ARRIVAL_STEP_NS)


def read_manifest(storage: Storage, uuid: str, *, identity: str) -> Manifest:
    """Read and check the manifest of a segment.

    Raises:
        DamagedObject: it is torn, changed, or not of this segment.
        CacheError: it is of another format version or of another teacher.
        OSError: it cannot be read.
    """
    name = f"manifests/{uuid}.json"
    try:
        data = storage.read(name, at_most=LARGEST_MANIFEST)
    except UnreadableFileError as error:
        raise DamagedObject(uuid, name, str(error)) from error
    return parse_manifest(data, uuid=uuid, identity=identity, place=storage.place)


def parse_manifest(data: bytes, *, uuid: str, identity: str, place: str) -> Manifest:
    """Check the bytes of a manifest that lies in `place`; raises like `read_manifest`."""
    name = f"manifests/{uuid}.json"
    path = f"{place}/{name}"
    if len(data) > LARGEST_MANIFEST:
        raise DamagedObject(uuid, name, "larger than any manifest")
    try:
        outer: Any = parse_json(data, origin=path)
        body, digest = outer["body"], outer["sha256"]
    except (ValueError, KeyError, TypeError) as error:
        raise DamagedObject(uuid, name, "not a manifest") from error
    if hashlib.sha256(_canonical_json(body).encode()).hexdigest() != digest:
        raise DamagedObject(uuid, name, "differs from its own digest")
    if not isinstance(body, dict) or body.get("format") not in (FORMAT, RANKED_FORMAT):
        version = visible(str(body.get("format")), at_most=40) if isinstance(body, dict) else None
        raise CacheError(
            f"{path}: written in format {version}, this version reads formats {FORMAT} and {RANKED_FORMAT}: upgrade "
            "stillroom or use another runtime.cache_root"
        )
    manifest = _parse(body, uuid=uuid, name=name)
    if manifest.identity != identity:
        raise CacheError(
            f"{path}: belongs to teacher {visible(manifest.identity, at_most=80)}, not {identity}: move it back"
        )
    return manifest


def _parse(body: dict[str, Any], *, uuid: str, name: str) -> Manifest:
    try:
        objects = {path: ObjectInfo(**info) for path, info in body.pop("objects").items()}
        manifest = Manifest(objects=objects, keys=ObjectInfo(**body.pop("keys")), **body)
    except (TypeError, KeyError, AttributeError) as error:
        raise DamagedObject(uuid, name, "lacks a field") from error
    counts = [getattr(manifest, item.name) for item in fields(Manifest) if item.type == "int"]
    infos = (*manifest.objects.values(), manifest.keys)
    sane = (
        manifest.uuid == uuid
        and _UUID.fullmatch(uuid) is not None
        and all(type(number) is int and number >= 0 for number in (*counts, *(info.size for info in infos)))
        and all(info.size <= LARGEST_OBJECT and isinstance(info.sha256, str) for info in infos)
        and all(".." not in path.split("/") and not path.startswith("/") for path in manifest.objects)
        and manifest.created_ns < 2**63
        and isinstance(manifest.provenance, dict)
        and all(isinstance(text, str) for text in (manifest.identity, *manifest.provenance.values()))
        and isinstance(manifest.licence, str | None)
        and max(manifest.rows, manifest.scored_rows, manifest.tokens, manifest.generations) <= LARGEST_COUNT
        and manifest.response_tokens <= manifest.tokens
        and (manifest.scored_rows == 0 or 0 < manifest.chunk_rows <= manifest.scored_rows)
        and (manifest.rollout is None or (isinstance(manifest.rollout, str) and manifest.generations == 0))
        and (_holds_signals(manifest) if manifest.signals else _holds_records(manifest))
    )
    if not sane:
        raise DamagedObject(uuid, name, "holds numbers that no segment can have")
    return manifest


def _holds_records(manifest: Manifest) -> bool:
    """Whether the numbers can be those of sequences and their log-probabilities."""
    return (
        manifest.k <= manifest.vocab < 2**31
        and (manifest.encoding != "full" or manifest.k == manifest.vocab)
        and manifest.scored_rows <= manifest.response_tokens
        and (manifest.encoding in ENCODINGS if manifest.k else manifest.encoding is None)
    )


def _holds_signals(manifest: Manifest) -> bool:
    """Whether the numbers can be those of signals: each has one row of W values, or one a token."""
    return (
        0 < manifest.k < 2**31
        and manifest.vocab == manifest.generations == 0
        and manifest.rollout is None
        and 0 < manifest.rows <= manifest.scored_rows <= manifest.tokens
    )


def _canonical_json(value: object) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
