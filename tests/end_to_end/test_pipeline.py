"""The whole pipeline with real parts: a random model served by vLLM, Ray, DeepSpeed on two ranks, Zarr, MLflow.

One module-scoped run of the shipped `tiny.yaml` as a user would start it; the tests read what it left. A second
experiment then changes one student.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from listening import Listener, Watch
from mlflow import MlflowClient
from mlflow.entities import Run
from safetensors.numpy import load_file

from cache import CacheView, TeacherCache, TeacherIdentity
from orchestration.comparison.numbers import closeness_numbers, tokens_per_s
from orchestration.comparison.report import read_results

pytestmark = [pytest.mark.engine, pytest.mark.timeout(1800)]

ROOT = Path(__file__).parents[2]
MARK = "STILLROOM_TEST_MARK"


@dataclass(frozen=True, slots=True)
class Place:
    """The roots of one test session."""

    root: Path
    temporary: Path

    def environment(self) -> dict[str, str]:
        """Marks every process of these runs, and keeps their temporary files apart from everybody else's."""
        # Torch's compiler makes its directory, which stays, among the temporary files unless it is told another place.
        places = {"TMPDIR": str(self.temporary), "TORCHINDUCTOR_CACHE_DIR": str(self.root / "inductor")}
        return os.environ | {MARK: str(self.root)} | places

    def leftovers(self) -> list[str]:
        """Processes and temporary files of these runs that are still there."""
        return [*_marked(str(self.root)), *map(str, self.temporary.iterdir())]

    def overrides(self) -> list[str]:
        names = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
        return [f"runtime.{key}={self.root / name}" for key, name in names.items()]

    def distill(self, *extra: str, **environment: str) -> subprocess.CompletedProcess[str]:
        sets = [part for override in (*self.overrides(), *extra) for part in ("--set", override)]
        command = [sys.executable, "-m", "orchestration", "run", "--config", str(ROOT / "configs/tiny.yaml"), *sets]
        return subprocess.run(
            command,
            cwd=self.root / "shadows" if environment else self.root,
            env=self.environment() | environment,
            capture_output=True,
            text=True,
            timeout=1500,
            check=False,
        )

    def runs(self) -> list[Path]:
        return sorted((self.root / "runs").glob("tiny-*"), key=lambda path: path.stat().st_mtime)


@dataclass(frozen=True, slots=True)
class Finished:
    """One finished run: where, and what the terminal said."""

    place: Place
    directory: Path
    output: str
    listeners: frozenset[Listener] = frozenset()

    def mlflow_runs(self) -> dict[str, Run]:
        """The runs of this experiment by name; the parent is "pipeline"."""
        client = MlflowClient(tracking_uri=f"sqlite:///{self.place.root}/runs/mlflow.db")
        ids = json.loads((self.directory / "mlflow-runs.json").read_text())
        return {name: client.get_run(run_id) for name, run_id in ids.items()}


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Finished]:
    # Ray's sockets need a short path.
    with tempfile.TemporaryDirectory(prefix="e2e-") as temporary:
        place = Place(tmp_path_factory.mktemp("end-to-end"), Path(temporary))
        # Folders that are called as ours are, where a user starts the run; nothing of them may be imported.
        for name in ("configs", "cache", "evaluation", "student_train", "teacher_server"):
            _write_trap(place.root / "shadows" / name)
        with Watch(mark=str(place.root)) as watch:
            done = place.distill(PYTHONPATH=str(place.root / "shadows"))
        assert done.returncode == 0, done.stdout + done.stderr
        yield Finished(place, place.runs()[-1], done.stdout, watch.seen)


@pytest.fixture(scope="module")
def second(first: Finished) -> Finished:
    """One student changed: another number of steps for `kd`, which asks the teacher afresh and looks into it."""
    stage = "students.kd.stages.0"
    features = "[{kind: cosine}, {kind: attention_mse}]"
    done = first.place.distill(f"{stage}.steps=3", f"{stage}.teacher=live", f"{stage}.features={features}")
    assert done.returncode == 0, done.stdout + done.stderr
    (directory,) = set(first.place.runs()) - {first.directory}
    return Finished(first.place, directory, done.stdout)


def test_the_terminal_tells_the_story_and_nothing_else(first: Finished) -> None:
    for stage in ("teacher", "prompts", "fill", "train seqkd", "train kd", "held-out scoring", "student answers"):
        assert f"✓ {stage}" in first.output
    assert "make ui" in first.output
    assert str(first.directory.relative_to(first.place.root)) in first.output
    for foreign in ("WARNING", "INFO", "FutureWarning", "ray::", "vllm"):
        assert foreign not in first.output


def test_everything_listens_on_loopback_alone(first: Finished) -> None:
    outside = {each for each in first.listeners if each.address != "127.0.0.1"}
    assert outside == set()
    # Those of whom it is known that they listen were looked at.
    for process in ("raylet", "TrainingWorker", "EngineActor", "orchestration run"):
        assert any(process in each.process for each in first.listeners), process


def test_every_model_is_in_the_table(first: Finished) -> None:
    models = read_results(first.directory).models
    assert [(model.name, model.method, model.start) for model in models] == [
        ("teacher", "", None), ("untouched", "", None),
        ("seqkd", "seqkd", "untouched"), ("kd", "kd", "untouched"),
    ]  # fmt: skip
    teacher, untouched, _, kd = (closeness_numbers(model) for model in models)
    # Engine and cache agree up to the coding of the cache and the noise of batching.
    assert teacher["forward_kl"] < 0.01
    assert teacher["top1_agreement"] > 0.95
    assert kd["forward_kl"] < untouched["forward_kl"]
    assert models[3].parameters < models[0].parameters
    assert all(len(model.answers) == 8 and model.failures == () for model in models)
    assert all((speed := tokens_per_s(model)) is not None and speed.median > 0 for model in models)


