"""Stores that cannot work are said at the start; stores that are down or slow stand in nobody's way."""

from __future__ import annotations

import errno
import json
import logging
import socket
import sqlite3
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import ConfigError
from orchestration.tracking import delivery
from orchestration.tracking import tracker as tracking
from orchestration.tracking.delivery import Action, Delivery, RefusedError, UndeliveredError
from orchestration.tracking.store import sqlite_uri
from orchestration.tracking.tracker import Point, Tracker


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "uri",
    [
        "./mlruns",
        "file:///tmp/mlruns",
        "foo://somewhere",
        "postgresql+no_such_driver://127.0.0.1:9/x",
        "sqlite:///{place}/garbage.db",
        "sqlite:///{place}/garbage.db/mlflow.db",
        "http://127.0.0.1:999999",
    ],
)
def test_a_store_that_can_never_work_is_said_at_the_start(uri: str, tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"this is no database " * 100)
    tracker = Tracker(tmp_path, uri=uri.format(place=tmp_path))
    with pytest.raises(ConfigError, match=r"^runtime\.tracking_uri=.* cannot be used \(.+\): name an MLflow server"):
        tracker.require_usable(at_most_s=60)


def test_a_store_that_is_down_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tracker(tmp_path, uri="http://127.0.0.1:9").require_usable(at_most_s=60)
    assert [record.levelname for record in caplog.records if record.name == tracking.__name__] == ["WARNING"]


def test_a_store_that_is_silent_holds_nobody_up(
    silent_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_S", 0.1)
    tracker = Tracker(tmp_path, uri=f"http://127.0.0.1:{silent_port}")
    tracker.require_usable(at_most_s=0.1)
    assert "no answer within" in caplog.text
    tracker.start("tiny", params={"seed": 1}, tags={})
    tracker.log("pipeline", [Point("train/loss", 1.0, 1)])
    tracker.finish("pipeline")
    # Nothing above asked the store, which would still be silent 20 s later: all of it is kept.
    tracker.close()
    kept = [json.loads(line)["do"] for line in (tmp_path / "mlflow-spool.jsonl").read_text().splitlines()]
    assert kept == ["start", "log", "finish"]


@pytest.mark.parametrize("name", ["100%25 #", "a%3Fb?c"])
def test_the_default_store_lies_in_the_run_root_whatever_its_name(name: str, tmp_path: Path) -> None:
    root = tmp_path / name
    run_dir = root / "tiny"
    run_dir.mkdir(parents=True)
    report = run_dir / "report.md"
    report.write_text("# done")
    tracker = Tracker(run_dir, uri=sqlite_uri(root / "mlflow.db"))
    tracker.start("tiny", params={}, tags={})
    tracker.artifact("pipeline", report)
    tracker.close()
    assert not (run_dir / "mlflow-spool.jsonl").exists()
    with sqlite3.connect(f"file:{sqlite3_path(root / 'mlflow.db')}?mode=ro", uri=True) as database:
        assert database.execute("select name from runs").fetchall() == [("tiny",)]
    assert [path.read_text() for path in (root / "mlartifacts").rglob("report.md")] == ["# done"]
    assert [path.name for path in tmp_path.iterdir()] == [name]


def sqlite3_path(path: Path) -> str:
    return str(path).replace("%", "%25").replace("?", "%3f").replace("#", "%23")


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


def test_a_damaged_list_of_runs_begins_new_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow-runs.json").write_text('{"pipeline": "12')
    Tracker(tmp_path, uri=sqlite_uri(tmp_path / "mlflow.db"))
    assert "new runs are begun" in caplog.text
