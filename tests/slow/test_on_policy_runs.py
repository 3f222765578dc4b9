"""On-policy stages through the whole pipeline: what a run leaves behind, kills in the middle of a rollout, a replay."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
import pytest
import yaml
from listening import Listener, Watch
from mlflow import MlflowClient

from cache import CacheView, TeacherCache, TeacherIdentity
from cache.disk.manifests import read_manifest
from cache.disk.roots import open_storage
from orchestration.comparison.report import read_results
from orchestration.fill.ledger import read_counts
from student_train.handoff.rollouts import RolloutExchange

pytestmark = [pytest.mark.slow, pytest.mark.engine, pytest.mark.timeout(1500)]

ROOT = Path(__file__).parents[2]
MARK = "STILLROOM_TEST_MARK"
T = TypeVar("T")
SHARED_MEMORY = Path("/dev/shm")
ROLLOUTS, PROMPTS, LONGEST = 2, 8, 8
ROLLOUT = {
    "count": ROLLOUTS, "prompts": PROMPTS, "minibatches": 2, "alpha": 0.2, "max_new_tokens": LONGEST, "dev_prompts": 4,
}  # fmt: skip
MINILLM = {"objective": "minillm", "learning_rate": 1e-3, "dtype": "float32", "rollout": ROLLOUT}
GKD = MINILLM | {"objective": "kd", "divergence": "reverse_kl", "rollout": ROLLOUT | {"share": 0.5, "alpha": 0.0}}


@dataclass(frozen=True, slots=True)
class Place:
    """Where some experiments keep everything; `temporary` are the temporary files of all places."""

    root: Path
    temporary: Path

    def start(self, command: str, *, students: dict[str, Any], weight_sync: str = "files") -> subprocess.Popen[str]:
        """Begin `distill <command>` with these students of the tiny teacher."""
        config = yaml.safe_load((ROOT / "configs/tiny.yaml").read_text())
        for split in ("train", "dev", "test"):
            config["data"][split]["path"] = str(ROOT / "configs" / config["data"][split]["path"])
        # Without rows of padding no sequence is lost to them, and engine and worker group sum over the same tokens.
        config["teacher"]["model"]["random"]["vocab"] = 261
        config["students"] = {name: {"init": {"keep_layers": 2}, "stages": [stage]} for name, stage in students.items()}
        names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
        config["runtime"] |= {key: str(self.root / name) for key, name in names.items()}
        config["runtime"]["training"]["weight_sync"] = weight_sync
        file = self.root / "experiment.yaml"
        file.write_text(yaml.safe_dump(config, sort_keys=False))
        places = {"TMPDIR": str(self.temporary), "TORCHINDUCTOR_CACHE_DIR": str(self.root / "inductor")}
        return subprocess.Popen(
            [sys.executable, "-m", "orchestration", command, "--config", str(file)],
            cwd=self.root, env=os.environ | {MARK: str(self.temporary)} | places,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
        )  # fmt: skip

    def finish(self, command: str, *, students: dict[str, Any], weight_sync: str = "files") -> Path:
        """Let it end; the directory of the run."""
        process = self.start(command, students=students, weight_sync=weight_sync)
        output, _ = process.communicate(timeout=600)
        assert process.returncode == 0, output
        return max((self.root / "runs").glob("tiny-*"), key=lambda run: (run / "logs/driver.log").stat().st_mtime)

    def leftovers(self) -> list[str]:
        """Processes and temporary files that are still there."""
        return [*(str(process) for process in self.marked()), *(str(path) for path in self.temporary.iterdir())]

    def marked(self) -> list[psutil.Process]:
        """Living processes of these experiments."""
        found = []
        for process in psutil.process_iter():
            try:
                mark = process.environ().get(MARK)
                if mark == str(self.temporary) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
            except psutil.Error:
                continue
        return found


@pytest.fixture(scope="module")
def temporary() -> Iterator[Path]:
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="on-") as folder:
        yield Path(folder)
        for process in Place(Path(folder), Path(folder)).marked():
            process.kill()


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, temporary: Path) -> Place:
    return Place(tmp_path_factory.mktemp("calm"), temporary)


@pytest.fixture(scope="module")
def watched(place: Place) -> tuple[Path, frozenset[Listener]]:
    """An undisturbed run with two students, whose weights are sent, and who listened meanwhile; all others write files."""
    with Watch(mark=str(place.temporary)) as watch:
        run = place.finish("run", students={"writer": MINILLM, "gkd": GKD}, weight_sync="broadcast")
    return run, watch.seen


@pytest.fixture(scope="module")
def calm(watched: tuple[Path, frozenset[Listener]]) -> Path:
    """The directory of the undisturbed run."""
    return watched[0]


@pytest.fixture(scope="module")
def replayed(place: Place, calm: Path) -> Path:
    """The directory of a run that learns from the rollouts of the calm one."""
    stage = MINILLM | {"rollout": ROLLOUT | {"replay_from": str(calm / "rollouts/writer")}}
    return place.finish("train", students={"again": stage})


def test_an_on_policy_run_says_what_it_did(place: Place, calm: Path) -> None:
    results = read_results(calm)
    assert [model.name for model in results.models] == ["teacher", "untouched", "writer", "gkd"]
    spent = _metrics(place, calm, "pipeline")
    parts = [spent[f"{name}/teacher_tokens"][0] for name in ("fill", "rollout", "eval")]
    assert min(parts) > 0 and sum(parts) == spent["teacher/forward_tokens"][0] == results.cost.teacher_tokens
    for name in ("writer", "gkd"):
        told = _metrics(place, calm, name)
        expected = {"rollout/scoring_passes": 1.0, "rollout/sequences": PROMPTS, "rollout/staleness": 0.0}
        for metric, value in expected.items():
            assert told[metric] == [value] * ROLLOUTS, (name, metric)
        for metric in ("rollout/dev_reverse_kl", "rollout/entropy", "rollout/tokens_per_s"):
            assert len(told[metric]) == ROLLOUTS and np.isfinite(told[metric]).all(), (name, metric)
        # An engine that served other weights than the worker group has would be whole nats off.
        assert max(told["rollout/engine_gap"]) < 1e-4
        shares = [told[f"rollout/{part}_share"] for part in ("sampling", "scoring", "syncing")]
        assert all(0 < share < 1 for (share,) in shares) and sum(share for (share,) in shares) < 1
    assert _metrics(place, calm, "writer")["rollout/teacher_drawn_tokens"][0] > 0
    assert _metrics(place, calm, "gkd")["rollout/teacher_drawn_tokens"] == [0.0] * ROLLOUTS


def test_rollouts_and_broadcasts_listen_on_loopback_alone(watched: tuple[Path, frozenset[Listener]]) -> None:
    _, listeners = watched
    assert {each for each in listeners if each.address != "127.0.0.1"} == set()
    for process in ("raylet", "TrainingWorker", "EngineActor", "orchestration run"):
        assert any(process in each.process for each in listeners), process


def test_weights_are_sent_once_a_rollout(calm: Path) -> None:
    log = (calm / "logs/driver.log").read_text()
    # Of either student; the first rollout is written by the weights that the engine starts with.
    assert log.count("weights 1 were sent") == 2 and log.count("were sent") == 2 * (ROLLOUTS - 1)


def test_rollouts_are_in_the_cache_and_in_no_view_of_a_fill(place: Place, calm: Path) -> None:
    cache = _cache(place)
    storage = open_storage(place.root / "cache", cache.identity.digest(), create=False)
    filled = {key.tobytes() for path in (calm / "views").glob("*.npz") for key in CacheView.load(path).keys}
    own = {bytes(key) for key in CacheView.load(calm / "views/teacher-train.npz").keys}
    for name, by_student in (("writer", PROMPTS), ("gkd", PROMPTS // 2)):
        exchange = RolloutExchange(calm / "rollouts" / name)
        for number in range(ROLLOUTS):
            rollout = exchange.rollout(number)
            assert rollout.version == number and len(rollout.samples) == PROMPTS
            assert np.isfinite(exchange.read_behaviour(number)).all()
            rows = {bytes(key): row for row, key in enumerate(rollout.view.keys)}
            written = [key for key in rows if key not in filled]
            assert len(written) == by_student and set(rows) - set(written) <= own
            for record in cache.get_many(written):
                assert record is not None and record.policy_version == number and record.k == 16
            segments = {rollout.view.segments[rollout.view.segment[rows[key]]] for key in written}
            manifests = [read_manifest(storage, uuid, identity=cache.identity.digest()) for uuid in segments]
            assert all(manifest.rollout is not None for manifest in manifests)


def test_a_replay_asks_nobody_and_learns_the_same(place: Place, calm: Path, replayed: Path) -> None:
    assert list((replayed / "logs").glob("*engine*")) == []
    assert read_counts(replayed / "ledger").rollout == 0 < read_counts(calm / "ledger").rollout
    assert _weights(place, replayed, "again") == _weights(place, calm, "writer")


def test_kills_void_a_rollout_or_leave_it_whole(
    place: Place, calm: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """An engine killed while the first rollout is written, the driver right after it was committed.

    The weights go through files here, and were sent in the calm run: the same bits come of both.
    """
    shared = set(_orphans())
    killed = Place(tmp_path_factory.mktemp("killed"), place.temporary)
    # The same answers of the teacher, so that whatever differs afterwards comes from the kills.
    for part in ("cache", "models"):
        shutil.copytree(place.root / part, killed.root / part)
    process = killed.start("train", students={"writer": MINILLM})
    run = _kill_teacher_engine(killed, process)
    work = _await(lambda: next((killed.root / "runs/work").glob("*/rollouts/rollout-000"), None), process=process)
    process.kill()
    process.communicate()
    assert not work.with_name("rollout-001").exists()
    _await(lambda: not killed.marked(), process=None)
    log = (run / "logs/driver.log").read_text()
    assert "rollout 0 is void" in log and log.count("rollout 0 is being written") == 2
    committed = work / "rollout.npz"
    before = (committed.read_bytes(), committed.stat().st_mtime_ns)
    assert killed.finish("train", students={"writer": MINILLM}) == run
    log = (run / "logs/driver.log").read_text()
    assert log.count("rollout 0 is being written") == 2 and "rollout 1 is being written" in log
    kept = run / "rollouts/writer/rollouts/rollout-000/rollout.npz"
    assert (kept.read_bytes(), kept.stat().st_mtime_ns) == before
    for number in range(ROLLOUTS):
        rollout = RolloutExchange(run / "rollouts/writer").rollout(number)
        assert rollout.version == number and len(rollout.samples) == PROMPTS
    assert _weights(killed, run, "writer") == _weights(place, calm, "writer")
    assert killed.leftovers() == []
    assert set(_orphans()) <= shared


def _kill_teacher_engine(place: Place, process: subprocess.Popen[str]) -> Path:
    """Kill the teacher's engine while a rollout waits for it; the directory of the run."""
    # The student's engine is started last.
    log = _await(lambda: next((place.root / "runs").glob("tiny-*/logs/student-engine-0.log"), None), process=process)
    victim = next(each for each in place.marked() if _prints_to(each, log.with_name("teacher-engine-0.log")))
    # Stopped, it scores nothing: no rollout can end before the kill.
    victim.suspend()
    driver = log.with_name("driver.log")
    _await(lambda: "rollout 0 is being written" in driver.read_text(), process=process)
    time.sleep(1)
    assert "rollout 0 is void" not in driver.read_text()
    victim.kill()
    return log.parents[1]


