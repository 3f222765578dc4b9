"""codecarbon as the meter of a machine: it needs no network and leaves no files. What it says is never asserted."""

from __future__ import annotations

import math
import socket
import sys
from pathlib import Path

import pytest

from orchestration.energy.readings import NOTHING
from orchestration.energy.tracker import MachineMeter


@pytest.fixture
def offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory whose settings would send everything to a server, and no way to any server."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    settings = "[codecarbon]\nemissions_endpoint=http://127.0.0.1:9/\noutput_methods=csv,api\nsave_to_file=true\n"
    (tmp_path / ".codecarbon.config").write_text(settings)
    return tmp_path


def test_it_counts_without_a_network_and_leaves_nothing(offline: Path, capfd: pytest.CaptureFixture[str]) -> None:
    meter = MachineMeter(country="DEU")
    meter.wait()
    first = meter.read()
    second = meter.read()
    assert 0.0 <= first.joules <= second.joules < math.inf and 0.0 <= first.co2_kg <= second.co2_kg
    assert meter.source.startswith("codecarbon ") and "CPU" in meter.source and "grid of DEU" in meter.source
    meter.close()
    meter.close()
    assert [path.name for path in offline.iterdir()] == [".codecarbon.config"]
    assert meter.source == "" and meter.read() == NOTHING
    out, err = capfd.readouterr()
    assert "codecarbon" not in out + err


@pytest.mark.parametrize("broken", ["absent", "country"])
def test_a_meter_that_cannot_be_had_stops_nothing(
    broken: str, offline: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if broken == "absent":
        monkeypatch.setitem(sys.modules, "codecarbon", None)
    meter = MachineMeter(country="XXX")
    meter.wait()
    assert math.isnan(meter.read().joules) and meter.source == ""
    (line,) = [record.getMessage() for record in caplog.records if record.name.startswith("orchestration")]
    assert "energy is not measured" in line and "\n" not in line
    meter.close()
