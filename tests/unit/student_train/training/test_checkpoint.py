"""Checkpoints that were torn, damaged or left by another run."""

from __future__ import annotations

import errno
import os
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from alone import ALONE, Alone

from cache.disk.failpoints import VARIABLE
from configs.errors import ConfigError, TrainingError
from student_train.job import StepMetrics
from student_train.training import shares
from student_train.training.checkpoint import KEPT, Checkpoints, CheckpointState, check_resumable, damaged
from student_train.training.shares import ShareFile
from student_train.worker_group import WorkerGroup


def checkpoint_state(step: int) -> CheckpointState:
    """A state with something in every field."""
    return CheckpointState(
        step=step,
        tokens=100 * step,
        skipped=2,
        skipped_in_a_row=1,
        world_size=2,
        zero_stage=2,
        view_digest="v" * 64,
        stage_digest="s" * 64,
        measured=(StepMetrics(0, {"dev/loss": 3.5}), StepMetrics(1, {"dev/loss": 2.25})),
        pending=(StepMetrics(step, {"train/loss": 1.25, "train/tokens": 100.0}),),
    )


def weights(folder: Path) -> list[ShareFile]:
    """Stand in for DeepSpeed's shards, and the script that it puts beside them."""
    (folder / "state").mkdir()
    (folder / "script.py").write_text("print()")
    return [ShareFile(folder / "state" / "weights.bin", lambda path: path.write_bytes(bytes(range(256)) * 64))]


