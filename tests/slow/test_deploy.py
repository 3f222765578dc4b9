"""A run over two nodes as Slurm starts it: real Ray nodes (both on this machine), a real run, nothing left behind."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from outer_address import outer_address

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
SRUN = """#!/usr/bin/env bash
# Slurm's own starts one on each node; here all nodes are this one.
while [[ "$1" == --* ]]; do shift; done
running=()
for ((node = 0; node < SLURM_JOB_NUM_NODES; node++)); do
    SLURM_NODEID=$node "$@" &
    running+=($!)
done
trap 'kill -TERM "${running[@]}" 2>/dev/null' TERM
status=0
for one in "${running[@]}"; do
    while kill -0 "$one" 2>/dev/null; do wait "$one" || status=$?; done
done
exit "$status"
"""
SCONTROL = "#!/usr/bin/env bash\necho {address}\necho other-node\n"


class Job:
    """A job on two nodes, in a session of its own."""

    def __init__(self, root: Path, *arguments: str) -> None:
        tools = root / "tools"
        tools.mkdir()
        for name, text in (("srun", SRUN), ("scontrol", SCONTROL.format(address=outer_address()))):
            (tools / name).write_text(text)
            (tools / name).chmod(0o755)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        self.mark = f"stillroom-test-{port}"
        environment = os.environ | {
            "PATH": f"{tools}:{os.environ['PATH']}",
            "SLURM_SUBMIT_DIR": str(ROOT),
            "SLURM_JOB_NODELIST": "node[0-1]",
            "SLURM_JOB_NUM_NODES": "2",
            # The port is made of it.
            "SLURM_JOB_ID": str(port - 20000 if 20000 <= port < 40000 else port % 20000),
            "RAY_TMPDIR": str(root / "ray"),
            "STILLROOM_TEST": self.mark,
        }
        names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
        sets = [word for key, name in names.items() for word in ("--set", f"runtime.{key}={root / name}")]
        self.log = root / "log"
        with self.log.open("w") as out:
            self.process = subprocess.Popen(
                ["bash", str(ROOT / "deploy/slurm.sh"), "configs/tiny.yaml", *sets, *arguments],
                env=environment,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def processes(self) -> list[psutil.Process]:
        """All that still runs and was started by it."""
        found = []
        for process in psutil.process_iter():
            try:
                if process.environ().get("STILLROOM_TEST") == self.mark and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def wait_for(self, line: str) -> None:
        while line not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()[-4000:]
            time.sleep(0.2)

    def wait_until_gone(self) -> None:
        while self.processes():
            time.sleep(0.2)

    def clear(self) -> None:
        for process in self.processes():
            process.kill()


@pytest.fixture
def short_root() -> Iterator[Path]:
    """Ray's sockets lie below it, whose paths may be 107 bytes long."""
    with tempfile.TemporaryDirectory(prefix="sr-", ignore_cleanup_errors=True) as root:
        yield Path(root)


def test_a_run_over_two_nodes_ends_and_takes_ray_with_it(short_root: Path) -> None:
    job = Job(short_root)
    try:
        job.wait_for("Experiment")
        words = {process.environ().get("RAY_AUTH_TOKEN", "") for process in job.processes()} - {""}
        assert job.process.wait(1200) == 0, job.log.read_text()[-4000:]
        job.wait_until_gone()
    finally:
        job.clear()
    [report] = (short_root / "runs").glob("*/report.json")
    assert json.loads(report.read_text())["schema"]
    # The word that Ray asks for is one, and seen nowhere.
    [word] = words
    assert len(word) == 64 and word not in job.log.read_text()