def _prints_to(process: psutil.Process, log: Path) -> bool:
    try:
        files = {file.path for file in process.open_files()}
        return str(log) in files and any("EngineActor" in part for part in process.cmdline())
    except psutil.Error:
        return False


def _await(found: Callable[[], T | None], *, process: subprocess.Popen[str] | None) -> T:
    """What `found` gives as soon as it gives anything; Ray's last daemons may need minutes to go."""
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline:
        if result := found():
            return result
        if process is not None and process.poll() is not None:
            raise AssertionError(process.communicate()[0])
        time.sleep(0.05)
    raise AssertionError("it did not come in time")


def _orphans() -> list[str]:
    """Files in shared memory that no living process has mapped."""
    mapped = set()
    for process in psutil.process_iter():
        try:
            mapped |= {entry.path for entry in process.memory_maps()}
        except psutil.Error:
            continue
    return [str(path) for path in SHARED_MEMORY.iterdir() if str(path) not in mapped]


def _metrics(place: Place, run: Path, name: str) -> dict[str, list[float]]:
    """The histories of all metrics of one run in MLflow."""
    client = MlflowClient(tracking_uri=f"sqlite:///{place.root}/runs/mlflow.db")
    run_id = json.loads((run / "mlflow-runs.json").read_text())[name]
    known = client.get_run(run_id).data.metrics
    return {metric: [point.value for point in client.get_metric_history(run_id, metric)] for metric in known}


def _weights(place: Place, run: Path, name: str) -> bytes:
    client = MlflowClient(tracking_uri=f"sqlite:///{place.root}/runs/mlflow.db")
    tags = client.get_run(json.loads((run / "mlflow-runs.json").read_text())[name]).data.tags
    (folder,) = (place.root / "runs/students").glob(f"{tags['student_digest'][:16]}*")
    return (folder / "model.safetensors").read_bytes()


def _cache(place: Place) -> TeacherCache:
    (described,) = (place.root / "cache").glob("*/identity.json")
    identity = TeacherIdentity(**json.loads(described.read_text())["identity"])
    return TeacherCache.open(place.root / "cache", identity, create=False)
