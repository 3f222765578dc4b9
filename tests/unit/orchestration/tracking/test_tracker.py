"""Tracking on a real SQLite store: nothing twice, nothing lost, and a broken tracker stops nobody."""

from __future__ import annotations

import itertools
import json
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Experiment, LoggedModel, Run
from mlflow.exceptions import MlflowException

from configs import ConfigError
from orchestration.pipeline.links import stage_axis
from orchestration.tracking import delivery
from orchestration.tracking import tracker as tracking
from orchestration.tracking.delivery import Action
from orchestration.tracking.tracker import FLUSH_EVERY_S, Point, TrackedModel, Tracker, flatten

NOBODY = "http://127.0.0.1:9"
"""Port 9 of loopback: nothing listens there."""

numbers = itertools.count()


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """One store for the module, because making its tables takes seconds."""
    return f"sqlite:///{tmp_path_factory.mktemp('mlflow')}/mlflow.db"


class Settled(Tracker):
    """Waits after every action until it is delivered or the store has failed, so that a test can look."""

    def _put(self, action: Action) -> None:
        super()._put(action)
        self._delivery.drain(at_most_s=60)


class Store:
    """An experiment of its own in the store, and a run directory."""

    def __init__(self, uri: str, run_dir: Path) -> None:
        self.uri = uri
        self.run_dir = run_dir
        self.experiment = f"experiment-{next(numbers)}"
        self.client = MlflowClient(tracking_uri=uri)

    def tracker(self, *, uri: str | None = None) -> Tracker:
        """A tracker as a new process would make it."""
        return Settled(self.run_dir, uri=uri or self.uri, experiment=self.experiment)

    def started(self, *, uri: str | None = None, params: dict[str, Any] | None = None) -> Tracker:
        tracker = self.tracker(uri=uri)
        tracker.start("tiny-0123", params=params or {}, tags={})
        return tracker

    def runs(self) -> dict[str, Run]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        if experiment is None:
            return {}
        found = self.client.search_runs([experiment.experiment_id])
        names = [run.info.run_name for run in found]
        assert len(names) == len(set(names)), f"runs that stand twice: {names}"
        return {run.info.run_name: run for run in found}

    def models(self) -> dict[str, LoggedModel]:
        experiment = self.client.get_experiment_by_name(self.experiment)
        assert experiment is not None
        found = self.client.search_logged_models([experiment.experiment_id])
        names = [model.name for model in found]
        assert len(names) == len(set(names)), f"models that stand twice: {names}"
        return {model.name: model for model in found}

    def curve(self, run: str, name: str) -> list[tuple[int, float]]:
        history = self.client.get_metric_history(self.runs()[run].info.run_id, name)
        return sorted((point.step, point.value) for point in history)


@pytest.fixture
def store(uri: str, tmp_path: Path) -> Store:
    run_dir = tmp_path / "runs" / "tiny-0123"
    run_dir.mkdir(parents=True)
    return Store(uri, run_dir)


def losses(first: int, last: int) -> list[Point]:
    return [Point("train/loss", 1.0 / step, step) for step in range(first, last + 1)]


def expected(first: int, last: int) -> list[tuple[int, float]]:
    return [(step, 1.0 / step) for step in range(first, last + 1)]


def test_one_parent_with_a_child_for_each_part(store: Store) -> None:
    tracker = store.started(params={"generation.max_new_tokens": 12})
    tracker.child("fill", params={"misses": 3}, tags={"role": "fill"})
    tracker.child("kd", params={"stages.0.steps": 4}, tags={"role": "student", "reused": "false"})
    tracker.finish("fill")
    tracker.finish("kd", status="FAILED")
    tracker.finish("pipeline")
    runs = store.runs()
    assert set(runs) == {"tiny-0123", "fill", "kd"}
    parent = runs["tiny-0123"]
    assert {name: run.data.tags.get("mlflow.parentRunId") for name, run in runs.items()} == {
        "tiny-0123": None,
        "fill": parent.info.run_id,
        "kd": parent.info.run_id,
    }
    assert parent.data.params == {"generation.max_new_tokens": "12"}
    assert runs["kd"].data.params == {"stages.0.steps": "4"}
    assert runs["kd"].data.tags["role"] == "student"
    assert {name: run.info.status for name, run in runs.items()} == {
        "tiny-0123": "FINISHED",
        "fill": "FINISHED",
        "kd": "FAILED",
    }


