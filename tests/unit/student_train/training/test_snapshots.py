"""Copies of a training's state: apart from it, in one piece, and only where there is room."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch

from student_train.training.snapshots import copied, free_to_each, has_room, size_of

MEMINFO = "MemTotal:       24000000 kB\nMemFree:         1000000 kB\nMemAvailable:    8000000 kB\n"


def state() -> dict[str, Any]:
    """Something of all that DeepSpeed puts into a checkpoint."""
    flat = torch.arange(6, dtype=torch.float32)
    weights = OrderedDict(embedding=flat[:4].view(2, 2), head=flat[:4].view(2, 2))
    weights._metadata = {"": {"version": 1}}  # type: ignore[attr-defined]
    master = torch.ones(3, requires_grad=True)
    return {"module": weights, "groups": [(master, {"step": torch.tensor(4.0)})], "version": "0.1", "none": None}


def test_a_copy_is_what_the_state_was_when_it_changes() -> None:
    live = state()
    copy = copied(live)
    with torch.no_grad():
        live["module"]["embedding"].zero_()
        live["groups"][0][0].zero_()
    live["groups"][0][1]["step"] += 1
    live["version"] = "0.2"
    before = state()
    assert torch.equal(copy["module"]["embedding"], before["module"]["embedding"])
    master, step = copy["groups"][0][0], copy["groups"][0][1]["step"]
    assert torch.equal(master, torch.ones(3)) and master.requires_grad
    assert float(step) == 4.0
    assert copy["version"] == "0.1"
    assert copy["module"]._metadata == {"": {"version": 1}}
    assert type(copy["module"]) is OrderedDict and type(copy["groups"][0]) is tuple


def test_tensors_that_share_memory_are_copied_and_counted_once() -> None:
    copy = copied(state())
    embedding, head = copy["module"]["embedding"], copy["module"]["head"]
    assert embedding.untyped_storage().data_ptr() == head.untyped_storage().data_ptr()
    # Six weights of which two names show four, three of a master copy, and a counter.
    assert size_of(state()) == 4 * (6 + 3 + 1)
    assert size_of(copy) == size_of(state())


def test_a_copy_takes_at_most_half_of_what_is_free() -> None:
    assert has_room(50, free=100)
    assert not has_room(51, free=100)
    assert not has_room(0, free=None)


@pytest.mark.parametrize(
    ("limits", "free"),
    [
        ({}, 8_192_000_000),
        ({"memory.max": "max"}, 8_192_000_000),
        ({"memory.max": "3000", "memory.current": "2500", "memory.stat": "anon 900\ninactive_file 300\n"}, 800),
        ({"memory.max": "3000", "memory.current": "3500", "memory.stat": "anon 900\n"}, 0),
    ],
)
def test_what_is_free_is_shared_by_the_processes_of_a_machine(
    limits: dict[str, str], free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "meminfo").write_text(MEMINFO)
    for name, text in limits.items():
        (tmp_path / name).write_text(text)
    for size in (1, 4):
        monkeypatch.setenv("LOCAL_SIZE", str(size))
        assert free_to_each(meminfo=tmp_path / "meminfo", cgroup=tmp_path) == free // size


def test_a_machine_that_does_not_tell_has_room_for_nothing(tmp_path: Path) -> None:
    (tmp_path / "strange").write_text("MemTotal: none\n")
    assert free_to_each(meminfo=tmp_path / "missing", cgroup=tmp_path) is None
    assert free_to_each(meminfo=tmp_path / "strange", cgroup=tmp_path) is None
