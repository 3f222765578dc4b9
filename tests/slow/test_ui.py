"""The MLflow UI as a real process: what its owner gets, and what another user of the machine does not."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from orchestration.tracking.store import sqlite_uri
from orchestration.tracking.tracker import Tracker

pytestmark = pytest.mark.slow
ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, slots=True)
class Ui:
    """A running UI: its address, the token, and the run whose report it shows."""

    address: str
    token: str
    root: Path
    run: str

    def ask(self, path: str, *, known: bool = True, host: str | None = None, body: object = None) -> tuple[int, str]:
        headers = {"Content-Type": "application/json"}
        headers |= {"Authorization": f"Bearer {self.token}"} if known else {}
        headers |= {"Host": host} if host else {}
        data = None if body is None else json.dumps(body).encode()
        try:
            request = urllib.request.Request(self.address + path, data=data, headers=headers)
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.code, error.read().decode()


@pytest.fixture(scope="module")
def ui() -> Iterator[Ui]:
    place = tempfile.mkdtemp(prefix="ui-")
    # The way to the file is open to everybody, so that its own mode is what keeps the token.
    os.chmod(place, 0o755)
    root = Path(place) / "runs"
    run_dir = root / "tiny"
    run_dir.mkdir(parents=True)
    (run_dir / "report.md").write_text("# done")
    tracker = Tracker(run_dir, uri=sqlite_uri(root / "mlflow.db"))
    tracker.start("tiny", params={}, tags={})
    tracker.artifact("pipeline", run_dir / "report.md")
    tracker.close()
    run = json.loads((run_dir / "mlflow-runs.json").read_text())["pipeline"]
    command = [sys.executable, "-m", "orchestration", "ui", "--config", "configs/tiny.yaml", "--port", "0"]
    command += ["--set", f"runtime.run_root={root}"]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        printed = process.stdout.readline().split()[2]
        address, _, token = printed.partition("#")[0].partition("/?token=")
        try:
            found = Ui(address, token, root, run)
            _wait_for(found)
            yield found
        finally:
            process.terminate()
            process.wait(timeout=60)
            shutil.rmtree(place)


def _wait_for(ui: Ui) -> None:
    # The port is bound before MLflow is imported; requests wait in it.
    for _ in range(60):
        try:
            if ui.ask("/version")[0] == 200:
                return
        except OSError:
            time.sleep(1)
    raise AssertionError("the UI did not answer within a minute")


def test_its_owner_sees_the_page_the_runs_and_the_report(ui: Ui) -> None:
    assert "<html" in ui.ask("/")[1].lower()
    status, text = ui.ask("/ajax-api/2.0/mlflow/runs/search", body={"experiment_ids": ["1"]})
    assert status == 200
    assert [run["info"]["run_name"] for run in json.loads(text)["runs"]] == ["tiny"]
    assert ui.ask(f"/get-artifact?run_uuid={ui.run}&path=report.md") == (200, "# done")
    browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    with browser.open(f"{ui.address}/?token={ui.token}", timeout=30) as page:
        assert page.status == 200
        assert ui.token not in page.url
    with browser.open(f"{ui.address}/ajax-api/2.0/mlflow/runs/get?run_id={ui.run}", timeout=30) as answer:
        assert json.load(answer)["run"]["info"]["run_id"] == ui.run


def test_a_foreign_name_and_a_stranger_get_nothing(ui: Ui) -> None:
    assert ui.ask("/", host="10.evil.example")[0] == 403
    for path in ("/", "/health", "/version", f"/get-artifact?run_uuid={ui.run}&path=report.md"):
        assert ui.ask(path, known=False)[0] == 401
    status, _ = ui.ask("/ajax-api/2.0/mlflow/runs/delete", known=False, body={"run_id": ui.run})
    assert status == 401
    assert ui.ask(f"/ajax-api/2.0/mlflow/runs/get?run_id={ui.run}")[0] == 200


def test_no_file_outside_the_artifacts_of_the_runs_is_read_or_written(ui: Ui, tmp_path: Path) -> None:
    (tmp_path / "key").write_text("secret")
    body = {"name": "planted", "artifact_location": tmp_path.as_uri()}
    status, text = ui.ask("/ajax-api/2.0/mlflow/experiments/create", body=body)
    experiment = json.loads(text).get("experiment_id") if status == 200 else None
    if experiment is not None:
        _, text = ui.ask("/ajax-api/2.0/mlflow/runs/create", body={"experiment_id": experiment})
        made = json.loads(text)["run"]["info"]
        parts = made["run_id"]
        (tmp_path / parts / "artifacts").mkdir(parents=True, exist_ok=True)
        (tmp_path / parts / "artifacts" / "key").write_text("secret")
        status, text = ui.ask(f"/get-artifact?run_uuid={parts}&path=key")
        assert status >= 400 and text != "secret"
        status, _ = ui.ask(f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={parts}&path=planted", body="x")
        assert status >= 400
        assert not (tmp_path / parts / "artifacts" / "planted").exists()
    (link,) = [ui.root / "mlartifacts" / ui.run / "artifacts" / "link"]
    link.symlink_to(tmp_path / "key")
    try:
        status, text = ui.ask(f"/get-artifact?run_uuid={ui.run}&path=link")
        assert status >= 400 and text != "secret"
    finally:
        link.unlink()


ATTACK = """
import encodings.idna, os, sys, urllib.request, urllib.error
# Only now: the interpreter may lie where the other user cannot read.
os.setgid(65534); os.setuid(65534)
address, token_file = sys.argv[1:]
def status(path, data=None, **headers):
    try:
        return urllib.request.urlopen(urllib.request.Request(address + path, data=data, headers=headers)).status
    except urllib.error.HTTPError as error:
        return error.code
print(status("/"), status("/ajax-api/2.0/mlflow/experiments/create", b"{}"), status("/?token=guess"), flush=True)
try:
    print(open(token_file).read())
except PermissionError:
    print("no token", flush=True)
for each in filter(str.isdigit, os.listdir("/proc")):
    try:
        with open(f"/proc/{each}/cmdline", "rb") as stream:
            arguments = stream.read()
    except OSError:
        continue
    if b"orchestration" in arguments:
        sys.stdout.buffer.write(arguments)
"""


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_another_user_of_the_machine_gets_nothing(ui: Ui) -> None:
    command = [sys.executable, "-c", ATTACK, ui.address, str(ui.root / "ui-token")]
    done = subprocess.run(command, capture_output=True, timeout=60, cwd="/")
    assert done.returncode == 0, done.stderr.decode()
    answers, token, arguments = done.stdout.split(b"\n", 2)
    assert answers == b"401 401 401"
    assert token == b"no token"
    assert b"orchestration.tracking.server" in arguments
    assert ui.token.encode() not in arguments and b"sqlite:" not in arguments
