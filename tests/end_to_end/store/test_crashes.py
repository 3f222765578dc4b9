from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from killed_writers import assert_resumed, kill_at_random
from store_builders import open_cache, teacher_dir
from store_kinds import KINDS, Kind
from store_process import fill

from cache.disk.failpoints import FAILPOINTS, VARIABLE

ROOT = Path(__file__).parents[3]
SUPPORT = ROOT / "tests" / "support"


def start(
    root: Path, kind: Kind, first: int, count: int, per_commit: int, *, failpoint: str = ""
) -> subprocess.Popen[str]:
    paths = os.pathsep.join([str(ROOT), str(SUPPORT)])
    return subprocess.Popen(
        [
            sys.executable,
            str(SUPPORT / "store_process.py"),
            str(root),
            *map(str, (first, count, per_commit, kind.name)),
        ],
        env={**os.environ, VARIABLE: failpoint, "PYTHONPATH": paths},
        stdout=subprocess.PIPE,
        text=True,
    )


ALL_KINDS = pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())


@ALL_KINDS
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_writer_killed_anywhere_leaves_only_whole_segments(tmp_path: Path, failpoint: str, kind: Kind) -> None:
    fill(tmp_path, kind, first=0, count=2, per_commit=2)
    reader = open_cache(tmp_path)
    process = start(tmp_path, kind, 0, 6, 2, failpoint=failpoint)
    assert process.wait() == -signal.SIGKILL
    reader.refresh()
    committed = 4 if failpoint == "segment-after-manifest" else 2
    for window in (reader, open_cache(tmp_path)):
        assert kind.missing(window, range(6)) == list(range(committed, 6))
        assert window.verify() == []
        kind.assert_right(window, range(committed))
    left = {path.name for path in (teacher_dir(tmp_path) / "staging").iterdir()}
    assert len(left) == 1
    assert fill(tmp_path, kind, first=0, count=6, per_commit=2) == 6 - committed
    kind.assert_right(open_cache(tmp_path), range(6))
    assert {path.name for path in (teacher_dir(tmp_path) / "staging").iterdir()} == left, "nobody sweeps for others"


@ALL_KINDS
def test_eight_processes_write_at_once(tmp_path: Path, kind: Kind) -> None:
    # Neighbours overlap by half, so every row is written by two of them.
    processes = [start(tmp_path, kind, 5 * number, 10, 3) for number in range(8)]
    written = [int(process.communicate()[0]) for process in processes]
    assert all(process.returncode == 0 for process in processes)
    cache = open_cache(tmp_path)
    assert kind.count(cache) == 45 <= sum(written)
    assert cache.verify() == []
    kind.assert_right(cache, range(45))
    keys = [key for key in kind.keys(cache, range(45)) if key]
    again = open_cache(tmp_path)
    one, other = (kind.view(window, keys) for window in (cache, again))
    assert one.digest == other.digest, "the same winners for everybody"
    read = again.signals.iter_batches if kind is KINDS["signals"] else again.iter_batches
    (block,) = read(one, [np.arange(45)])
    assert [key.tobytes() for key in block.keys] == keys


@ALL_KINDS
def test_every_byte_is_on_disk_before_the_manifest_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: Kind
) -> None:
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
    fill(tmp_path, kind, first=0, count=2, per_commit=2)
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


@ALL_KINDS
def test_writers_killed_at_random_moments_lose_nothing_and_leave_nothing_wrong(tmp_path: Path, kind: Kind) -> None:
    productive = kill_at_random(tmp_path / "killed", kind, kills=12, count=400, seed=1, look_every=4)
    assert productive > 0, "no writer lived long enough to write"
    assert_resumed(tmp_path / "killed", tmp_path / "undisturbed", kind, count=400)
