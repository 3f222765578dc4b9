"""What an action means in MLflow, and which of its errors a repetition cures."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import (
    INTERNAL_ERROR,
    INVALID_PARAMETER_VALUE,
    PERMISSION_DENIED,
    TEMPORARILY_UNAVAILABLE,
)
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from orchestration.tracking.delivery import RefusedError, UndeliveredError
from orchestration.tracking.mlflow_calls import MlflowCalls, is_final
from orchestration.tracking.store import sqlite_uri
from orchestration.tracking.tracker import Tracker


class FakeClient:
    """Fails with what it is told to, and notes what it is asked."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.asked: list[tuple[str, str]] = []

    def set_terminated(self, run_id: str, *, status: str) -> None:
        if self.error is not None:
            raise self.error
        self.asked.append((run_id, status))


def calls(tmp_path: Path, client: FakeClient) -> MlflowCalls:
    (tmp_path / "mlflow-runs.json").write_text('{"pipeline": "0123"}')
    made = MlflowCalls(tmp_path, uri="http://127.0.0.1:9", experiment="none")
    made._client = client
    return made


FINISH = {"do": "finish", "run": "pipeline", "status": "FAILED"}


def test_a_run_is_addressed_by_what_the_store_called_it(tmp_path: Path) -> None:
    client = FakeClient()
    calls(tmp_path, client).perform(FINISH)
    assert client.asked == [("0123", "FAILED")]


def test_what_belongs_to_a_run_that_never_began_is_left_out(tmp_path: Path) -> None:
    client = FakeClient()
    calls(tmp_path, client).perform({**FINISH, "run": "kd"})
    assert client.asked == []


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (MlflowException("no such thing", INVALID_PARAMETER_VALUE), RefusedError),
        (MlflowException("later", TEMPORARILY_UNAVAILABLE), UndeliveredError),
        (MlflowException("down", INTERNAL_ERROR), UndeliveredError),
        (OperationalError("select", {}, sqlite3.OperationalError("database is locked")), UndeliveredError),
        (ConnectionRefusedError("nobody"), UndeliveredError),
        (SQLAlchemyError("broken"), UndeliveredError),
    ],
)
def test_an_error_is_either_refused_or_tried_again(error: Exception, kind: type[Exception], tmp_path: Path) -> None:
    with pytest.raises(kind):
        calls(tmp_path, FakeClient(error)).perform(FINISH)


def test_a_defect_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError):
        calls(tmp_path, FakeClient(ZeroDivisionError())).perform(FINISH)


def database_error(error: Any) -> OperationalError:
    return OperationalError("select", {}, error)


@pytest.mark.parametrize(
    ("error", "final"),
    [
        (MlflowException("wrong", INVALID_PARAMETER_VALUE), True),
        (MlflowException("who are you", PERMISSION_DENIED), True),
        (MlflowException("down", INTERNAL_ERROR), False),
        (database_error(sqlite3.DatabaseError("file is not a database")), True),
        (database_error(sqlite3.OperationalError("unable to open database file")), True),
        (database_error(sqlite3.OperationalError("attempt to write a readonly database")), True),
        (database_error(sqlite3.OperationalError("database is locked")), False),
        (ImportError("no driver"), True),
        (ArgumentError("not a URL"), True),
        (PermissionError("closed"), True),
        (TimeoutError("no answer within 5 s"), False),
        (ConnectionRefusedError("nobody"), False),
    ],
)
def test_what_will_be_no_better_in_an_hour(error: Exception, final: bool) -> None:
    assert is_final(error) is final


def test_a_damaged_list_of_runs_begins_new_ones(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "mlflow-runs.json").write_text('{"pipeline": "12')
    Tracker(tmp_path, uri=sqlite_uri(tmp_path / "mlflow.db"))
    assert "new runs are begun" in caplog.text
