"""A finished comparison is shown only while all that it was made from is still the same.

Real files throughout: data, weights, a cache that a teacher wrote, views, kept students, starts and evaluations. Only
the numbers of the report are made up.
"""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from finished_experiment import EVALUATION, START, STUDENT, Experiment, write_model
from local_engines import IDENTITY
from results_builders import task_model, task_run

from cache import CacheView
from cache.disk.roots import open_storage
from cache.upkeep.rewriting import forget
from configs import ConfigError, DistillConfig, dump_config, load_config
from configs.task_experiment import TaskDistillConfig
from evaluation.shipping import ship
from orchestration import entry
from orchestration.commands.main import main
from orchestration.comparison.report import Report, read_report
from orchestration.comparison.show import run_directory, show_report
from orchestration.inputs.wide_prompts import Widened
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import UNUSABLE, RestsOn, content_of
from orchestration.pipeline import reading
from orchestration.pipeline.experiment import run_experiment


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    made = Experiment(tmp_path / "work", tmp_path / "runs")
    made.write()
    made.finish()
    return made


def test_a_finished_experiment_shows_its_comparison(experiment: Experiment) -> None:
    for _ in range(2):
        shown = experiment.shown()
        assert "Experiment looked-at is finished." in shown
        assert "!" not in shown
    assert f"Everything is in {experiment.directory}" in experiment.shown()


def test_nothing_is_shown_before_there_is_anything(tmp_path: Path) -> None:
    made = Experiment(tmp_path / "work", tmp_path / "runs")
    made.write()
    assert made.shown() == ""


