"""Disks that are full or cannot be written: real ones, small file systems in a mount namespace of a child process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from signal_builders import CLASSES, ask, assert_same_signal, respond
from store_builders import (
    OTHER_TEACHER,
    TEACHER,
    VOCAB,
    answer,
    assert_same_text,
    make_request,
    open_cache,
    teacher_dir,
)

from cache.claims import Claims
from cache.disk.local_storage import LocalStorage
from cache.keys import generation_key
from cache.records import GenerateRequest, TeacherRecord
from cache.store import TeacherCache
from cache.writer import SegmentWriter
from configs.errors import CacheError, ConfigError

ROOT = Path(__file__).parents[3]
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")
NOBODY = 65534


def requests(first: int, count: int, *, limit: int = 8) -> list[GenerateRequest]:
    return [make_request([3, 4 + number // 40, 5 + number % 40], limit=limit) for number in range(first, first + count)]


def in_child(body: str, place: Path, *, mount: str = "") -> str:
    """Run a function of this module, by name, in a process of its own; the answer is what it printed.

    `mount` is a shell command that a mount namespace of the child runs first, in which `$1` is the place.
    """
    if mount and not _may_mount():
        pytest.skip("the kernel lets this user mount nothing, not even in a namespace of its own")
    call = f"import test_broken_disks; from pathlib import Path; test_broken_disks.{body}(Path({str(place)!r}))"
    command = [sys.executable, "-c", call]
    if mount:
        command = [*NAMESPACE, "sh", "-ec", f'{mount}; shift; exec "$@"', "sh", str(place), *command]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests" / "support"), str(Path(__file__).parent)])
    done = subprocess.run(
        command,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def _may_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = [*NAMESPACE, "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


def assert_there(cache: TeacherCache, wanted: list[GenerateRequest]) -> None:
    records = cache.get_many([answer(request)[0].key for request in wanted])
    for found, request in zip(records, wanted, strict=True):
        assert_same_text(found, answer(request)[0])


def assert_signals_survive(root: Path, *, reason: str, make_room: Callable[[], None]) -> None:
    """The same for signals of 500 values."""
    cache, kept = open_cache(root), 0
    records = [respond(ask([3, 4 + at // 40, 5 + at % 40], CLASSES), width=500) for at in range(4000)]
    with cache.signals.writer() as writer:
        while True:
            for record in records[kept : kept + 4]:
                writer.add(record)
            try:
                writer.commit()
            except CacheError as error:
                assert reason in str(error) and "free space or repair the disk and run again" in str(error)
                break
            kept += 4
        assert kept > 0 and writer.pending_rows == 4
        for window in (cache, open_cache(root)):
            window.refresh()
            found = window.signals.get_many([record.key for record in records[: kept + 4]])
            assert [record is None for record in found] == [False] * kept + [True] * 4
            assert window.verify() == []
        make_room()
        assert writer.commit() is not None
    wrote = records[: kept + 4]
    for found, record in zip(open_cache(root).signals.get_many([r.key for r in wrote]), wrote, strict=True):
        assert_same_signal(found, record)
    assert list((teacher_dir(root) / "staging").iterdir()) == []


def assert_survives(root: Path, *, reason: str, make_room: Callable[[], None]) -> None:
    """Commit until the disk refuses, then once more when there is room."""
    cache = open_cache(root)
    kept: list[GenerateRequest] = []
    with cache.writer(vocab=VOCAB) as writer:
        while True:
            batch = requests(len(kept), 4)
            for request in batch:
                add(writer, answer(request))
            try:
                writer.commit()
            except CacheError as error:
                assert reason in str(error) and "free space or repair the disk and run again" in str(error)
                break
            kept += batch
            assert len(kept) < 4000, "the disk never refused"
        assert writer.pending_rows == 4
        assert reason in refusal(writer)
        assert writer.pending_rows == 4, "what could not be committed waits"
        for window in (cache, open_cache(root)):
            window.refresh()
            assert_there(window, kept)
            assert window.lookup(batch) == [None] * 4
            assert window.verify() == []
        make_room()
        report = writer.commit()
        assert report is not None and report.rows == 4
    fresh = open_cache(root)
    assert_there(fresh, kept + batch)
    assert fresh.verify() == []
    assert list((teacher_dir(root) / "staging").iterdir()) == [], "what did not count was taken away"
    sys.stdout.write(f"kept {len(kept)}\n")


def add(writer: SegmentWriter, item: tuple[TeacherRecord, GenerateRequest]) -> None:
    record, request = item
    name = generation_key(TEACHER.digest(), request)
    writer.add(record, generation_key=name, max_new_tokens=request.max_new_tokens)


def refusal(writer: SegmentWriter) -> str:
    with pytest.raises(CacheError) as refused:
        writer.commit()
    return str(refused.value)


def fill_a_small_disk(place: Path) -> None:
    """In the child: the disk holds little, and a part of it is taken by a file that goes later."""
    ballast = place / "ballast"
    ballast.write_bytes(b"\1" * 300_000)
    assert_survives(place / "cache", reason="No space left on device", make_room=ballast.unlink)


def fill_a_small_disk_with_signals(place: Path) -> None:
    """In the child: the same with rows of another kind."""
    ballast = place / "ballast"
    ballast.write_bytes(b"\1" * 300_000)
    assert_signals_survive(place / "cache", reason="No space left on device", make_room=ballast.unlink)


def fill_up_to_a_limit(place: Path) -> None:
    """In the child: no file may be larger than this, which the kernel refuses as it refuses a full disk."""
    import resource
    import signal

    cache = open_cache(place)
    cache.put([answer(request) for request in requests(0, 4)], vocab=VOCAB)
    largest = max(path.stat().st_size for path in place.rglob("*") if path.is_file())
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (largest, unlimited[1]))
    big = [answer(request, length=60) for request in requests(4, 20, limit=60)]
    with cache.writer(vocab=VOCAB) as writer:
        for item in big:
            add(writer, item)
        assert "File too large" in refusal(writer)
        assert writer.pending_rows == 20
        assert_there(open_cache(place), requests(0, 4))
        assert open_cache(place).verify() == []
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        writer.commit()
    assert open_cache(place).stats().records == 24
    assert open_cache(place).verify() == []


def use_a_read_only_cache(place: Path) -> None:
    """In the child: everything can be read, and whatever writes says why it cannot."""
    root = place / "cache"
    cache = TeacherCache.open(root, TEACHER, create=False)
    assert_there(cache, requests(0, 4))
    assert cache.missing(requests(0, 6), k=8).generate == (4, 5)
    assert cache.verify() == []
    keys = [answer(request)[0].key for request in requests(0, 4)]
    refusals = {
        "nothing can be written": lambda: cache.put([answer(requests(4, 1)[0])], vocab=VOCAB),
        "cannot be pinned": lambda: cache.view(keys, dataset="train", k=8),
        "claims: cannot be used": lambda: claim(root),
    }
    for words, write in refusals.items():
        with pytest.raises(CacheError) as refused:
            write()
        assert words in str(refused.value), str(refused.value)
        assert ("Read-only file system" in str(refused.value)) or ("Permission denied" in str(refused.value))
    with pytest.raises(ConfigError, match=r"runtime\.cache_root"):
        TeacherCache.open(root, OTHER_TEACHER)
    assert_there(cache, requests(0, 4))
    sys.stdout.write("all refused\n")


def claim(root: Path) -> None:
    with Claims(LocalStorage(teacher_dir(root))).claim([b"\1" * 32], k=0):
        pass


def test_a_full_disk_loses_nothing_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    printed = in_child("fill_a_small_disk", tmp_path, mount='mount -t tmpfs -o size=1500k none "$1"')
    assert int(printed.split()[1]) > 0, "nothing fitted at all"


def test_a_full_disk_loses_no_signal(tmp_path: Path) -> None:
    in_child("fill_a_small_disk_with_signals", tmp_path, mount='mount -t tmpfs -o size=1500k none "$1"')


def test_a_disk_without_room_for_names_is_full_too(tmp_path: Path) -> None:
    """Space is left, but no file can be made any more."""
    in_child("run_out_of_names", tmp_path, mount='mount -t tmpfs -o size=64m,nr_inodes=400 none "$1"')


def run_out_of_names(place: Path) -> None:
    """In the child: names that are taken by empty files that go later."""
    ballast = [place / f"ballast-{number}" for number in range(100)]
    for path in ballast:
        path.touch()

    def make_room() -> None:
        for path in ballast:
            path.unlink()

    assert_survives(place / "cache", reason="No space left on device", make_room=make_room)


def test_a_file_that_may_not_grow_loses_nothing(tmp_path: Path) -> None:
    in_child("fill_up_to_a_limit", tmp_path)


@pytest.fixture
def written(tmp_path: Path) -> Path:
    open_cache(tmp_path / "cache").put([answer(request) for request in requests(0, 4)], vocab=VOCAB)
    return tmp_path


def test_a_read_only_disk_can_be_read(written: Path) -> None:
    bind = 'mount --bind "$1" "$1"; mount -o remount,bind,ro "$1"'
    assert in_child("use_a_read_only_cache", written, mount=bind) == "all refused\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_cache_of_another_user_can_be_read() -> None:
    """Permission bits, which do not hold root back. (The folders of `tmp_path` are closed to others.)"""
    with tempfile.TemporaryDirectory() as folder:
        open_cache(Path(folder) / "cache").put([answer(request) for request in requests(0, 4)], vocab=VOCAB)
        os.chmod(folder, 0o755)
        assert in_child("use_the_cache_of_another_user", Path(folder)) == "all refused\n"


def use_the_cache_of_another_user(place: Path) -> None:
    """In the child."""
    # What this loads has to be there: the interpreter's own folders may be closed to others.
    assert_there(open_cache(place / "cache"), requests(0, 4))
    os.setgroups([])
    os.setgid(NOBODY)
    os.setuid(NOBODY)
    use_a_read_only_cache(place)
