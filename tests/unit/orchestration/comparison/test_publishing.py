"""A report as files, and in a real MLflow store: MLflow's own view of models is enough to compare them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from mlflow import MlflowClient
from results_builders import finished_run, task_facts, task_model, task_run, with_holes

from evaluation.results import FinalScores, RunResults, TaskExample
from evaluation.side_effects.findings import NOT_AUDITED
from orchestration.comparison.publishing import publish, tracked_models, write_pages
from orchestration.tracking.store import sqlite_uri
from orchestration.tracking.tracker import Tracker


@pytest.fixture(scope="module")
def run() -> RunResults:
    return finished_run(prompts=4)


def publish_once(run: RunResults, directory: Path, uri: str) -> None:
    tracker = Tracker(directory, uri=uri)
    tracker.start("quickstart", params={}, tags={})
    for model in run.models:
        tracker.child(model.name, params={}, tags={"role": model.role})
        tracker.finish(model.name)
    publish(run, directory=directory, tracker=tracker)
    assert tracker._delivery.drain(at_most_s=120)
    tracker.close()


def test_models_their_numbers_and_the_page_are_in_the_store_once(run: RunResults, tmp_path: Path) -> None:
    directory = tmp_path / "runs" / "quickstart-1"
    directory.mkdir(parents=True)
    uri = sqlite_uri(tmp_path / "runs" / "mlflow.db")
    for _ in range(2):
        publish_once(run, directory, uri)
    client = MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("stillroom")
    assert experiment is not None
    runs = json.loads((directory / "mlflow-runs.json").read_text())
    parent = client.get_run(runs["pipeline"])
    assert parent.data.tags["mlflow.note.content"].startswith("**Ship minillm: ")
    assert {file.path for file in client.list_artifacts(runs["pipeline"])} == {"report.html", "report.md"}
    models = {model.name: model for model in client.search_logged_models([experiment.experiment_id])}
    assert {name: model.model_type for name, model in models.items()} == {each.name: each.role for each in run.models}
    held = [(metric.dataset_name, metric.key) for metric in models["kd"].metrics]
    assert len(held) == len(set(held))
    assert {("intents", "test/accuracy"), ("sentiment", "test/accuracy"), ("teacher-test", "test/forward_kl")} <= set(
        held
    )
    assert ("teacher-test", "cost/tokens_per_s_batch_32") in held
    assert len(list(client.search_logged_models([experiment.experiment_id]))) == len(run.models)


def test_every_number_is_on_the_data_that_it_was_measured_on(run: RunResults) -> None:
    of_kd = {model.dataset: set(model.values) for name, model in tracked_models(run) if name == "kd"}
    assert set(of_kd) == {
        ("teacher-test", "c3" * 32),
        ("intents", "digest of intents"),
        ("sentiment", "digest of sentiment"),
    }
    assert of_kd["intents", "digest of intents"] == {"test/accuracy", "test/macro_f1", "test/mcc"}


def test_what_was_not_measured_is_not_tracked(run: RunResults) -> None:
    tracked = dict(tracked_models(with_holes(run)))
    assert set(tracked["kd"].values) == {"cost/disk_bytes"}
    assert tracked["minillm"].params == {
        "role": "student", "method": "seqkd, minillm", "start": "untouched", "parameters": run.models[-1].parameters,
    }  # fmt: skip


def test_the_pages_are_the_same_when_made_again(run: RunResults, tmp_path: Path) -> None:
    bare = with_holes(run)
    first = write_pages([bare], tmp_path, [NOT_AUDITED])
    kept = first.page.read_bytes(), first.markdown.read_bytes()
    assert write_pages([bare], tmp_path, [NOT_AUDITED]) == first
    assert (first.page.read_bytes(), first.markdown.read_bytes()) == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "report.md"]


def test_a_model_of_a_task_is_tracked_once_with_what_it_takes() -> None:
    run = task_run(task_model("teacher", role="teacher", right=90), task_model("bag", right=80, text_s=0.002))
    found = dict(tracked_models(run))
    assert len(tracked_models(run)) == 2
    bag = found["bag"]
    assert bag.dataset == ("intents", run.tasks[0].digest)
    assert bag.values["test/accuracy"] == 0.8 and bag.values["cost/text_s_batch_1"] == 0.002
    assert bag.values["cost/disk_bytes"] == 198e6 and "test/forward_kl" not in bag.values


def test_numbers_by_type_are_tracked_under_names_that_mlflow_takes() -> None:
    examples = (TaskExample(0, 0, "", ("0 1 PER",), "", ("0 1 PER",), 0.5, 0),)
    row = task_model("bag", right=1, tasks=(FinalScores("intents", "head", examples),))
    facts = replace(task_facts("intents"), kind="tagging", labels=("PER",), metric="entity_f1")
    ((_, bag),) = tracked_models(replace(task_run(row), tasks=(facts,)))
    assert bag.values["test/entity_f1_PER"] == 1.0
