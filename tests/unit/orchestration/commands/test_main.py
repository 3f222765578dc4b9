"""What a user gets wrong costs one line on standard error, exit code 2, and nothing else: no engine, no cluster."""

from __future__ import annotations

import json
import logging
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import huggingface_hub.constants
import pytest
import ray

from configs.models import ModelSource
from configs.schema import ModelShape
from configs.task_experiment import TaskDistillConfig
from orchestration.commands.main import main
from orchestration.inputs.models import materialise
from orchestration.pipeline.tasks import experiment
from orchestration.pipeline.tasks.experiment import TaskEnded
from orchestration.plan import hardware

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"
QWEN = TINY.with_name("qwen2.5-7b-to-1.5b.yaml")


@pytest.fixture(autouse=True)
def restored(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No GPU, no network; afterwards the process is as it was: a command changes environment and logging."""
    monkeypatch.setattr(hardware, "visible_gpus", lambda: 0)
    monkeypatch.setattr(hardware, "cpu_count", lambda: 2)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    environment = dict(os.environ)
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    assert not ray.is_initialized()
    os.environ.clear()
    os.environ.update(environment)
    for added in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(added)
        added.close()
    root.setLevel(level)
    logging.captureWarnings(False)


@pytest.fixture
def refused(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Runs a command on the tiny experiment that must be refused; returns the line without its prefix."""

    def run(command: str, *overrides: str, config: Path = TINY, extra: tuple[str, ...] = ()) -> str:
        roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
        sets = [part for override in (*roots, *overrides) for part in ("--set", override)]
        capfd.readouterr()
        code = main([command, "--config", str(config), *sets, *extra])
        lines = capfd.readouterr().err.splitlines()
        assert code == 2
        assert len(lines) == 1, lines
        assert lines[0].startswith("distill: ")
        return lines[0].removeprefix("distill: ")

    return run


both = pytest.mark.parametrize("command", ["plan", "run"])


@both
@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "generation.max_new_token=5",
            "generation.max_new_token: unknown key; did you mean generation.max_new_tokens?",
        ),
        ("generation.max_new_tokens=many", "generation.max_new_tokens: given 'many'; must be a whole number"),
        ("generation.max_new_tokens=true", "generation.max_new_tokens: given true; must be a whole number"),
        ("generation.max_new_tokens=0", "generation.max_new_tokens: given 0; must be more than 0"),
        (
            "generation.samples_per_prompt=2",
            "samples_per_prompt=2 with temperature=0.0 gives the same answer every time",
        ),
    ],
)
def test_a_wrong_setting(command: str, override: str, message: str, refused: Callable[..., str]) -> None:
    assert message in refused(command, override)


INTENTS = TINY.with_name("intents.yaml")


def test_a_wrong_setting_of_a_task_experiment(refused: Callable[..., str]) -> None:
    line = refused("plan", "students.bag.stages.0.learning_rat=1", config=INTENTS)
    assert line == (
        f"{INTENTS}: students.bag.stages.0.learning_rat: unknown key; did you mean students.bag.stages.0.learning_rate?"
    )
    assert refused("plan", "task=tasks/nowhere.yaml", config=INTENTS).startswith(
        "task: tasks/nowhere.yaml: found neither"
    )
    assert refused("plan", "generation={}", config=INTENTS).startswith(f"{INTENTS}: task and generation stand in one")


