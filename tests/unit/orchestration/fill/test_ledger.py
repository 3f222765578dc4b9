"""What an experiment has spent is known whatever was interrupted, and its limits hold over all its starts."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import CacheError
from orchestration.fill import ledger as ledger_module
from orchestration.fill.ledger import COUNTS_BYTES, Counts, Ledger, Meter, read_counts

KILLED = """
import os, signal, sys
from pathlib import Path
from orchestration.fill.ledger import Counts, Meter
meter = Meter(Path(sys.argv[1]))
for tokens in range(1, 101):
    meter.add(Counts(fill=tokens))
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_has_counted_everything(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path)], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert read_counts(tmp_path) == Counts(fill=5050)


def test_every_writer_has_a_file_and_all_of_them_count(tmp_path: Path) -> None:
    meters = [Meter(tmp_path) for _ in range(3)]
    for number, meter in enumerate(meters):
        meter.add(Counts(fill=10**number, rollout=1, evaluation=number))
        meter.add(Counts(fill=10**number, gpu_seconds=0.5))
    assert read_counts(tmp_path) == Counts(fill=222, rollout=3, evaluation=3, gpu_seconds=1.5)
    assert [path.stat().st_size for path in tmp_path.iterdir()] == [COUNTS_BYTES] * 3


def test_a_meter_that_was_closed_counts_on_in_another_file(tmp_path: Path) -> None:
    meter = Meter(tmp_path)
    meter.add(Counts(fill=3))
    meter.close()
    meter.add(Counts(fill=4))
    assert read_counts(tmp_path).fill == 7


def test_who_spends_nothing_leaves_nothing(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    assert ledger.counts() == Counts()
    ledger.close()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b'{"fill": -1}', b'{"fill": 1.5}', b'{"gpu_seconds": Infinity}', b'{"fill": true}', b"x" * 9999],
)
def test_a_damaged_file_is_named_and_left_out(content: bytes, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Meter(tmp_path).add(Counts(fill=5))
    (tmp_path / "broken.json").write_bytes(content)
    assert read_counts(tmp_path) == Counts(fill=5)
    assert "broken.json does not count" in caplog.text


def test_what_is_no_file_is_left_out(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "folder.json").mkdir()
    assert read_counts(tmp_path) == Counts()


def test_a_disk_that_refuses_is_named(tmp_path: Path) -> None:
    (tmp_path / "ledger").touch()
    with pytest.raises(CacheError, match=r"ledger: what was spent cannot be written down .*free space"):
        Meter(tmp_path / "ledger").add(Counts(fill=1))


def test_the_tokens_of_an_earlier_release_count(tmp_path: Path) -> None:
    (tmp_path / "teacher-tokens.json").write_text(json.dumps({"fill": 7, "rollout": 2, "evaluation": 1}))
    Ledger.open(tmp_path).add(fill=1)
    again = Ledger.open(tmp_path)
    assert again.counts() == Counts(fill=8, rollout=2, evaluation=1)
    assert again.metrics()["teacher/forward_tokens"] == 11.0


def test_gpu_time_is_that_of_all_engines_over_all_starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    first = Ledger.open(tmp_path)
    teachers_down, students_down = first.engines_up(8.0), first.engines_up(0.5)
    now[0] += 10.0
    teachers_down()
    now[0] += 4.0
    students_down()
    now[0] += 1000.0
    assert first.counts().gpu_seconds == pytest.approx(8 * 10 + 0.5 * 14)
    # Without a close, as after a kill.
    second = Ledger.open(tmp_path)
    second.engines_up(2.0)
    now[0] += 3.0
    assert second.counts().gpu_seconds == pytest.approx(87 + 6)


def test_gpu_time_is_written_down_while_engines_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger_module, "TICK_S", 0.01)
    ledger = Ledger.open(tmp_path)
    ledger.engines_up(4.0)
    deadline = time.monotonic() + 60
    while read_counts(ledger.directory).gpu_seconds == 0.0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    ledger.close()


def test_counts_name_their_schema_and_those_that_name_none_are_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    Meter(tmp_path).add(Counts(fill=1, gpu_seconds=0.5))
    (path,) = tmp_path.iterdir()
    assert json.loads(path.read_text()) == {
        "schema": "stillroom/ledger/1", "fill": 1, "rollout": 0, "evaluation": 0, "gpu_seconds": 0.5,
        "teacher_gpu_seconds": 0.0, "training_gpu_seconds": 0.0, "paid": 0.0, "joules": 0.0,
    }  # fmt: skip
    former = '{"fill": 300, "rollout": 20, "evaluation": 7, "gpu_seconds": 12.25}'
    (tmp_path / "former.json").write_text(former.ljust(COUNTS_BYTES - 1) + "\n")
    (tmp_path / "later.json").write_text('{"schema": "stillroom/ledger/2", "fill": 1000}')
    assert read_counts(tmp_path) == Counts(fill=301, rollout=20, evaluation=7, gpu_seconds=12.75)
    assert "later.json does not count towards the budgets: it was written by another version" in caplog.text


def test_the_largest_counts_fit_a_file(tmp_path: Path) -> None:
    most = 10**18
    Meter(tmp_path).add(Counts(most, most, most, *[1234567890.1234567] * 5))
    (path,) = tmp_path.iterdir()
    assert path.stat().st_size == COUNTS_BYTES


def test_energy_is_counted_once_and_over_all_starts(tmp_path: Path) -> None:
    for _ in range(2):
        ledger = Ledger.open(tmp_path)
        # What is told is how much it is since this start, not how much more.
        for joules in (10.0, 25.0, 25.0, math.nan, 40.0):
            ledger.took(joules)
        ledger.close()
    assert read_counts(tmp_path / "ledger").joules == 80.0