def test_the_run_directory_holds_what_readme_says(first: Finished) -> None:
    names = ("config.yaml", "report.md", "report.json", "rejected.jsonl", "data-card.md", "foundation.json")
    for name in (*names, "logs/driver.log", "mlflow-runs.json"):
        assert (first.directory / name).exists(), name
    assert {path.stem for path in (first.directory / "views").iterdir()} == {
        "teacher-train", "teacher-dev", "teacher-test",
    }  # fmt: skip


def test_the_cache_holds_one_complete_record_a_prompt(first: Finished) -> None:
    (described,) = (first.place.root / "cache").glob("*/identity.json")
    identity = TeacherIdentity(**json.loads(described.read_text())["identity"])
    cache = TeacherCache.open(first.place.root / "cache", identity, create=False)
    assert cache.stats().records == 40
    assert cache.verify() == []
    view = CacheView.load(first.directory / "views" / "teacher-train.npz")
    records = cache.get_many([bytes(key) for key in view.keys])
    assert len(records) == 24
    for record in records:
        assert record is not None
        assert record.k == 16
        assert record.target_logprobs is not None and len(record.target_logprobs) == record.response_len


def test_students_are_plain_transformers_directories(first: Finished) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    students = sorted((first.place.root / "runs" / "students").iterdir())
    for directory in students:
        model = AutoModelForCausalLM.from_pretrained(directory, use_safetensors=True)
        assert model.config.num_hidden_layers == 2
        assert len(AutoTokenizer.from_pretrained(directory)) == 261
    # Trained apart from one another, and apart from where they started.
    (start,) = (first.place.root / "runs" / "inits").iterdir()
    weights = [load_file(directory / "model.safetensors") for directory in (start, *students[:2])]
    name = "model.layers.0.mlp.up_proj.weight"
    assert len({array[name].tobytes() for array in weights}) == 3


def test_mlflow_holds_parent_children_params_and_curves(first: Finished) -> None:
    runs = first.mlflow_runs()
    assert set(runs) == {"pipeline", "fill", "teacher", "untouched", "seqkd", "kd"}
    parent = runs["pipeline"]
    assert parent.data.params["teacher.top_k"] == "16"
    assert parent.data.metrics["teacher/forward_tokens"] > 0
    for name, run in runs.items():
        assert run.info.status == "FINISHED", name
        if name != "pipeline":
            assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
    client = MlflowClient(tracking_uri=f"sqlite:///{first.place.root}/runs/mlflow.db")
    for name in ("seqkd", "kd"):
        steps = [point.step for point in client.get_metric_history(runs[name].info.run_id, "train/loss")]
        assert steps == sorted(set(steps)) and len(steps) == 4
        # A student that learns the teacher's words is measured against its beliefs too.
        for metric in ("dev/loss", "dev/forward_kl"):
            held_out = [point.step for point in client.get_metric_history(runs[name].info.run_id, metric)]
            assert held_out == [0, 1, 2, 3, 4]
        assert runs[name].data.metrics["eval/test/forward_kl"] >= 0
        assert runs[name].inputs.dataset_inputs
    assert runs["fill"].data.metrics["cache/hit_rate"] == 0.0


def test_the_same_command_prints_the_finished_table_at_once(first: Finished) -> None:
    done = first.place.distill()
    assert done.returncode == 0
    assert "is finished" in done.stdout and "untouched" in done.stdout
    assert "✓" not in done.stdout


def test_a_changed_student_asks_the_teacher_nothing(first: Finished, second: Finished) -> None:
    runs = second.mlflow_runs()
    assert runs["pipeline"].data.metrics["teacher/forward_tokens"] == 0.0
    assert runs["fill"].data.metrics["cache/hit_rate"] == 1.0
    assert "teacher engine" not in second.output
    assert "reused" in second.output
    assert runs["seqkd"].data.tags["reused"] == "true"
    assert runs["kd"].data.tags["reused"] == "false"
    # The curves of a reused student can be compared in the new run as well.
    assert runs["seqkd"].data.metrics["train/loss"] == first.mlflow_runs()["seqkd"].data.metrics["train/loss"]
    assert runs["kd"].data.tags["student_digest"] != first.mlflow_runs()["kd"].data.tags["student_digest"]


def test_nothing_is_left_behind(first: Finished, second: Finished) -> None:
    assert first.place.leftovers() == []


def test_an_interrupted_run_cleans_up(first: Finished) -> None:
    """Ctrl-C to the whole process group while the workers start."""
    sets = [part for o in (*first.place.overrides(), "students.kd.stages.0.seed=7") for part in ("--set", o)]
    command = [sys.executable, "-m", "orchestration", "run", "--config", str(ROOT / "configs/tiny.yaml"), *sets]
    with subprocess.Popen(
        command,
        cwd=first.place.root,
        env=first.place.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "train kd" in line:
                break
        os.killpg(process.pid, signal.SIGINT)
        _, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "stopped" in errors and "Traceback" not in errors
    stopped = Finished(first.place, first.place.runs()[-1], "").mlflow_runs()
    assert stopped["pipeline"].info.status == stopped["kd"].info.status == "KILLED"
    assert stopped["seqkd"].info.status != "RUNNING"
    assert first.place.leftovers() == []


def _write_trap(package: Path) -> None:
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise ImportError('the package of somebody else')\n")


def _marked(value: str) -> list[str]:
    """Living processes that inherited the mark."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == value and process.status() != psutil.STATUS_ZOMBIE:
                found.append(f"{process.pid} {' '.join(process.cmdline())[:100]}")
        except psutil.Error:
            continue
    return found
