"""A run on a cluster of the user's: what it opens listens on the node's own address, and nowhere else; what it takes of
electricity is counted.
"""

from __future__ import annotations

import math
import os
import signal
import socket
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from listening import Watch
from outer_address import outer_address

from orchestration.comparison.report import read_results

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1200)]

ROOT = Path(__file__).parents[2]
MARK = "STILLROOM_TEST_MARK"
DAEMONS = ("raylet", "gcs_server", "dashboard", "Agent", "log_monitor", "monitor.py", "bin/ray ")
"""Parts of the command lines of the cluster's own processes, which listen where its owner lets them."""


@contextmanager
def _cluster(address: str, *, environment: dict[str, str], temporary: str) -> Iterator[str]:
    """A cluster of one node; yields where to attach."""
    with socket.socket() as free:
        free.bind((address, 0))
        port = free.getsockname()[1]
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", f"--node-ip-address={address}",
        f"--port={port}", "--num-cpus=4", "--include-dashboard=false", "--disable-usage-stats",
        f"--temp-dir={temporary}/ray", f"--object-store-memory={256 * 2**20}",
    ]  # fmt: skip
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    ) as process:
        try:
            assert process.stdout is not None
            assert any("Ray runtime started" in line for line in process.stdout)
            yield f"{address}:{port}"
        finally:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=120)
            for left in psutil.process_iter():
                try:
                    if left.environ().get(MARK) == environment[MARK]:
                        left.kill()
                except psutil.Error:
                    continue


def test_an_attached_run_listens_on_the_address_of_its_node_and_counts_its_energy(tmp_path: Path) -> None:
    address = outer_address()
    environment = os.environ | {MARK: str(tmp_path), "RAY_USAGE_STATS_ENABLED": "0"}
    names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    sets = [part for key, name in names.items() for part in ("--set", f"runtime.{key}={tmp_path / name}")]
    # Ray's sockets need a short path.
    with (
        tempfile.TemporaryDirectory(prefix="at-") as temporary,
        Watch(mark=str(tmp_path)) as watch,
        _cluster(address, environment=environment, temporary=temporary) as attach,
    ):
        done = subprocess.run(
            [
                sys.executable, "-m", "orchestration", "run", "--config", str(ROOT / "configs/tiny.yaml"),
                "--ray-address", attach, *sets,
            ],
            cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=900,
        )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    (run,) = (tmp_path / "runs").glob("tiny-*")
    cost = read_results(run).cost
    assert (
        cost is not None
        and "on 1 machine" in cost.energy_source
        and cost.energy_source in " ".join(done.stdout.split())
    )
    joules = {stage.name: stage.joules for stage in cost.stages}
    assert all(each >= 0.0 for each in joules.values()) and 0.0 < math.fsum(joules.values()) < math.inf
    assert any(name.startswith("fill") and took > 0.0 for name, took in joules.items()), joules
    ours = {each for each in watch.seen if not any(part in each.process for part in DAEMONS)}
    elsewhere = {each for each in ours if each.address not in (address, "127.0.0.1")}
    # Each process of Ray, also one that runs nothing of ours, has one port for Ray itself, which asks for the
    # cluster's token and listens wherever a node does whose address is not the loopback's.
    assert all(each.process.startswith("ray::") or "orchestration" in each.process for each in elsewhere), elsewhere
    ports = Counter({(each.pid, each.port): each.pid for each in elsewhere}.values())
    assert set(ports.values()) == {1}, elsewhere
    # The processes of a worker group meet on the cluster's interface.
    assert address in {each.address for each in ours if "TrainingWorker" in each.process}
    assert any("EngineActor" in each.process for each in ours)