@pytest.mark.parametrize(
    ("command", "until"), [("run", "eval"), ("fill", "fill"), ("train", "train"), ("eval", "eval")]
)
def test_a_task_experiment_goes_to_the_pipeline_of_tasks(
    command: str, until: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    called: list[tuple[str, Path, str]] = []

    def run(config: TaskDistillConfig, *, config_dir: Path, until: str) -> TaskEnded:
        called.append((config.name, config_dir, until))
        return TaskEnded(tmp_path, 0)

    monkeypatch.setattr(experiment, "run_task_experiment", run)
    assert main([command, "--config", str(INTENTS), "--set", f"runtime.run_root={tmp_path}"]) == 0
    assert called == [("intents", INTENTS.parent, until)]


def test_a_task_experiment_where_a_language_model_is_due(refused: Callable[..., str]) -> None:
    line = refused("sweep", config=INTENTS)
    assert "makes it an experiment that distils a task, and this command is for language models" in line


def test_a_comparison_of_a_task_experiment_that_is_not_there(refused: Callable[..., str]) -> None:
    line = refused("report", config=INTENTS)
    assert "intents-" in line and line.endswith("`distill run` with this config first")


@both
def test_a_config_that_is_not_there(command: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    path = tmp_path / "nowhere.yaml"
    assert refused(command, config=path).startswith(f"{path}: no such file; name a YAML file")


@both
def test_a_data_file_that_is_not_there(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "data.train.path=prompts/nowhere.jsonl")
    assert line.startswith("data.train.path: prompts/nowhere.jsonl: found neither ")


@both
def test_an_empty_data_file(command: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "empty.jsonl").touch()
    line = refused(command, f"data.train.path={tmp_path}/empty.jsonl")
    assert line == f"data.train.path={tmp_path}/empty.jsonl is empty: put prompts in it or name another file"


@both
def test_a_data_file_without_the_field(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "data.prompt_field=question")
    assert line.startswith(
        "data.train row 0 has no field 'question', only 'id', 'task', 'prompt': set data.prompt_field"
    )


@both
def test_the_same_file_for_two_splits(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "data.test.path=prompts/dev.jsonl")
    assert line.startswith("data.test row 0 is the same prompt as data.dev row 0: remove it from one split")


@both
def test_gpus_that_are_not_there(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, config=QWEN)
    assert line.startswith("runtime.accelerator=gpu but this machine has no GPU: ")
    assert "distill plan --assume-gpus" in line


@pytest.mark.parametrize("root", ["run_root", "cache_root", "models_root"])
def test_a_place_that_cannot_be_written(root: str, tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "file").write_text("in the way")
    line = refused("run", f"runtime.{root}={tmp_path}/file/below")
    assert line.startswith(f"runtime.{root}={tmp_path}/file/below cannot be written (")
    assert line.endswith("name another directory")


@both
def test_a_k_larger_than_the_vocabulary(command: str, refused: Callable[..., str]) -> None:
    """The tokenizer's 261 ids count, not the 272 rows that the random teacher's matrix has."""
    assert refused(command, "teacher.top_k=262") == (
        "teacher.top_k=262 is more than the teacher's 261 tokens: lower it"
    )


@both
def test_sequences_longer_than_the_model(command: str, refused: Callable[..., str]) -> None:
    engines = [
        f"runtime.{role}.{key}=1024"
        for role in ("teacher_engine", "student_engine")
        for key in ("max_model_len", "max_batched_tokens")
    ]
    line = refused(command, "generation.max_new_tokens=300", *engines)
    assert line == (
        "data.max_prompt_tokens=256 + generation.max_new_tokens=300 is more than the teacher's 512 positions: "
        "lower one of them"
    )


@both
def test_sequences_longer_than_an_engine(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "generation.max_new_tokens=300")
    assert "exceed runtime.teacher_engine.max_model_len=512: raise it to 557 or lower the others" in line


@both
def test_more_layers_than_the_teacher_has(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "students.kd.init.keep_layers=5")
    assert "keep_layers=5 but the model has 4 layers: keep " in line


@both
def test_a_teacher_that_cannot_be_fetched(command: str, refused: Callable[..., str]) -> None:
    line = refused(command, "teacher.model={hub: someone/some-model}")
    assert "someone/some-model" in line


def test_a_student_with_another_vocabulary(tmp_path: Path, refused: Callable[..., str]) -> None:
    shape = ModelShape(layers=2, hidden=32, heads=2, kv_heads=1, mlp=64, vocab=512, max_positions=512)
    directory = materialise(ModelSource(random=shape), models_root=tmp_path / "models").directory
    tokenizer = json.loads((directory / "tokenizer.json").read_text())
    vocabulary = tokenizer["model"]["vocab"]
    vocabulary["A"], vocabulary["B"] = vocabulary["B"], vocabulary["A"]
    (directory / "tokenizer.json").write_text(json.dumps(tokenizer))
    line = refused("run", f"students.kd.init={{model: {{path: {directory}}}}}")
    assert f"student {directory} has another vocabulary than teacher random(seed=0)" in line
    assert line.endswith("choose a student of the teacher's family, or derive one with keep_layers")


def test_a_port_in_use(tmp_path: Path, refused: Callable[..., str]) -> None:
    (tmp_path / "run_root").mkdir()
    (tmp_path / "run_root" / "mlflow.db").touch()
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        line = refused("ui", extra=("--port", str(port)))
    assert line == f"port {port} cannot be used (Address already in use): name another one with --port"


def test_a_browser_without_a_store(tmp_path: Path, refused: Callable[..., str]) -> None:
    assert refused("ui") == f"{tmp_path}/run_root/mlflow.db does not exist: run an experiment first"


def test_a_comparison_that_is_not_there(refused: Callable[..., str]) -> None:
    said = "holds no finished experiment with this configuration, these data and these models: `distill run` with this"
    assert f"{said} config first" in refused("report")


def test_gpus_that_cannot_be_assumed(refused: Callable[..., str]) -> None:
    line = refused("plan", config=QWEN, extra=("--assume-gpus", "12"))
    assert line == "--assume-gpus 12 is not a multiple of runtime.gpus_per_node=8: correct one"


def test_a_cache_that_is_not_there(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["cache", "ls", "--cache-root", str(tmp_path / "nowhere")]) == 2
    assert capfd.readouterr().err == (
        f"distill: --cache-root {tmp_path}/nowhere is not a directory: name the cache that runtime.cache_root points to\n"
    )


def test_several_mistakes_are_a_line_each(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", "--config", str(TINY), "--set", "teacher.topk=3", "--set", "generation.seed=-1"]) == 2
    first, second = capfd.readouterr().err.splitlines()
    assert first == f"distill: {TINY}: teacher.topk: unknown key; did you mean teacher.top_k?"
    assert second == f"{TINY}: generation.seed: given -1; must be at least 0"
