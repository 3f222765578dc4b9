"""Whatever stands in a file of a cache or in an archive, every reader answers or says in one line what is wrong."""

from __future__ import annotations

import io
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from rewriting_builders import DIGEST, names, put_each, requests_of, storage_of
from signal_builders import respond, some_requests
from store_builders import TEACHER, open_cache, teacher_dir

from cache.claims import Claims
from cache.disk.directory import parse_description, read_identity
from cache.disk.key_objects import KeyTables
from cache.disk.manifests import read_manifest
from cache.disk.owners import Owner
from cache.pins import read_pins
from cache.upkeep.archives import export_archive, import_archive
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.inventory import teacher_inventory
from cache.upkeep.proof import prove_segment
from cache.upkeep.quota import enforce_quota
from cache.upkeep.rewriting import compact
from cache.upkeep.searching import find_matches
from cache.views import CacheView
from configs.errors import DistillError

PROMPTS = [5, 6]
SIGNALS = some_requests(3)
FUZZED = settings(
    max_examples=25, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
"""Few examples each time and always the same: `tests/slow` is the place for many."""

NUMBERS = st.sampled_from([-1, 0, 1, 2**31, 2**63, -(2**63), 2**64, 10**400, 1.5, float("nan"), float("inf"), 1e308])
TEXTS = st.text(max_size=8) | st.sampled_from(["", "\x1b[2J", "\u202e", "../../x", "a\nb", "\ud800"])
VALUES = st.recursive(
    st.none() | st.booleans() | NUMBERS | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
DEEP = b"[" * 200_000
HUGE = b'{"format": ' + b"9" * 100_000 + b"}"


@st.composite
def spoilt(draw: st.DrawFn) -> Callable[[bytes], bytes]:
    """A change of bytes: some flipped, the end cut or grown, or a part of a JSON document replaced."""
    how = draw(st.sampled_from(["flip", "cut", "grow", "json", "json", "json"]))
    part = draw(st.integers(0, 9999)) / 10_000
    if how == "flip":
        bit = draw(st.integers(1, 255))
        return lambda data: _flipped(data, int(part * len(data)), bit)
    if how == "cut":
        return lambda data: data[: int(part * len(data))]
    if how == "grow":
        return lambda data: data + draw(st.binary(min_size=1, max_size=40))
    value, order = draw(VALUES), draw(st.integers(0, 99))
    return lambda data: _replaced(data, order, value)


def _flipped(data: bytes, at: int, bit: int) -> bytes:
    return data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :] if at < len(data) else data


def _replaced(data: bytes, order: int, value: object) -> bytes:
    """One place of a JSON document is another value."""
    try:
        document = json.loads(data)
    except ValueError:
        return json.dumps(value).encode()
    places = list(_places(document))
    if not places:
        return json.dumps(value).encode()
    holder, key = places[order % len(places)]
    holder[key] = value
    return json.dumps(document).encode()


def _places(document: Any) -> Iterator[tuple[Any, Any]]:
    items = (
        document.items() if isinstance(document, dict) else enumerate(document if isinstance(document, list) else [])
    )
    for key, inner in list(items):
        yield document, key
        yield from _places(inner)


@contextmanager
def one_line() -> Iterator[None]:
    """An error of ours in one line without control characters is an answer; anything else is a defect."""
    try:
        yield
    except DistillError as error:
        text = str(error)
        assert text and "\n" not in text and "\x1b" not in text and "\u202e" not in text


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A cache with two segments, a pinned view, a claim, a mark and somebody's work under way."""
    root = tmp_path_factory.mktemp("whole")
    records = put_each(root, PROMPTS)
    open_cache(root).view([record.key for record in records], dataset="d", k=8)
    return with_notes(root, claimed=records[0].key)


@pytest.fixture(scope="module")
def whole_of_signals(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with signals."""
    root = tmp_path_factory.mktemp("signals")
    records = [respond(request) for request in SIGNALS]
    for encoding, some in (("signal-u8", records[::2]), ("signal-f32", records[1::2])):
        open_cache(root).signals.put(some, encoding=encoding)
    open_cache(root).signals.view([record.key for record in records], dataset="d")
    return with_notes(root, claimed=records[0].key)


def with_notes(root: Path, *, claimed: bytes) -> Path:
    """A claim, marks and somebody's work under way."""
    storage = storage_of(root)
    storage.create("staging/somebody/owner.json", Owner.here().to_json())
    note = {"owner": json.loads(Owner.here().to_json()), "claim": "c", "k": 8}
    storage.create("claims/00000001.json", json.dumps(note).encode())
    storage.create("claims/00000001.keys", claimed)
    (first, _) = names(root, "segments")
    mark = {"segment": first, "replaced_by": None, "reason": "compact", "moved": True, "time": 0.0}
    storage.create(f"quarantine/{'0' * 8}-0000-0000-0000-{'0' * 12}.json", json.dumps(mark).encode())
    storage.create(f"tombstones/{'1' * 8}-0000-0000-0000-{'0' * 12}.json", json.dumps(mark).encode())
    return root


@contextmanager
def copied(whole: Path) -> Iterator[Path]:
    place = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(whole, place / "cache")
        yield place / "cache"
    finally:
        shutil.rmtree(place)


def everything_is_asked(root: Path) -> None:
    """Every command that reads a cache."""
    storage = storage_of(root)
    asks: list[Callable[[], object]] = [
        lambda: _read(root),
        lambda: open_cache(root).verify(),
        lambda: list(open_cache(root).verify_segments(lambda *what: prove_segment(*what, identity=DIGEST))),
        lambda: teacher_inventory(storage, DIGEST),
        lambda: read_pins(storage),
        lambda: Claims(storage).held([b"k" * 32], k=0),
        lambda: export_archive(storage, root / "a.tar", identity=DIGEST),
        lambda: find_matches(storage, identity=DIGEST, match=lambda _: False),
        lambda: collect_garbage(storage, identity=DIGEST, dry_run=True),
        lambda: enforce_quota(root, max_bytes=2**40, evict=False),
        lambda: compact(storage, identity=DIGEST),
        lambda: collect_garbage(storage, identity=DIGEST, dry_run=False, grace_s=-1.0, silent_s=-1.0),
    ]
    for ask in asks:
        with one_line():
            ask()


def _read(root: Path) -> None:
    cache = open_cache(root)
    requests = requests_of(PROMPTS)
    cache.missing(requests, k=8)
    cache.signals.missing(SIGNALS)
    for request, found in zip(SIGNALS, cache.signals.get_many(cache.signals.keys(SIGNALS)), strict=True):
        assert found is None or tuple(found.token_ids.tolist()) == request.token_ids
    keys = [key for key in cache.lookup(requests) if key is not None]
    assert all(found is None or found.key == key for key, found in zip(keys, cache.get_many(keys), strict=True))
    for path in (teacher_dir(root) / "pins").glob("*.npz"):
        with one_line():
            view = CacheView.load(path)
            for read in (cache.iter_batches, cache.signals.iter_batches):
                with one_line():
                    for block in read(view, [np.arange(len(view))]):
                        assert len(block) == len(view)


KINDS = [
    "identity.json",
    "manifests/*.json",
    "manifests/*.keys",
    "pins/*.json",
    "pins/*.places",
    "pins/*.npz",
    "claims/*.json",
    "claims/*.keys",
    "quarantine/*.json",
    "tombstones/*.json",
    "staging/*/owner.json",
    "segments/*/zarr.json",
    "segments/*/token_offsets/c/0",
    "segments/*/topk_ids/c/0/0",
]


KINDS_OF_SIGNALS = [f"segments/*/{name}/c/0" for name in ("token_offsets", "row_offsets", "signal", "place")]
KINDS_OF_SIGNALS += ["segments/*/signal_minimum/c/0", "segments/*/signal_u8/c/0/0", "segments/*/zarr.json"]


def first_of(root: Path, kind: str) -> Path:
    return sorted(teacher_dir(root).glob(kind))[0]


@pytest.mark.parametrize("kind", KINDS)
@FUZZED
@example(change=lambda _: DEEP)
@example(change=lambda _: HUGE)
@example(change=lambda _: b"")
@given(change=spoilt())
def test_a_file_that_holds_anything_stops_nothing(whole: Path, kind: str, change: Callable[[bytes], bytes]) -> None:
    path = first_of(whole, kind)
    original = path.read_bytes()
    storage, name = storage_of(whole), path.relative_to(teacher_dir(whole)).as_posix()
    data = change(original)
    try:
        path.write_bytes(data)
        with one_line():
            _parse(whole, name, data)
    finally:
        path.write_bytes(original)
    assert storage.read(name) == original


@pytest.mark.parametrize("kind", ["manifests/*.json", "manifests/*.keys", "pins/*.npz", *KINDS_OF_SIGNALS])
@FUZZED
@given(change=spoilt())
def test_a_file_of_signals_that_holds_anything_stops_nothing(
    whole_of_signals: Path, kind: str, change: Callable[[bytes], bytes]
) -> None:
    path = first_of(whole_of_signals, kind)
    original = path.read_bytes()
    try:
        path.write_bytes(change(original))
        with one_line():
            _read(whole_of_signals)
        with one_line():
            teacher_inventory(storage_of(whole_of_signals), DIGEST)
    finally:
        path.write_bytes(original)
        for mark in (teacher_dir(whole_of_signals) / "quarantine").glob("*.json"):
            if (teacher_dir(whole_of_signals) / "segments" / mark.stem).exists():
                mark.unlink()


def test_every_command_goes_through_a_cache_of_signals(whole_of_signals: Path) -> None:
    with copied(whole_of_signals) as root:
        everything_is_asked(root)
        assert open_cache(root).signals.missing(SIGNALS) == ()


def _parse(root: Path, name: str, data: bytes) -> None:
    """The reader of this kind of file alone."""
    storage = storage_of(root)
    folder, _, last = name.partition("/")
    uuid = last.partition(".")[0]
    if name == "identity.json":
        assert parse_description(data, path="p") == TEACHER
        assert read_identity(storage) == TEACHER
    elif name.endswith(".keys") and folder == "manifests":
        KeyTables(data, read_manifest(storage, uuid, identity=DIGEST))
        open_cache(root).missing(requests_of(PROMPTS), k=8)
    elif folder == "manifests":
        read_manifest(storage, uuid, identity=DIGEST)
    elif folder == "pins":
        (pin,) = read_pins(storage)
        assert pin.rows >= 0 and pin.keeps(names(root, "segments")[0])
        CacheView.from_bytes(storage.read(f"pins/{pin.view}.npz"), name="view")
    elif folder in ("claims", "staging"):
        Owner.from_json(data)
        Claims(storage).held([b"k" * 32], k=0)
        collect_garbage(storage, identity=DIGEST, dry_run=True)
    elif folder in ("quarantine", "tombstones"):
        collect_garbage(storage, identity=DIGEST, dry_run=True)
    else:
        assert all(found.segment for found in open_cache(root).verify())


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _directory(path: Path) -> None:
    path.mkdir()
    (path / "inside").write_text("x")


ODD: dict[str, Callable[[Path], object]] = {
    "pipe": _pipe,
    "endless": lambda path: path.symlink_to("/dev/zero"),
    "directory": _directory,
    "dangling": lambda path: path.symlink_to("/nowhere/at/all"),
    "loop": lambda path: path.symlink_to(path),
    "deep": lambda path: path.write_bytes(DEEP),
}


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_what_is_not_a_file_stops_no_command(whole: Path, odd: Callable[[Path], object]) -> None:
    with copied(whole) as root:
        for kind in KINDS[1:]:
            path = first_of(root, kind)
            path.unlink()
            odd(path)
        # And something of the kind beside each, and in place of a whole folder of staging and of a segment.
        for folder in ("manifests", "pins", "claims", "quarantine", "tombstones", "staging", "segments"):
            odd(teacher_dir(root) / folder / "zzzzzzzz-odd.json")
        for _ in range(2):
            answers = open_cache(root).lookup(requests_of(PROMPTS, limits=[8]), k=8)
            assert sum(key is not None for key in answers) == 1, "the other segment is sound"
            everything_is_asked(root)


@pytest.mark.parametrize("odd", ODD.values(), ids=ODD.keys())
def test_what_is_not_an_archive_is_refused_at_once(tmp_path: Path, odd: Callable[[Path], object]) -> None:
    odd(tmp_path / "a.tar")
    with pytest.raises(DistillError), one_line_only():
        import_archive(tmp_path / "there", tmp_path / "a.tar")
    assert not (tmp_path / "there").exists()


@contextmanager
def one_line_only() -> Iterator[None]:
    try:
        yield
    except DistillError as error:
        assert "\n" not in str(error)
        raise


@pytest.fixture(scope="module")
def archive(whole: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("archive") / "a.tar"
    export_archive(storage_of(whole), path, identity=DIGEST)
    return path.read_bytes()


HEADER_FIELDS = {"name": (0, 100), "size": (124, 12), "checksum": (148, 8), "type": (156, 1), "magic": (257, 8)}


@FUZZED
@given(
    member=st.integers(0, 200),
    field=st.sampled_from(sorted(HEADER_FIELDS)),
    content=st.binary(min_size=1, max_size=12),
    signed=st.booleans(),
)
@example(member=0, field="size", content=b"\x80" + b"\xff" * 11, signed=True)
@example(member=0, field="size", content=b"77777777777\x00", signed=True)
@example(member=0, field="type", content=b"x", signed=True)
@example(member=0, field="type", content=b"L", signed=True)
@example(member=0, field="type", content=b"S", signed=True)
def test_a_header_of_an_archive_may_say_anything(
    tmp_path: Path, archive: bytes, member: int, field: str, content: bytes, signed: bool
) -> None:
    starts = _headers(archive)
    start = starts[member % len(starts)]
    header = bytearray(archive[start : start + 512])
    at, length = HEADER_FIELDS[field]
    header[at : at + length] = content[:length].ljust(length, b"\0")
    if signed:
        header[148:156] = b" " * 8
        header[148:156] = b"%06o\0 " % sum(header)
    path = tmp_path / "a.tar"
    path.write_bytes(archive[:start] + bytes(header) + archive[start + 512 :])
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    with one_line():
        import_archive(root, path)
        assert open_cache(root).verify() == []


def _headers(archive: bytes) -> list[int]:
    import tarfile

    with tarfile.open(fileobj=io.BytesIO(archive)) as file:
        return [member.offset for member in file]


@FUZZED
@given(change=spoilt())
def test_an_archive_of_any_bytes_is_refused_or_right(
    tmp_path: Path, archive: bytes, change: Callable[[bytes], bytes]
) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(change(archive))
    root = Path(tempfile.mkdtemp(dir=tmp_path))
    with one_line():
        import_archive(root, path)
        assert open_cache(root).verify() == []