def test_the_comparison_comes_without_the_heavy_parts(experiment: Experiment, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_far(**_: object) -> None:
        raise AssertionError("a finished experiment needs no environment")

    monkeypatch.setattr(entry, "prepare_environment", too_far)
    for until in ("fill", "train", "eval"):
        report = entry.run_pipeline(experiment.config(), config_dir=experiment.folder, until=until)  # type: ignore[arg-type]
        assert report is not None


def flip(path: Path) -> None:
    """Other bytes of the same size with the old time, as `tar x` or `rsync -t` leave them."""
    status, content = path.stat(), bytearray(path.read_bytes())
    content[-1] ^= 1
    beside = path.with_name("beside")
    beside.write_bytes(content)
    os.utime(beside, ns=(status.st_atime_ns, status.st_mtime_ns))
    beside.rename(path)


NEW_EXPERIMENT: dict[str, Callable[[Experiment], object]] = {
    "train changed": lambda made: flip(made.folder / "train.jsonl"),
    "dev changed": lambda made: flip(made.folder / "dev.jsonl"),
    "test changed": lambda made: flip(made.folder / "test.jsonl"),
    "a row more": lambda made: (made.folder / "test.jsonl").open("a").write('{"prompt": "more"}\n'),
    "test is gone": lambda made: (made.folder / "test.jsonl").unlink(),
    "test is a folder": lambda made: ((made.folder / "test.jsonl").unlink(), (made.folder / "test.jsonl").mkdir()),
    "test waits": lambda made: ((made.folder / "test.jsonl").unlink(), os.mkfifo(made.folder / "test.jsonl")),
    "other weights of the teacher": lambda made: flip(made.folder / "teacher/model.safetensors"),
    "other weights of a student": lambda made: write_model(made.folder / "own", value=9.0),
    "another tokenizer": lambda made: (made.folder / "teacher/tokenizer.json").write_text("{}"),
    "another config": lambda made: (made.folder / "teacher/config.json").write_text('{"hidden_size": 4, "rope": 2}'),
    "no teacher": lambda made: shutil.rmtree(made.folder / "teacher"),
}


@pytest.mark.parametrize("change", NEW_EXPERIMENT)
def test_other_data_or_models_are_another_experiment(change: str, experiment: Experiment) -> None:
    before = experiment.directory
    NEW_EXPERIMENT[change](experiment)
    assert experiment.shown() == ""
    assert experiment.directory != before
    # What was made from the former ones stays readable.
    assert read_report(before) is not None


def view_of(made: Experiment) -> Path:
    return made.directory / "views" / "teacher-dev.npz"


def forget_one(made: Experiment) -> None:
    storage = open_storage(made.runs.parent / "cache", IDENTITY.digest(), create=False)
    key = CacheView.load(view_of(made)).keys[1].tobytes()
    forget(storage, identity=IDENTITY.digest(), keys=[key], break_pins=True)


REDONE: dict[str, tuple[Callable[[Experiment], object], str]] = {
    "rows erased": (forget_one, "rows of "),
    "cache gone": (lambda made: shutil.rmtree(made.runs.parent / "cache"), "what the teacher said is not all there"),
    "view cut": (lambda made: os.truncate(view_of(made), 50), "what the teacher said is not all there"),
    "view of others": (
        lambda made: shutil.copy(made.directory / "views/teacher-train.npz", view_of(made)),
        "names other rows than it did",
    ),
    "view gone": (lambda made: view_of(made).unlink(), "what the teacher said is not all there"),
    "student flipped": (lambda made: flip(made.artifacts.student_dir(STUDENT) / "model.safetensors"), "the student "),
    "student gone": (lambda made: shutil.rmtree(made.artifacts.student_dir(STUDENT)), "the student "),
    "start flipped": (
        lambda made: flip(made.artifacts.init_dir(START) / "model.safetensors"),
        "the untouched student ",
    ),
    "evaluation edited": (
        lambda made: (made.runs / f"evaluations/{EVALUATION[:16]}.json").write_text(
            (made.runs / f"evaluations/{EVALUATION[:16]}.json").read_text().replace("0.5", "0.4")
        ),
        "what answers found of kd is not what it was",
    ),
    "evaluation gone": (
        lambda made: (made.runs / f"evaluations/{EVALUATION[:16]}.json").unlink(),
        "what answers found of kd is not what it was",
    ),
    "report cut": (lambda made: os.truncate(made.directory / "report.json", 500), "report.json: not valid JSON"),
    "report edited": (
        lambda made: (made.directory / "report.json").write_text(
            (made.directory / "report.json").read_text().replace("an answer", "another one")
        ),
        "report.json: was edited or damaged",
    ),
}


@pytest.mark.parametrize("change", REDONE)
def test_what_does_not_hold_any_more_is_named_and_not_shown(change: str, experiment: Experiment) -> None:
    hurt, reason = REDONE[change]
    hurt(experiment)
    shown = experiment.shown()
    assert reason in shown and shown.rstrip().endswith(": the former comparison is not shown")
    assert len(shown.splitlines()) == 1


def test_a_comparison_that_is_not_whole_is_made_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = Experiment(tmp_path / "work", tmp_path / "runs")
    made.write()
    made.finish("answers: the engine died")
    line = "kd: answers: the engine died: the former comparison is not whole, what is missing is tried again"
    assert made.shown() == f"  ! {line}\n"
    (made.folder / "x.yaml").write_text(dump_config(made.config()))
    assert main(["report", "--config", str(made.folder / "x.yaml")]) == 0, "whoever asks for it sees it"
    assert "! not measured: kd: answers: the engine died" in capsys.readouterr().out


def test_looking_changes_nothing_in_the_cache(experiment: Experiment) -> None:
    def files() -> dict[str, bytes]:
        cache = experiment.runs.parent / "cache"
        return {str(path): path.read_bytes() for path in cache.rglob("*") if path.is_file()}

    before = files()
    assert "is finished" in experiment.shown()
    assert files() == before


def test_the_same_yaml_beside_its_own_data_is_another_experiment(experiment: Experiment, tmp_path: Path) -> None:
    copy = Experiment(tmp_path / "copy", experiment.runs)
    shutil.copytree(experiment.folder, copy.folder)
    assert copy.directory == experiment.directory
    assert "is finished" in copy.shown()
    (copy.folder / "test.jsonl").write_text('{"prompt": "of the copy"}\n')
    assert copy.shown() == ""
    assert "is finished" in experiment.shown()
    assert copy.directory != experiment.directory


def test_a_run_directory_is_named_by_what_changes_the_numbers(experiment: Experiment) -> None:
    one = experiment.config()

    def place(config: DistillConfig) -> Path:
        return run_directory(config, config_dir=experiment.folder)

    assert place(one).parent == experiment.runs
    assert place(experiment.config(seed=9)) != place(one)
    moved = one.model_copy(update={"runtime": one.runtime.model_copy(update={"cache_root": Path("/elsewhere")})})
    assert place(moved) == place(one)
    (experiment.folder / "teacher/notes.md").write_text("written on")
    assert place(one) == experiment.directory
    assert UNUSABLE not in content_of(one, config_dir=experiment.folder).values()


def test_weights_from_elsewhere_are_looked_at_where_they_were_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Experiment(tmp_path / "work", tmp_path / "runs")
    made.write()
    snapshot = write_model(tmp_path / "hub/models--a--b/snapshots/0123", value=1.0)
    (tmp_path / "hub/models--a--b/refs").mkdir()
    branch = tmp_path / "hub/models--a--b/refs/main"
    branch.write_text("0123")
    plain = made.config
    monkeypatch.setattr(made, "config", lambda: plain(teacher={"hub": "a/b"}))
    made.finish(**{"teacher.model": snapshot})
    assert "is finished" in made.shown()
    branch.write_text("4567")
    assert "teacher.model has a newer revision than the one in" in made.shown()
    branch.write_text("0123")
    flip(snapshot / "model.safetensors")
    assert "teacher.model is not what it was" in made.shown()
    shutil.rmtree(snapshot)
    assert "teacher.model is not what it was" in made.shown()


class TestReportCommand:
    """`distill report` shows a comparison or says in one line why it does not."""

    @pytest.fixture
    def yaml(self, experiment: Experiment) -> Path:
        path = experiment.folder / "x.yaml"
        path.write_text(dump_config(experiment.config()))
        return path

    def report(self, yaml: Path, capsys: pytest.CaptureFixture[str]) -> tuple[int, str, str]:
        code = main(["report", "--config", str(yaml)])
        out, err = capsys.readouterr()
        return code, out, err

    def test_it_shows_what_holds(self, yaml: Path, capsys: pytest.CaptureFixture[str]) -> None:
        code, out, err = self.report(yaml, capsys)
        assert (code, err) == (0, "")
        assert "an answer" in out

    def test_it_says_what_does_not(
        self, yaml: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        flip(experiment.artifacts.student_dir(STUDENT) / "model.safetensors")
        code, out, err = self.report(yaml, capsys)
        assert (code, out) == (2, "")
        assert "model.safetensors: was edited or damaged" in err
        assert err.rstrip().endswith("`distill run` with this config makes the comparison anew")

    def test_other_data_have_no_comparison_yet(
        self, yaml: Path, experiment: Experiment, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (experiment.folder / "test.jsonl").write_text('{"prompt": "another"}\n')
        code, out, err = self.report(yaml, capsys)
        assert (code, out) == (2, "")
        assert "holds no finished experiment with this configuration, these data and these models" in err


def test_data_that_change_while_the_run_reads_them_stop_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run directory bears the name of the former content: a report of the new one would stand there for ever."""
    tiny = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"
    shutil.copytree(tiny.parent / "prompts", tmp_path / "prompts")
    roots = [f"runtime.{root}={tmp_path / root}" for root in ("cache_root", "models_root", "run_root")]
    config = load_config(Path(shutil.copy(tiny, tmp_path)), overrides=roots)
    read = reading.read_prompts

    def just_before(*given: Any, **named: Any) -> Widened:
        with (tmp_path / "prompts/test.jsonl").open("a") as rows:
            rows.write('{"prompt": "one more"}\n')
        return read(*given, **named)

    monkeypatch.setattr(reading, "read_prompts", just_before)
    with pytest.raises(
        ConfigError, match=r"^data\.test\.path: changed while the experiment was running: run it again$"
    ):
        run_experiment(config, config_dir=tmp_path, until="eval")
    assert not (tmp_path / "run_root/inits").exists()


def test_the_last_line_of_a_task_says_which_student_to_ship(tmp_path: Path) -> None:
    config = TaskDistillConfig.model_validate(
        {
            "name": "moods", "task": "task.yaml", "teacher": {"model": {"path": "teacher"}},
            "students": {
                "bag": {
                    "start": {"kind": "transformer", "keep_layers": 2},
                    "stages": [{"objective": "hard_labels", "steps": 3}],
                }
            },
        }
    )  # fmt: skip
    run = task_run(task_model("teacher", role="teacher", right=90, text_s=0.02), task_model("bag", right=88))
    stream = io.StringIO()
    report = Report(run, RestsOn({}, {}, {}, (), ()), {})
    show_report(report, config, directory=tmp_path, console=Console(stream))
    said = stream.getvalue().rstrip()
    assert said.endswith(ship(run).sentence) and "message 2" in said and "message 3" not in said
    assert "Everything is in" in said
    digest = next(model.digest for model in run.models if model.name == "bag")
    assert f"distill predict --model runs/students/{digest[:16]} --text" in " ".join(said.split())
