"""A worker's seat among the others, and what it does with one stage after the other."""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from configs import TrainingError
from orchestration.cluster import training_worker
from orchestration.cluster.training_worker import PLACED, RESULT, STOP, Place, Seat, TrainingWorker, seats
from student_train.job import TrainResult


def test_workers_of_a_node_sit_together_in_the_order_of_their_gpus() -> None:
    found = seats([Place("b", ("1",)), Place("a", ("0",)), Place("b", ("0",)), Place("a", ("3",))])
    assert [seat.rank for seat in found] == [1, 2, 0, 3]
    assert [(seat.node_rank, seat.local_rank, seat.local_size) for seat in found] == [
        (0, 1, 2), (1, 0, 2), (0, 0, 2), (1, 1, 2),
    ]  # fmt: skip
    # Everybody sees the GPUs of all on its node, and uses the one that its local number names.
    assert [seat.gpus for seat in found] == [("0", "1"), ("0", "3"), ("0", "1"), ("0", "3")]
    assert [seat.gpus[seat.local_rank] for seat in found] == ["1", "0", "0", "3"]


def test_workers_without_gpus_keep_the_order_in_which_they_started() -> None:
    found = seats([Place("a"), Place("b"), Place("a")])
    assert [(seat.rank, seat.local_rank) for seat in found] == [(0, 0), (2, 0), (1, 1)]
    assert "CUDA_VISIBLE_DEVICES" not in found[0].environment("127.0.0.1")


def test_a_seat_in_the_words_of_torch_and_deepspeed() -> None:
    assert Seat(3, 4, 1, 2, 1, ("0", "2")).environment("10.0.0.7") == {
        "RANK": "3", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "2", "NODE_RANK": "1",
        "MASTER_ADDR": "10.0.0.7", "MASTER_PORT": "0", "CUDA_VISIBLE_DEVICES": "0,2",
    }  # fmt: skip


@pytest.fixture
def logs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the logs that a worker in this process would write into; its process group is not made."""
    names: list[str] = []
    monkeypatch.setattr(training_worker, "redirect_output", lambda path: names.append(path.name))
    monkeypatch.setattr(training_worker, "join_group", lambda accelerator: None)
    return names


def train(worker: TrainingWorker, folder: Path, patch: pytest.MonkeyPatch, stage: Any) -> None:
    """Have it train a stage that does what `stage` does."""
    patch.setattr(training_worker, "train_stage", stage)
    folder.mkdir()
    job: Any = SimpleNamespace(work_dir=folder, accelerator="cpu")
    worker.train(job, log_dir=folder.parent / "logs")


def result(folder: Path) -> TrainResult:
    return TrainResult(True, folder, steps=2, tokens=7, skipped=0, selected_step=2, dev_losses=())


def test_every_stage_finds_the_process_as_the_first_did(
    logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STAYS", "as it was")
    found: list[tuple[object, ...]] = []
    threads: list[threading.Thread] = []

    def stage(job: Any, *, report: Any, should_stop: Any) -> TrainResult:
        deterministic = torch.are_deterministic_algorithms_enabled()
        here = torch.get_num_threads(), torch.get_default_dtype(), deterministic, torch.is_grad_enabled()
        found.append((*here, os.environ.get("STAYS"), os.environ.get("LEFT")))
        threads.append(threading.current_thread())
        torch.set_num_threads(3)
        torch.set_default_dtype(torch.float64)
        torch.use_deterministic_algorithms(True)
        torch.set_grad_enabled(False)
        os.environ.update({"STAYS": "changed", "LEFT": "here"})
        return result(job.work_dir)

    worker = TrainingWorker()
    try:
        for name in ("first", "second"):
            train(worker, tmp_path / name, monkeypatch, stage)
        assert worker._settings is not None
    finally:
        assert worker._settings is not None
        worker._settings.restore()
    assert found == [(1, torch.float32, False, True, "as it was", None)] * 2
    assert len(set(threads)) == 2 and not any(thread.is_alive() for thread in threads)
    assert logs == ["first-rank0.log", "second-rank0.log"]


def test_the_leader_alone_writes_what_is_written_once(
    logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    placed: list[bool] = []

    def stage(job: Any, *, report: Any, should_stop: Any) -> TrainResult:
        placed.append((job.work_dir / PLACED).exists())
        assert not should_stop()
        (job.work_dir / STOP).touch()
        assert should_stop()
        return result(job.work_dir)

    leader, other = TrainingWorker(), TrainingWorker()
    other._rank = 1
    train(leader, tmp_path / "a", monkeypatch, stage)
    train(other, tmp_path / "b", monkeypatch, stage)
    assert placed == [True, False]
    assert logs == ["a-rank0.log", "b-rank1.log"]
    written = json.loads((tmp_path / "a" / RESULT).read_text())
    assert written["output_dir"] == str(tmp_path / "a") and written["steps"] == 2
    assert not (tmp_path / "b" / RESULT).exists()


def test_what_a_stage_raises_comes_out_of_the_worker(
    logs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stage(job: Any, *, report: Any, should_stop: Any) -> TrainResult:
        raise TrainingError("no finite gradient")

    with pytest.raises(TrainingError, match="no finite gradient"):
        train(TrainingWorker(), tmp_path / "a", monkeypatch, stage)
    assert not (tmp_path / "a" / RESULT).exists()