def test_more_params_than_one_call_takes(store: Store) -> None:
    params = {f"key.{i}": i for i in range(250)} | {"long": "x" * 9000}
    store.started(params=params)
    found = store.runs()["tiny-0123"].data.params
    assert {key: found[key] for key in found if key != "long"} == {f"key.{i}": str(i) for i in range(250)}
    assert found["long"] == "x" * 6000


def test_more_points_than_one_call_takes(store: Store) -> None:
    tracker = store.started()
    tracker.log("pipeline", losses(1, 2345))
    tracker.flush()
    assert store.curve("tiny-0123", "train/loss") == expected(1, 2345)


def test_the_view_that_was_read_is_the_data_set(store: Store) -> None:
    tracker = store.started()
    digest = "0123456789abcdef" * 4
    for _ in range(2):
        tracker.child("kd", params={}, tags={}, dataset=("teacher-train", digest))
    (found,) = store.runs()["kd"].inputs.dataset_inputs
    assert found.dataset.name == "teacher-train"
    assert digest.startswith(found.dataset.digest)
    assert json.loads(found.dataset.source) == {"view": digest}


def test_points_are_buffered_for_a_while(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [time.monotonic()]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    tracker = store.started()
    tracker.log("pipeline", losses(1, 3))
    assert store.runs()["tiny-0123"].data.metrics == {}
    now[0] += FLUSH_EVERY_S + 1
    tracker.log("pipeline", losses(4, 4))
    assert store.curve("tiny-0123", "train/loss") == expected(1, 4)


def test_a_resumed_run_goes_on_and_repeats_nothing(store: Store) -> None:
    first = store.started(params={"seed": 1})
    first.child("kd", params={"steps": 9}, tags={})
    first.log("kd", losses(1, 6))
    first.flush()
    before = store.runs()
    # The training goes back to its checkpoint at step 4; the changed parameter is of no consequence.
    second = store.started(params={"seed": 2, "new": 3})
    second.child("kd", params={"steps": 9}, tags={})
    second.log("kd", losses(4, 9))
    second.flush()
    after = store.runs()
    assert {name: run.info.run_id for name, run in after.items()} == {n: r.info.run_id for n, r in before.items()}
    assert store.curve("kd", "train/loss") == expected(1, 9)
    assert after["tiny-0123"].data.params == {"seed": "1", "new": "3"}


def test_each_curve_is_continued_from_its_own_last_step(store: Store) -> None:
    tracker = store.started()
    tracker.log("pipeline", [Point("train/loss", 1.0, 1), Point("train/loss", 2.0, 2), Point("dev/loss", 3.0, 1)])
    tracker.flush()
    tracker.log("pipeline", [Point("train/loss", 9.0, 2), Point("dev/loss", 4.0, 2)])
    tracker.flush()
    assert store.curve("tiny-0123", "train/loss") == [(1, 1.0), (2, 2.0)]
    assert store.curve("tiny-0123", "dev/loss") == [(1, 3.0), (2, 4.0)]


def test_final_values_are_sent_at_once_and_once(store: Store) -> None:
    for _ in range(2):
        store.started().log_final("pipeline", {"eval/test/rouge_l": 40.5})
    assert store.curve("tiny-0123", "eval/test/rouge_l") == [(0, 40.5)]


def test_a_finished_run_that_is_taken_up_again_is_running(store: Store) -> None:
    store.started().finish("pipeline")
    store.started()
    assert store.runs()["tiny-0123"].info.status == "RUNNING"


def test_an_attached_file_lies_beside_a_local_store(store: Store) -> None:
    report = store.run_dir / "report.md"
    report.write_text("# done")
    store.started().artifact("pipeline", report)
    (found,) = store.client.list_artifacts(store.runs()["tiny-0123"].info.run_id)
    assert found.path == "report.md"
    assert [path.read_text() for path in store.run_dir.parent.glob("mlartifacts/**/report.md")] == ["# done"]


def a_whole_run(tracker: Tracker, report: Path) -> None:
    tracker.start("tiny-0123", params={"seed": 1}, tags={"config_digest": "c"})
    tracker.child("kd", params={"steps": 3}, tags={"role": "student"}, dataset=("teacher-train", "d" * 64))
    tracker.log("kd", [*losses(1, 3), Point("train/grad_norm", math.nan, 3)])
    tracker.log_final("kd", {"eval/parameters": 9.0})
    tracker.artifact("pipeline", report)
    tracker.finish("kd")
    tracker.finish("pipeline")


def check_whole_run(store: Store) -> None:
    runs = store.runs()
    assert runs["tiny-0123"].data.params == {"seed": "1"}
    assert runs["kd"].data.tags["mlflow.parentRunId"] == runs["tiny-0123"].info.run_id
    assert runs["kd"].inputs.dataset_inputs[0].dataset.name == "teacher-train"
    assert store.curve("kd", "train/loss") == expected(1, 3)
    assert store.curve("kd", "eval/parameters") == [(0, 9.0)]
    assert math.isnan(store.curve("kd", "train/grad_norm")[0][1])
    assert {run.info.status for run in runs.values()} == {"FINISHED"}
    assert [f.path for f in store.client.list_artifacts(runs["tiny-0123"].info.run_id)] == ["report.md"]


@pytest.mark.parametrize("broken", ["server", "file in the way", "no database", "no driver"])
def test_what_a_broken_tracker_did_not_take_is_kept_and_sent_later(broken: str, store: Store, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    (tmp_path / "garbage.db").write_bytes(b"this is no database " * 100)
    uris = {
        "server": NOBODY,
        "file in the way": f"sqlite:///{tmp_path}/file/mlflow.db",
        "no database": f"sqlite:///{tmp_path}/garbage.db",
        "no driver": "postgresql+no_such_driver://127.0.0.1:9/x",
    }
    report = tmp_path / "report.md"
    report.write_text("# done")
    a_whole_run(store.tracker(uri=uris[broken]), report)
    assert store.runs() == {}
    spool = store.run_dir / "mlflow-spool.jsonl"
    assert len(spool.read_text().splitlines()) == 7
    # Any action of a later process sends the rest first.
    store.tracker().finish("pipeline")
    check_whole_run(store)
    assert not spool.exists()


class Unreliable:
    """Makes `MlflowClient.log_batch` fail as often as told, before or after it did its work."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *, arrives: bool) -> None:
        self.failures = 0
        log_batch: Callable[..., None] = MlflowClient.log_batch

        def unreliable(client: MlflowClient, *arguments: Any, **settings: Any) -> None:
            if self.failures:
                self.failures -= 1
                if arrives:
                    log_batch(client, *arguments, **settings)
                raise MlflowException("connection lost")
            log_batch(client, *arguments, **settings)

        monkeypatch.setattr(MlflowClient, "log_batch", unreliable)


@pytest.mark.parametrize("arrives", [False, True])
def test_points_around_an_outage_are_there_once(arrives: bool, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    unreliable = Unreliable(monkeypatch, arrives=arrives)
    tracker = store.started()
    for first in range(1, 3000, 1200):
        tracker.log("pipeline", losses(first, first + 1199))
        unreliable.failures = 1
        tracker.flush()
    tracker.finish("pipeline")
    assert store.curve("tiny-0123", "train/loss") == expected(1, 3600)
    assert store.runs()["tiny-0123"].info.status == "FINISHED"


def test_a_start_that_broke_off_is_completed_and_not_repeated(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    unreliable = Unreliable(monkeypatch, arrives=False)
    unreliable.failures = 1
    tracker = store.started(params={f"key.{i}": i for i in range(150)})
    tracker.finish("pipeline")
    (run,) = store.runs().values()
    assert len(run.data.params) == 150
    assert run.info.status == "FINISHED"


def test_an_outage_is_said_once_in_one_line(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    unreliable = Unreliable(monkeypatch, arrives=False)
    tracker = store.started()
    unreliable.failures = 3
    for step in range(1, 6):
        tracker.log("pipeline", losses(step, step))
        tracker.flush()
    warnings = [r.getMessage() for r in caplog.records if r.name == delivery.__name__ and r.levelno >= logging.WARNING]
    assert warnings == ["MLflow did not take log of pipeline (connection lost); kept for later"]
    assert store.curve("tiny-0123", "train/loss") == expected(1, 5)


def test_what_the_store_refuses_does_not_hold_up_the_rest(
    store: Store, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    tracker = store.started()
    tracker.log("pipeline", [Point("no \n such name", 1.0, 1)])
    tracker.flush()
    tracker.log("pipeline", losses(1, 2))
    tracker.finish("pipeline")
    assert store.curve("tiny-0123", "train/loss") == expected(1, 2)
    assert not (store.run_dir / "mlflow-spool.jsonl").exists()
    assert [r.getMessage()[:33] for r in caplog.records if "refused" in r.getMessage()] == [
        "MLflow refused log of pipeline: I"
    ]


def test_a_run_that_somebody_deleted_is_made_anew(store: Store) -> None:
    store.started(params={"seed": 1}).log_final("pipeline", {"eval/parameters": 1.0})
    old = store.runs()["tiny-0123"].info.run_id
    store.client.delete_run(old)
    again = store.started(params={"seed": 1})
    again.log_final("pipeline", {"eval/parameters": 1.0})
    new = store.runs()["tiny-0123"]
    assert new.info.run_id != old
    assert new.data.params == {"seed": "1"}
    assert new.data.metrics == {"eval/parameters": 1.0}


def test_a_store_that_was_removed_is_begun_anew(store: Store) -> None:
    (store.run_dir / "mlflow-runs.json").write_text(json.dumps({"pipeline": "f" * 32, "kd": "e" * 32}))
    tracker = store.started()
    tracker.child("kd", params={}, tags={})
    runs = store.runs()
    assert runs["kd"].data.tags["mlflow.parentRunId"] == runs["tiny-0123"].info.run_id


def test_two_pipelines_may_make_the_experiment_at_the_same_time(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.client.create_experiment(store.experiment)
    find: Callable[..., Experiment | None] = MlflowClient.get_experiment_by_name
    answers = iter([True])

    def late(client: MlflowClient, name: str) -> Experiment | None:
        return None if next(answers, False) else find(client, name)

    monkeypatch.setattr(MlflowClient, "get_experiment_by_name", late)
    store.started()
    assert set(store.runs()) == {"tiny-0123"}


def test_nested_settings_become_dotted_keys() -> None:
    tree = {
        "teacher": {"model": {"hub": "a/b", "revision": None}, "top_k": 16},
        "stages": [{"objective": "kd", "steps": 3}, {"objective": "sft"}],
        "keep_layers": [0, 2],
        "empty": {},
    }
    assert flatten(tree) == {
        "teacher.model.hub": "a/b",
        "teacher.top_k": 16,
        "stages.0.objective": "kd",
        "stages.0.steps": 3,
        "stages.1.objective": "sft",
        "keep_layers": [0, 2],
    }


def test_the_stages_of_a_student_follow_one_another(store: Store) -> None:
    """Both stages measure themselves at their step 0, and name their curves alike."""
    axis = stage_axis([3, 2])
    assert axis == [range(4), range(4, 7)]
    stages = [[(0, 9.0), (1, 8.0), (2, 7.0), (3, 6.0)], [(0, 5.0), (1, 4.0), (2, 3.0)]]
    for _ in range(2):  # the second time as a resumed run that reuses both
        tracker = store.started()
        tracker.child("minillm", params={}, tags={"student_digest": "d"})
        for steps, curve in zip(axis, stages, strict=True):
            tracker.log("minillm", [Point("dev/loss", value, steps.start + step) for step, value in curve])
        tracker.flush()
    assert store.curve("minillm", "dev/loss") == list(enumerate([9.0, 8.0, 7.0, 6.0, 5.0, 4.0, 3.0]))


def test_another_student_of_that_name_has_a_run_of_its_own(store: Store) -> None:
    for digest, value in (("old", 1.0), ("new", 2.0), ("new", 2.0)):
        tracker = store.started()
        tracker.child("kd", params={}, tags={"student_digest": digest})
        tracker.log("kd", [Point("train/loss", value, 1)])
        tracker.finish("kd")
    assert set(store.runs()) == {"tiny-0123", "kd", "kd (superseded)"}
    assert store.curve("kd", "train/loss") == [(1, 2.0)]
    assert store.curve("kd (superseded)", "train/loss") == [(1, 1.0)]


def test_a_final_value_that_was_measured_anew_replaces_the_old(store: Store) -> None:
    for value in (40.5, math.nan, math.nan, 41.5):
        store.started().log_final("pipeline", {"eval/test/rouge_l": value, "eval/parameters": 9.0})
    assert store.runs()["tiny-0123"].data.metrics == {"eval/test/rouge_l": 41.5, "eval/parameters": 9.0}
    assert [step for step, _ in store.curve("tiny-0123", "eval/test/rouge_l")] == [0, 1, 2]
    assert store.curve("tiny-0123", "eval/parameters") == [(0, 9.0)]


def test_all_open_runs_are_closed_with_their_parent_last(store: Store) -> None:
    tracker = store.started()
    for name in ("fill", "seqkd", "kd"):
        tracker.child(name, params={}, tags={})
    tracker.finish("fill")
    tracker.finish_all(status="FINISHED")
    assert {name: run.info.status for name, run in store.runs().items()} == dict.fromkeys(
        ("tiny-0123", "fill", "seqkd", "kd"), "FINISHED"
    )


@pytest.fixture
def silent_port() -> Iterator[int]:
    """A port that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server.getsockname()[1]


@pytest.mark.parametrize(
    "uri",
    [
        "./mlruns",
        "file:///tmp/mlruns",
        "foo://somewhere",
        "postgresql+no_such_driver://127.0.0.1:9/x",
        "sqlite:///{place}/garbage.db",
        "sqlite:///{place}/garbage.db/mlflow.db",
        "http://127.0.0.1:999999",
    ],
)
def test_a_store_that_can_never_work_is_said_at_the_start(uri: str, tmp_path: Path) -> None:
    (tmp_path / "garbage.db").write_bytes(b"this is no database " * 100)
    tracker = Tracker(tmp_path, uri=uri.format(place=tmp_path))
    with pytest.raises(ConfigError, match=r"^runtime\.tracking_uri=.* cannot be used \(.+\): name an MLflow server"):
        tracker.require_usable(at_most_s=60)


def test_a_store_that_is_down_is_warned_about(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    Tracker(tmp_path, uri="http://127.0.0.1:9").require_usable(at_most_s=60)
    assert [record.levelname for record in caplog.records if record.name == tracking.__name__] == ["WARNING"]


def test_a_store_that_is_silent_holds_nobody_up(
    silent_port: int, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracking, "CLOSE_S", 0.1)
    tracker = Tracker(tmp_path, uri=f"http://127.0.0.1:{silent_port}")
    tracker.require_usable(at_most_s=0.1)
    assert "no answer within" in caplog.text
    tracker.start("tiny", params={"seed": 1}, tags={})
    tracker.log("pipeline", [Point("train/loss", 1.0, 1)])
    tracker.finish("pipeline")
    # Nothing above asked the store, which would still be silent 20 s later: all of it is kept.
    tracker.close()
    kept = [json.loads(line)["do"] for line in (tmp_path / "mlflow-spool.jsonl").read_text().splitlines()]
    assert kept == ["start", "log", "finish"]


def student(**values: float) -> TrackedModel:
    return TrackedModel(
        name="kd", kind="student", digest="ab" * 32, params={"method": "kd", "disk_bytes": 12}, values=values,
        dataset=("teacher-test", "cd" * 32),
    )  # fmt: skip


def held_values(model: LoggedModel) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for metric in sorted(model.metrics, key=lambda metric: metric.step):
        found.setdefault(metric.key, []).append(metric.value)
    return found


def test_a_student_is_a_model_with_its_numbers_and_their_data_set(store: Store) -> None:
    tracker = store.started()
    tracker.child("kd", params={}, tags={}, dataset=("teacher-train", "ef" * 32))
    tracker.finish("kd")
    tracker.model("kd", student(forward_kl=0.5, accuracy=0.75))
    run, model = store.runs()["kd"], store.models()["kd"]
    assert model.status == "READY" and model.model_type == "student"
    assert model.source_run_id == run.info.run_id
    assert model.params == {"method": "kd", "disk_bytes": "12"}
    assert [output.model_id for output in run.outputs.model_outputs] == [model.model_id]
    assert held_values(model) == {"forward_kl": [0.5], "accuracy": [0.75]}
    assert {(metric.dataset_name, metric.dataset_digest) for metric in model.metrics} == {
        ("teacher-test", ("cd" * 32)[:36])
    }
    read = {held.dataset.name: held.tags[0].value for held in run.inputs.dataset_inputs}
    assert read == {"teacher-train": "training", "teacher-test": "evaluation"}
    assert run.info.status == "FINISHED"


def test_a_model_that_comes_again_changes_nothing_and_a_new_value_replaces_the_old(store: Store) -> None:
    for _ in range(2):
        tracker = store.started()
        tracker.child("kd", params={}, tags={})
        tracker.model("kd", student(forward_kl=0.5, ece=math.nan))
    (kept,) = store.models().values()
    assert held_values(kept) == {"forward_kl": [0.5]}
    store.started().model("kd", student(forward_kl=0.4, ece=math.nan))
    (kept,) = store.models().values()
    assert held_values(kept) == {"forward_kl": [0.5, 0.4]}
    run = store.runs()["kd"]
    assert run.data.metrics["forward_kl"] == 0.4
    assert len(run.inputs.dataset_inputs) == 1 and len(run.outputs.model_outputs) == 1


def test_models_and_notes_wait_in_the_spool_for_a_store_that_is_down(store: Store) -> None:
    store.started().child("kd", params={}, tags={})
    down = store.tracker(uri=NOBODY)
    down.note("pipeline", "**kd**: ship it")
    down.model("kd", student(forward_kl=0.5))
    down.close()
    assert (store.run_dir / "mlflow-spool.jsonl").exists()
    assert "mlflow.note.content" not in store.runs()["tiny-0123"].data.tags
    tracker = store.started()
    tracker.close()
    assert store.runs()["tiny-0123"].data.tags["mlflow.note.content"] == "**kd**: ship it"
    assert held_values(store.models()["kd"]) == {"forward_kl": [0.5]}


def test_a_model_whose_logging_broke_off_is_completed(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = store.started()
    tracker.child("kd", params={}, tags={})

    def down(*_: object, **__: object) -> None:
        raise MlflowException("down")

    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "finalize_logged_model", down)
        tracker.model("kd", student(forward_kl=0.5))
        assert store.models()["kd"].status == "PENDING"
    tracker.close()
    (model,) = store.models().values()
    assert model.status == "READY" and held_values(model) == {"forward_kl": [0.5]}


def test_a_note_is_replaced_and_no_longer_than_a_tag(store: Store) -> None:
    tracker = store.started()
    tracker.note("pipeline", "first")
    tracker.note("pipeline", "x" * 20_000)
    assert store.runs()["tiny-0123"].data.tags["mlflow.note.content"] == "x" * 5000
