"""Only the kernel proves a death: what cannot be seen is not dead."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from rewriting_builders import DIGEST, names, storage_of
from store_builders import VOCAB, answer, make_request, open_cache

from cache.disk import owners
from cache.disk.owners import UNKNOWN_START, Owner
from cache.upkeep.garbage import collect_garbage

ROOT = Path(__file__).parents[4]
NOBODY = 65534
DAY = 86_400.0


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(120)"])
    yield process
    process.kill()
    process.wait()


def owner_of(pid: int, *, heard: float = 0.0) -> Owner:
    started = owners._start_ticks(pid)
    assert started is not None
    return dataclasses.replace(Owner.here(), pid=pid, start_ticks=started, heartbeat=time.time() - heard)


def unseen(monkeypatch: pytest.MonkeyPatch, *, reason: int) -> None:
    """`/proc/<pid>` of others is hidden, or no file can be opened."""
    read = Path.read_text

    def hidden(path: Path, *arguments: Any, **named: Any) -> str:
        if path.name == "stat":
            raise OSError(reason, os.strerror(reason), str(path))
        return read(path, *arguments, **named)

    monkeypatch.setattr(Path, "read_text", hidden)


def test_the_living_live_and_the_dead_are_dead(sleeper: subprocess.Popen[bytes]) -> None:
    owner = owner_of(sleeper.pid, heard=40 * DAY)
    assert not owner.gone(silent_s=0.0)
    assert dataclasses.replace(owner, start_ticks=owner.start_ticks + 1).gone(silent_s=DAY)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)
    assert owner.gone(silent_s=1e9), "nobody looked at its end yet, and it does nothing any more"
    sleeper.wait()
    assert owner.gone(silent_s=1e9)


@pytest.mark.parametrize("reason", [errno.ENOENT, errno.EMFILE, errno.EACCES])
def test_what_cannot_be_seen_has_to_be_silent(
    sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch, reason: int
) -> None:
    owner = owner_of(sleeper.pid)
    unseen(monkeypatch, reason=reason)
    assert not owner.gone(silent_s=DAY)
    assert dataclasses.replace(owner, heartbeat=time.time() - 2 * DAY).gone(silent_s=DAY)
    sleeper.kill()
    sleeper.wait()
    assert owner.gone(silent_s=DAY), "the kernel says that there is no such process"


def test_a_process_of_another_user_lives(sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    owner = owner_of(sleeper.pid)

    def refused(pid: int, signal: int) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted")

    with monkeypatch.context() as patch:
        patch.setattr(os, "kill", refused)
        assert not owner.gone(silent_s=0.0)
        unseen(patch, reason=errno.ENOENT)
        assert not owner.gone(silent_s=DAY)


def test_a_process_that_could_not_see_its_own_start_is_not_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        unseen(patch, reason=errno.EMFILE)
        owner = Owner.here()
    assert owner.start_ticks == UNKNOWN_START
    assert not owner.gone(silent_s=DAY)


def test_a_collection_that_sees_nobody_keeps_the_work_of_the_living(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writer = open_cache(tmp_path).writer(vocab=VOCAB)
    writer.add(answer(make_request([3, 4, 5]))[0])
    unseen(monkeypatch, reason=errno.ENOENT)
    assert collect_garbage(storage_of(tmp_path), identity=DIGEST, dry_run=False, grace_s=0.0).removed == ()
    assert len(names(tmp_path, "staging")) == 1
    assert writer.commit() is not None


COLLECT = """
import os, sys
from cache.disk.owners import Owner
os.setgroups([]); os.setgid({nobody}); os.setuid({nobody})
owner = Owner.from_json(sys.argv[1].encode())
assert not os.path.exists(f"/proc/{{owner.pid}}"), "the processes of others are not hidden"
print(owner.gone(silent_s=86400.0))
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_under_hidepid_a_writer_of_another_user_lives(sleeper: subprocess.Popen[bytes]) -> None:
    mounted = "mount -t proc -o hidepid=2 proc /proc"
    command = ["unshare", "--mount", "sh", "-ec", f'{mounted}; exec "$@"', "sh", sys.executable, "-c"]
    body = COLLECT.format(nobody=NOBODY)
    done = subprocess.run(
        [*command, body, owner_of(sleeper.pid).to_json().decode()],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if "mount" in done.stderr and done.returncode:
        pytest.skip("the kernel lets this user mount no /proc")
    assert (done.returncode, done.stdout.strip()) == (0, "False"), done.stderr


ODD: list[Callable[[dict[str, Any]], Any]] = [
    lambda fields: fields | {"pid": "x"},
    lambda fields: fields | {"pid": 0},
    lambda fields: fields | {"pid": -1},
    lambda fields: fields | {"pid": 10**400},
    lambda fields: fields | {"pid": True},
    lambda fields: fields | {"start_ticks": 1.5},
    lambda fields: fields | {"heartbeat": "now"},
    lambda fields: fields | {"heartbeat": float("nan")},
    lambda fields: fields | {"host": ["x"]},
    lambda fields: fields | {"check": "x"},
    lambda fields: fields | {"more": 1},
    lambda fields: list(fields),
    lambda fields: None,
]


@pytest.mark.parametrize("change", ODD)
def test_what_is_not_an_owner_is_none(change: Callable[[dict[str, Any]], Any]) -> None:
    fields = dataclasses.asdict(Owner.here())
    assert Owner.from_fields(fields) is not None
    assert Owner.from_json(json.dumps(change(fields)).encode()) is None