@pytest.fixture(scope="module", autouse=True)
def group_of_one(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    meeting = tmp_path_factory.mktemp("group") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


@pytest.fixture
def store(tmp_path: Path) -> Checkpoints:
    return Checkpoints(tmp_path / "work", group=WorkerGroup(0, 1, torch.device("cpu")))


def save(store: Checkpoints, *steps: int) -> list[Path]:
    saved = []
    for step in steps:
        saved.append(store.save(checkpoint_state(step), take=weights))
        store.settle()
    return saved


def end_of_a_child_that_saves(step: int, *, into: Path, dies_at: str) -> int:
    """The wait status of a forked process, which costs nothing to start."""
    with warnings.catch_warnings():
        # From Python 3.12 on it warns that the threads of this process stay behind; `ALONE` needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        child = os.fork()
    if child:
        return os.waitpid(child, 0)[1]
    try:
        os.environ[VARIABLE] = dies_at
        # The threads of a process group do not live on in a forked child.
        store = Checkpoints(into, group=ALONE)
        store.save(checkpoint_state(step), take=weights)
        store.settle()
    finally:
        os._exit(1)


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_what_was_saved_comes_back(store: Checkpoints) -> None:
    (path,) = save(store, 7)
    assert store.newest() == (path, checkpoint_state(7))
    assert (path.parent / "LATEST").read_text(encoding="utf-8") == "step-000000007\n"
    assert (path / "state" / "weights.bin").is_file()


def test_without_a_save_there_is_no_checkpoint(store: Checkpoints) -> None:
    assert store.newest() is None


def test_only_the_newest_ones_stay(store: Checkpoints) -> None:
    paths = save(store, 1, 2, 9, 10)
    assert sorted(paths[0].parent.glob("step-*")) == paths[-KEPT:]
    found = store.newest()
    assert found is not None
    assert found[0] == paths[-1]


def relink(path: Path, target: str) -> None:
    path.unlink()
    path.symlink_to(target)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped bit in the weights": lambda path: flip_a_bit(path / "state" / "weights.bin"),
    "flipped bit in the state": lambda path: flip_a_bit(path / "state.json"),
    "flipped bit in the random state": lambda path: flip_a_bit(path / "random-0.json"),
    "truncated": lambda path: (path / "state" / "weights.bin").write_bytes(b"short"),
    "file gone": lambda path: (path / "state.json").unlink(),
    "manifest gone": lambda path: (path / "manifest.json").unlink(),
    "manifest cut": lambda path: (path / "manifest.json").write_text('{"format": 1, "fil', encoding="utf-8"),
    "manifest empty": lambda path: (path / "manifest.json").write_bytes(b""),
    "manifest names nothing": lambda path: (path / "manifest.json").write_text('{"format": 2, "files": {}}'),
    "manifest of another kind": lambda path: (path / "manifest.json").write_text("[]", encoding="utf-8"),
    "manifest nested too deep": lambda path: (path / "manifest.json").write_text("[" * 200_000, encoding="utf-8"),
    "manifest a link that never ends": lambda path: relink(path / "manifest.json", "/dev/zero"),
    "a pickle beside it": lambda path: (path / "state" / "more_optim_states.pt").write_bytes(b"pickle"),
    "unknown format": lambda path: (path / "manifest.json").write_text('{"format": 99}', encoding="utf-8"),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_newest_is_left_out(
    store: Checkpoints, damage: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    older, newer = save(store, 3, 4)
    damage(newer)
    assert damaged(newer) is not None
    assert store.newest() == (older, checkpoint_state(3))
    assert str(newer) in caplog.text


def test_steps_are_compared_as_numbers(store: Checkpoints) -> None:
    before, last, first = save(store, 999_999_998, 999_999_999, 1_000_000_000)
    assert not before.exists()
    (first.parent / "step-old").mkdir()
    assert store.newest() == (first, checkpoint_state(1_000_000_000))
    flip_a_bit(first / "state.json")
    assert store.newest() == (last, checkpoint_state(999_999_999))


def test_a_failed_save_leaves_the_older_one(store: Checkpoints) -> None:
    (older,) = save(store, 3)

    def full(_: Path) -> list[ShareFile]:
        raise OSError("no space left on device")

    with pytest.raises(OSError, match="no space"):
        store.save(checkpoint_state(4), take=full)
    assert store.newest() == (older, checkpoint_state(3))
    store.clean()
    assert sorted(path.name for path in older.parent.iterdir()) == ["LATEST", "step-000000003"]


def test_random_state_comes_back(store: Checkpoints) -> None:
    torch.manual_seed(5)
    (path,) = save(store, 1)
    expected = torch.rand(4)
    torch.rand(100)
    store.restore_random(path)
    assert torch.equal(torch.rand(4), expected)


def test_damaged_ones_of_later_steps_do_not_crowd_out_sound_ones(store: Checkpoints) -> None:
    *_, broken = save(store, 3, 9)
    flip_a_bit(broken / "state.json")
    kept = save(store, 4, 5)
    assert sorted(broken.parent.glob("step-*")) == kept


def test_a_disk_that_lies_costs_no_older_checkpoint(store: Checkpoints, monkeypatch: pytest.MonkeyPatch) -> None:
    older = save(store, 3, 4)
    sync = shares.sync_file

    def lie(path: Path) -> None:
        sync(path)
        if path.name == "weights.bin":
            flip_a_bit(path)

    monkeypatch.setattr("student_train.training.shares.sync_file", lie)
    with pytest.raises(
        TrainingError, match=r"step-000000005 was damaged while it was written \(state/weights.bin does"
    ):
        save(store, 5)
    assert store.newest() == (older[-1], checkpoint_state(4))
    assert all(damaged(path) is None for path in older)
    assert (older[0].parent / "LATEST").read_text(encoding="utf-8") == "step-000000004\n"


def test_training_goes_on_while_a_checkpoint_is_written(store: Checkpoints) -> None:
    (older,) = save(store, 3)
    go_on = threading.Event()

    def slow(folder: Path) -> list[ShareFile]:
        return [ShareFile(folder / "weights", lambda path: go_on.wait() and path.write_bytes(b"4"))]

    path = store.save(checkpoint_state(4), take=slow)
    assert store.committing
    assert store.newest() == (older, checkpoint_state(3))
    go_on.set()
    store.settle()
    assert not store.committing
    assert store.newest() == (path, checkpoint_state(4))


def test_no_two_checkpoints_are_on_their_way_at_once(store: Checkpoints) -> None:
    found: list[int] = []

    def look(folder: Path) -> list[ShareFile]:
        newest = store.newest()
        found.append(0 if newest is None else newest[1].step)
        assert len(list(folder.parent.glob(".staging-*"))) == 1
        return weights(folder)

    for step in (1, 2, 3):
        store.save(checkpoint_state(step), take=look)
    assert found == [0, 1, 2]
    store.settle()


def test_a_disk_that_is_full_is_told_where_training_hears_it(store: Checkpoints) -> None:
    (older,) = save(store, 3)

    def full(_: Path) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    for hears in (store.settle, lambda: store.save(checkpoint_state(5), take=weights)):
        store.save(checkpoint_state(4), take=lambda folder: [ShareFile(folder / "weights", full)])
        while store.committing:
            time.sleep(0.001)
        assert store.failed
        with pytest.raises(OSError, match="No space left on device"):
            hears()
        assert not store.failed
        assert store.newest() == (older, checkpoint_state(3))
    save(store, 5)


class Pair(Alone):
    """One of two processes that share a directory, as far as it needs no answers of the other."""

    def from_leader(self, text: str | None) -> str | None:
        return text or Pair.last

    last: str | None = None


def test_a_checkpoint_has_its_place_when_the_shares_of_all_are_there(tmp_path: Path) -> None:
    leader, other = (Checkpoints(tmp_path, group=Pair(rank, 2, torch.device("cpu"))) for rank in range(2))
    path = leader.save(checkpoint_state(1), take=weights)
    (staging,) = tmp_path.glob(".staging-*")
    Pair.last = str(staging)
    other.save(checkpoint_state(1), take=lambda folder: [ShareFile(folder / "more", lambda path: path.touch())])
    other.settle()
    leader.settle()
    assert damaged(path) is None
    assert {"random-0.json", "random-1.json", "more", "script.py"} < {file.name for file in path.iterdir()}
    assert not list(path.glob(".share*"))


def test_after_an_error_nobody_waits_for_the_shares_of_others(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, group=Pair(0, 2, torch.device("cpu")))
    path = store.save(checkpoint_state(1), take=weights)
    store.abandon()
    assert not store.committing and not path.exists()


class OtherFailed(Pair):
    """A process whose peer has failed."""

    def total(self, values: torch.Tensor) -> torch.Tensor:
        return values + torch.tensor([1.0, 0.0])

    def from_all(self, text: str | None) -> list[str | None]:
        return [text, "[Errno 28] No space left on device"]


def test_what_another_process_failed_of_is_told_by_all(tmp_path: Path) -> None:
    store = Checkpoints(tmp_path, group=OtherFailed(0, 2, torch.device("cpu")))
    store.save(checkpoint_state(1), take=weights)
    with pytest.raises(
        TrainingError, match=r"worker 1 could not write its share of a checkpoint: \[Errno 28\] No space"
    ):
        store.settle()
    assert not store.committing


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("checkpoint-before-share", 1),
        ("checkpoint-after-share", 1),
        ("checkpoint-before-manifest", 1),
        ("checkpoint-before-rename", 1),
        ("checkpoint-before-latest", 2),
        ("checkpoint-before-drop", 2),
    ],
)
def test_killed_in_the_middle_of_a_commit(store: Checkpoints, tmp_path: Path, name: str, found: int) -> None:
    save(store, 1)
    assert os.WTERMSIG(end_of_a_child_that_saves(2, into=tmp_path / "work", dies_at=name)) == signal.SIGKILL
    newest = store.newest()
    assert newest is not None
    assert newest[1].step == found
    store.clean()
    assert not list((tmp_path / "work").glob(".staging-*"))
    assert store.newest() == newest


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"view_digest": "w" * 64}, "was trained on view wwwwwwwwwwww, this run reads vvvvvvvvvvvv"),
        ({"stage_digest": "t" * 64}, "belongs to stage tttttttttttt, this is ssssssssssss"),
    ],
)
def test_another_runs_checkpoint_is_refused(change: dict[str, object], message: str) -> None:
    state = replace(checkpoint_state(3), **change)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=message):
        check_resumable(state, path=Path("work/step-000000003"), view_digest="v" * 64, stage_digest="s" * 64)
