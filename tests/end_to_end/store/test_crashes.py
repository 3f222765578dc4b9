from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_writers import assert_resumed, kill_at_random
from store_builders import answer, assert_same_text, open_cache, teacher_dir
from store_process import fill, numbered_requests

from cache.disk.failpoints import FAILPOINTS, VARIABLE
from cache.records import GenerateRequest
from cache.store import TeacherCache

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"


def start(root: Path, first: int, count: int, per_commit: int, *, failpoint: str = "") -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(SUPPORT)])
    return subprocess.Popen(
        [
            sys.executable,
            str(SUPPORT / "store_process.py"),
            str(root),
            *map(str, (first, count, per_commit)),
        ],
        env={**os.environ, VARIABLE: failpoint, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


def assert_complete(cache: TeacherCache, requests: list[GenerateRequest]) -> None:
    assert cache.missing(requests, k=8).generate == ()
    keys = cache.lookup(requests, k=8)
    assert None not in keys
    for found, request in zip(cache.get_many([key for key in keys if key]), requests, strict=True):
        assert_same_text(found, answer(request)[0])


@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_writer_killed_anywhere_leaves_only_whole_segments(tmp_path: Path, failpoint: str) -> None:
    fill(tmp_path, first=0, count=2, per_commit=2)
    reader = open_cache(tmp_path)
    process = start(tmp_path, 0, 6, 2, failpoint=failpoint)
    assert process.wait() == -signal.SIGKILL
    reader.refresh()
    requests = numbered_requests(0, 6)
    committed = 4 if failpoint == "segment-after-manifest" else 2
    for window in (reader, open_cache(tmp_path)):
        assert window.missing(requests, k=8).generate == tuple(range(committed, 6))
        assert window.verify() == []
        assert_complete(window, requests[:committed])
    left = {path.name for path in (teacher_dir(tmp_path) / "staging").iterdir()}
    assert len(left) == 1
    assert fill(tmp_path, first=0, count=6, per_commit=2) == 6 - committed
    assert_complete(open_cache(tmp_path), requests)
    assert {path.name for path in (teacher_dir(tmp_path) / "staging").iterdir()} == left, "nobody sweeps for others"


def test_eight_processes_write_at_once(tmp_path: Path) -> None:
    # Neighbours overlap by half, so every record is written by two of them.
    processes = [start(tmp_path, 5 * number, 10, 3) for number in range(8)]
    written = [int(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    cache = open_cache(tmp_path)
    assert cache.stats().records == 45 <= sum(written)
    assert cache.verify() == []
    assert_complete(cache, numbered_requests(0, 45))
    keys = [key for key in cache.lookup(numbered_requests(0, 45)) if key]
    again = open_cache(tmp_path)
    views = [window.view(keys, dataset="d", k=8).digest for window in (cache, again)]
    assert views[0] == views[1], "the same winners for everybody"
    (block,) = again.iter_blocks(again.view(keys, dataset="d", k=8), [np.arange(45)])
    assert [record.key for record in block] == keys


def test_every_byte_is_on_disk_before_the_manifest_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    linked: dict[str, int] = {}
    beside: dict[str, str] = {}

    def fsync(descriptor: int) -> None:
        synced.append(os.readlink(f"/proc/self/fd/{descriptor}"))

    def link(source: Path, target: Path) -> None:
        linked[target.name] = len(synced)
        beside[target.name] = str(source)
        hard_link(source, target)

    hard_link = os.link
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "link", link)
    fill(tmp_path, first=0, count=2, per_commit=2)
    directory = teacher_dir(tmp_path)
    (manifest,) = (directory / "manifests").glob("*.json")
    before = {
        path.replace("staging/", "segments/").replace("/segment/", "/") for path in synced[: linked[manifest.name]]
    }
    segment = directory / "segments" / manifest.stem
    for path in segment.rglob("*"):
        assert str(path) in before
    assert str(segment.parent) in before
    for name in (manifest.name, f"{manifest.stem}.keys"):
        assert beside[name] in before, "under the name that it had until it was whole"
    assert str(directory / "manifests") in synced[linked[manifest.name] :]


def test_writers_killed_at_random_moments_lose_nothing_and_leave_nothing_wrong(tmp_path: Path) -> None:
    productive = kill_at_random(tmp_path / "killed", kills=12, count=400, seed=1, look_every=4)
    assert productive > 0, "no writer lived long enough to write"
    assert_resumed(tmp_path / "killed", tmp_path / "undisturbed", count=400)
