"""Stores that cannot work are said at the start; stores that are down or slow stand in nobody's way."""

from __future__ import annotations

import errno
import logging
import threading
from pathlib import Path

import pytest

from orchestration.tracking import delivery
from orchestration.tracking.delivery import Action, Delivery, RefusedError, UndeliveredError


class Service:
    """Takes actions as told: each answer is an error to raise, or None."""

    def __init__(self) -> None:
        self.answers: list[Exception | None] = []
        self.taken: list[object] = []

    def __call__(self, action: Action) -> None:
        answer = self.answers.pop(0) if self.answers else None
        if answer is not None:
            raise answer
        self.taken.append(action["run"])


def delivered_by(service: Service, spool: Path) -> Delivery:
    return Delivery(service, spool=spool, service="MLflow")


def test_order_survives_failures_and_processes(tmp_path: Path) -> None:
    service, spool = Service(), tmp_path / "spool.jsonl"
    service.answers = [None, UndeliveredError("down"), UndeliveredError("down")]
    first = delivered_by(service, spool)
    for run in ("a", "b", "c"):
        first.put({"do": "log", "run": run})
    first.close(at_most_s=30)
    assert service.taken == ["a"]
    second = delivered_by(service, spool)
    second.put({"do": "log", "run": "d"})
    service.answers = []
    assert second.drain(at_most_s=30)
    assert service.taken == ["a", "b", "c", "d"]
    assert not spool.exists()


def test_a_failed_attempt_is_repeated_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery, "FIRST_PAUSE_S", 0.01)
    service, arrived = Service(), threading.Event()
    service.answers = [UndeliveredError("down"), UndeliveredError("down")]

    def send(action: Action) -> None:
        service(action)
        arrived.set()

    Delivery(send, spool=tmp_path / "spool.jsonl", service="MLflow").put({"do": "log", "run": "a"})
    assert arrived.wait(30)
    assert service.taken == ["a"]


def test_what_is_refused_or_a_defect_does_not_hold_up_the_rest(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service()
    service.answers = [RefusedError("never"), RuntimeError("a defect"), None]
    delivering = delivered_by(service, tmp_path / "spool.jsonl")
    for run in ("a", "b", "c"):
        delivering.put({"do": "log", "run": run})
    assert delivering.drain(at_most_s=30)
    assert service.taken == ["c"]
    said = [r.getMessage() for r in caplog.records if r.name == delivery.__name__]
    assert said == ["MLflow refused log of a: never", "MLflow: log of b failed and is left out"]


def test_a_full_disk_is_said_once_and_raises_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, content: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(delivery, "replace_file", full)
    service = Service()
    service.answers = [UndeliveredError("down")] * 3
    delivering = delivered_by(service, tmp_path / "spool.jsonl")
    delivering.put({"do": "log", "run": "a"})
    delivering.drain(at_most_s=30)
    delivering.close(at_most_s=30)
    warnings = [r.getMessage() for r in caplog.records if r.levelno == logging.WARNING and "kept" in r.getMessage()]
    assert len(warnings) == 2
    assert "No space left on device" in warnings[1]


def test_a_damaged_spool_costs_its_damaged_lines(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    spool = tmp_path / "spool.jsonl"
    spool.write_bytes(b'{"do": "log", "run": "a"}\n[1]\n' + b"[" * 100_000 + b'\n{"do": "log", "ru')
    service = Service()
    delivering = delivered_by(service, spool)
    delivering.put({"do": "log", "run": "b"})
    assert delivering.drain(at_most_s=30)
    assert service.taken == ["a", "b"]
    assert "3 of 4 lines cannot be read" in caplog.text
