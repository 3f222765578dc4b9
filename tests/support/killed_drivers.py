"""Drivers of experiments as a user starts them, in a place of their own, that tests kill and start again.

Every process of a place bears a mark, so that tests see what a killed driver leaves behind, and leave nothing
themselves.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from cache import CacheView, TeacherCache
from orchestration.cache_tools.actions import teachers

MARK = "STILLROOM_TEST_MARK"
ROOTS = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}


@dataclass(frozen=True)
class DriverPlace:
    """A directory with the cache, the runs and the models of one experiment, started with these changes of it."""

    root: Path
    config: Path
    changes: tuple[str, ...] = ()

    def start(self, *changes: str, command: str = "run") -> subprocess.Popen[str]:
        """A driver in a session of its own, what it prints in one stream."""
        values = [f"runtime.{key}={self.root / name}" for key, name in ROOTS.items()]
        sets = [part for value in (*values, *self.changes, *changes) for part in ("--set", value)]
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration", command, "--config", str(self.config), *sets],
            cwd=self.root,
            env=os.environ | {MARK: str(self.root)},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
            preexec_fn=_interruptible,
        )

    def finish(self, *changes: str, command: str = "run") -> str:
        """Run to the end; what was printed."""
        process = self.start(*changes, command=command)
        output, _ = process.communicate(timeout=900)
        assert process.returncode == 0, output
        return output

    def stop_when(
        self, moment: Callable[[], bool], *, line: str, delay_s: float = 0.0, by: signal.Signals = signal.SIGKILL
    ) -> str:
        """Start a run and send `by` to its driver `delay_s` after it printed `line` and the moment came.

        What it printed is returned, once nothing of it is left.
        """
        process = self.start()
        printed = wait_for_line(process, line)
        wait_until(moment, process)
        time.sleep(delay_s)
        process.send_signal(by)
        printed += process.communicate(timeout=180)[0]
        assert process.returncode == (130 if by is signal.SIGINT else -by), printed
        self.wait_until_gone()
        return printed

    def cache(self) -> TeacherCache | None:
        """The cache of the one teacher that was asked; None before anything was kept of it."""
        root = self.root / "cache"
        found = teachers(root, left_out=lambda reason: None) if root.is_dir() else []
        return TeacherCache.open(root, found[0].identity, create=False) if found else None

    def views(self) -> list[CacheView]:
        """The views of the one experiment."""
        (run,) = (self.root / "runs").glob("*-*")
        return [CacheView.load(path) for path in sorted((run / "views").glob("*.npz"))]

    def take_answers(self, *, of: DriverPlace) -> None:
        """Have the same answers of the teacher in the cache; what differs afterwards comes from what is done."""
        shutil.rmtree(self.root / "cache", ignore_errors=True)
        shutil.copytree(of.root / "cache", self.root / "cache")

    def weights(self) -> dict[str, bytes]:
        """The weights of everything that was trained, by what addresses it."""
        students = (self.root / "runs/students").iterdir()
        return {student.name: (student / "model.safetensors").read_bytes() for student in students}

    def came_to(self) -> dict[str, Any]:
        """What the one experiment came to, without its times and the size of what they stand in."""
        (run,) = (self.root / "runs").glob("*-*")
        report = json.loads((run / "report.json").read_text())
        left_out = ("serving", "training", "disk_bytes")
        rows = [{k: v for k, v in row.items() if k not in left_out} for row in report["results"]["models"]]
        return {"rows": rows, "rests on": report["rests_on"]["students"], "views": report["rests_on"]["views"]}

    def processes(self, *, named: str = "") -> list[psutil.Process]:
        """What runs in this place, with `named` in its command line."""
        found = []
        for process in psutil.process_iter():
            try:
                here = process.environ().get(MARK) == str(self.root) and process.status() != psutil.STATUS_ZOMBIE
                if here and (not named or any(named in part for part in process.cmdline())):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_until_gone(self) -> None:
        """Ray's daemons share the fate of their driver; on busy cores the last notices after more than a minute."""
        deadline = time.monotonic() + 180
        while self.processes() and time.monotonic() < deadline:
            time.sleep(0.5)
        assert self.processes() == []

    def clear(self) -> None:
        """Kill whatever is left."""
        for process in self.processes():
            process.kill()


def wait_for_line(process: subprocess.Popen[str], line: str) -> str:
    """Read what a driver prints until a line holds this text; all that was read.

    It goes on printing into the pipe, which holds what a run prints.
    """
    assert process.stdout is not None
    read: list[str] = []
    for printed in process.stdout:
        read.append(printed)
        if line in printed:
            return "".join(read)
    raise AssertionError(f"ended before {line}: {''.join(read)}")


def wait_until(moment: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    """Wait until the moment has come in a run that goes on."""
    while not moment():
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.02)


def newly_asked(printed: str) -> int:
    """New answers of the teacher that a run says it asked for."""
    found = re.search(r"✓ fill .* ([\d,]+) new (?:signals|rows)", printed)
    return int(found[1].replace(",", "")) if found else 0


def newer_checkpoint(runs: Path) -> Callable[[], bool]:
    """Whether a training below `runs` has saved a checkpoint since this was made."""
    known = {path: path.stat().st_mtime_ns for path in _latest(runs)}
    return lambda: any(path.stat().st_mtime_ns > known.get(path, 0) for path in _latest(runs))


def _latest(runs: Path) -> Sequence[Path]:
    return [path for path in runs.glob("work/*/LATEST") if path.exists()]


def _interruptible() -> None:
    """As in a shell's foreground, however the tests themselves were started."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)
