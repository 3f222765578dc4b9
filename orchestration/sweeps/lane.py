"""A lane: a process that runs the trials of a sweep one after the other, in a worker group that stays warm.

A process of its own, so that a trial that takes everything down with it (memory, a crash in native code) costs itself
alone, and so that several run side by side without sharing a terminal, a log or a signal handler. This is the sweep's
end of it; what the process does stands in `lane_process`.
"""

from __future__ import annotations

import json
import logging
import signal
import subprocess
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from orchestration.outputs.fields import from_fields
from orchestration.own_packages import own_command
from orchestration.sweeps.trials import Outcome

logger = logging.getLogger(__name__)

STOP_GRACE_S = 90.0
"""How long a lane that is stopped may take: its workers write a checkpoint first."""


@dataclass(frozen=True, slots=True)
class LaneJob:
    """An experiment for a lane: its configuration as JSON, and how far it goes (`experiment.Until`).

    `parent` is the MLflow run that the experiment's own stands below; "" for none.
    """

    config: str
    config_dir: str
    until: str
    parent: str


class Lane:
    """The process, seen from the sweep. It is started with the first job, and anew after it died."""

    def __init__(self, log_file: Path) -> None:
        self._log_file = log_file
        self._process: subprocess.Popen[bytes] | None = None
        self._answer: Outcome | None = None
        self._waiting: threading.Thread | None = None

    @property
    def busy(self) -> bool:
        """Whether a job is under way whose answer was not taken yet."""
        return self._waiting is not None

    def begin(self, job: LaneJob) -> None:
        """Hand over a job."""
        assert not self.busy
        if self._process is None or self._process.poll() is not None:
            self._log_file.parent.mkdir(parents=True, exist_ok=True)
            self._process = subprocess.Popen(
                [*own_command("orchestration.sweeps.lane_process"), str(self._log_file.absolute())],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                start_new_session=True,  # the sweep itself tells it when to stop
            )
        self._answer = None
        self._waiting = threading.Thread(target=self._ask, args=(self._process, job), daemon=True)
        self._waiting.start()

    def answer(self) -> Outcome | None:
        """What came of the job, once; None while it is under way."""
        assert self._waiting is not None
        if self._waiting.is_alive():
            return None
        self._waiting = None
        assert self._answer is not None
        return self._answer

    def close(self) -> None:
        """End the process: at once where it is idle, else as Ctrl-C does."""
        process = self._process
        if process is None or process.poll() is not None:
            return
        if self.busy:
            process.send_signal(signal.SIGINT)
        assert process.stdin is not None
        process.stdin.close()
        try:
            process.wait(STOP_GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()

    def _ask(self, process: subprocess.Popen[bytes], job: LaneJob) -> None:
        assert process.stdin is not None and process.stdout is not None
        began, line = time.monotonic(), b""
        try:
            process.stdin.write(json.dumps(asdict(job)).encode() + b"\n")
            process.stdin.flush()
            line = process.stdout.readline()
        except OSError:
            pass  # it died: that there is no line says so
        if line.endswith(b"\n"):
            self._answer = from_fields(Outcome, json.loads(line))
            return
        code = process.wait()
        how = f"by {signal.Signals(-code).name}" if code < 0 else f"with code {code}"
        reason = f"its process ended {how}; see {self._log_file}"
        self._answer = Outcome.failed(reason, seconds=time.monotonic() - began)
