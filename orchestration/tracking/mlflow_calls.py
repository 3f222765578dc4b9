"""What an action of the tracker means in MLflow: runs, parameters, curves, artifacts, notes, models.

An action may come again that did arrive, after a failure or from the spool of an earlier process, and then changes
nothing: runs are remembered in a file, and only the steps of a curve are sent that the store does not hold.
"""

from __future__ import annotations

import json
import logging
import math
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import (
    Dataset,
    DatasetInput,
    InputTag,
    LoggedModel,
    LoggedModelOutput,
    LoggedModelStatus,
    Metric,
    Param,
    Run,
)
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import (
    MLFLOW_MODEL_IS_EXTERNAL,
    MLFLOW_PARENT_RUN_ID,
    MLFLOW_RUN_NAME,
    MLFLOW_RUN_NOTE,
)
from sqlalchemy.exc import ArgumentError, DBAPIError, SQLAlchemyError

from cache.disk.durable import replace_file
from configs.errors import DistillError
from configs.regular_files import read_json
from configs.visible_text import first_line
from orchestration.tracking.delivery import Action, RefusedError, UndeliveredError
from orchestration.tracking.store import remove_stray_directory

BATCH = 1000
"""MLflow's own limit on the metrics of one batch; its limit on parameters is 100."""

PARAM_BATCH = 100
PARAM_LENGTH = 6000
NOTE_LENGTH = 5000
"""MLflow's limit on a tag, which is what a note is."""

MODEL_DIGEST = "model_digest"
"""The tag by which a logged model is known again."""

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own defaults keep a caller waiting for minutes when a server is down; the spool repeats more patiently."""

RUNS = "mlflow-runs.json"
"""A file of a run directory: the ids of its runs in MLflow, by name."""

REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that a repetition does not cure."""

LOCKED_OUT = ("UNAUTHENTICATED", "PERMISSION_DENIED", "ENDPOINT_NOT_FOUND")
"""What a server says to a stranger, and what something says that is not MLflow."""

# What a store that is down raises: MLflow's own error, a driver or a network that fails, a driver that is missing.
_DOWN = (MlflowException, SQLAlchemyError, OSError, ImportError)

logger = logging.getLogger(__name__)


class MlflowCalls:
    """Performs the actions of the runs of one experiment; the runs are remembered in `run_dir`."""

    def __init__(self, run_dir: Path, *, uri: str, experiment: str) -> None:
        self._run_dir = run_dir
        self._uri = uri
        self._experiment = experiment
        self._runs_file = run_dir / RUNS
        self._runs = _read_runs(self._runs_file)
        self._client: MlflowClient | None = None
        self._connecting = threading.Lock()
        self._last_steps: dict[str, dict[str, int]] = {}
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)

    def ask(self) -> None:
        """Ask the store for something small; raises whatever MLflow, its driver or the network raises."""
        self._connected().search_experiments(max_results=1)

    def perform(self, action: Action) -> None:
        """Deliver one action.

        Raises:
            UndeliveredError: the store is down.
            RefusedError: the store does not take this one.
        """
        perform: Mapping[str, Callable[[MlflowClient, Action], None]] = {
            "start": self._start_run,
            "log": self._log_points,
            "final": self._log_final,
            "finish": self._finish_run,
            "artifact": self._log_artifact,
            "note": self._set_note,
            "model": self._log_model,
        }
        try:
            client = self._connected()
            if action["do"] != "start" and action["run"] not in self._runs:
                return  # Its start was refused, which was said then.
            perform[str(action["do"])](client, action)
        except _DOWN as error:
            refused = isinstance(error, MlflowException) and error.error_code in REFUSED and self._client is not None
            raise (RefusedError if refused else UndeliveredError)(first_line(error)) from error

    def _connected(self) -> MlflowClient:
        with self._connecting:
            if self._client is None:
                with remove_stray_directory(self._uri):
                    self._client = MlflowClient(tracking_uri=self._uri)
            return self._client

    def _start_run(self, client: MlflowClient, action: Action) -> None:
        """Create the run, or take it up again; what a broken earlier start did not send is sent now."""
        run = str(action["run"])
        held = self._held(client, run)
        if held is not None and _differs(held, _mapping(action["tags"])):
            client.update_run(held.info.run_id, name=f"{held.info.run_name} (superseded)")
            held = None
        if held is None:
            held = self._create(client, run=run, action=action)
        else:
            client.update_run(held.info.run_id, status="RUNNING")
        params = [
            Param(str(key), str(value)[:PARAM_LENGTH])
            for key, value in _mapping(action["params"]).items()
            if str(key) not in held.data.params
        ]
        for begin in range(0, len(params), PARAM_BATCH):
            client.log_batch(held.info.run_id, params=params[begin : begin + PARAM_BATCH])
        dataset = action.get("dataset")
        if isinstance(dataset, list) and not held.inputs.dataset_inputs:
            client.log_inputs(held.info.run_id, datasets=[_dataset_input(*dataset, context="training")])

    def _held(self, client: MlflowClient, run: str) -> Run | None:
        """The run as the store holds it; None when there is none yet, or somebody deleted it."""
        if run not in self._runs:
            return None
        try:
            found = client.get_run(self._runs[run])
        except MlflowException as error:
            if error.error_code != "RESOURCE_DOES_NOT_EXIST":
                raise
            return None
        return found if found.info.lifecycle_stage == "active" else None

    def _create(self, client: MlflowClient, *, run: str, action: Action) -> Run:
        tags = {str(key): str(value) for key, value in _mapping(action["tags"]).items()}
        tags[MLFLOW_RUN_NAME] = str(action["name"])
        parent = self._parent(run, action)
        if parent is not None:
            tags[MLFLOW_PARENT_RUN_ID] = parent
        created = client.create_run(self._experiment_id(client), tags=tags, run_name=str(action["name"]))
        self._last_steps.pop(run, None)
        self._runs[run] = created.info.run_id
        replace_file(self._runs_file, json.dumps(self._runs, indent=2).encode())
        return created

    def _parent(self, run: str, action: Action) -> str | None:
        """The run that a new one stands below: that of its experiment or, for this one, that of its sweep."""
        if run != "pipeline":
            return self._runs.get("pipeline")
        below = action.get("below")
        return _read_runs(Path(str(below)) / RUNS).get("pipeline") if below else None

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # A server decides for itself where artifacts go; beside a database MLflow would take the working directory.
        served = self._uri.startswith("http") or self._uri.startswith("databricks")
        location = None if served else (self._run_dir.parent / "mlartifacts").resolve().as_uri()
        try:
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens with runs, not with chat traces
            return str(client.create_experiment(self._experiment, artifact_location=location, tags=kind))
        except MlflowException:
            # Another pipeline may have created it between the two calls.
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_points(self, client: MlflowClient, action: Action) -> None:
        run = str(action["run"])
        run_id, points = self._runs[run], _rows(action["points"])
        # Forgotten while sending: after a failure nobody knows what arrived, and the store is asked again.
        last = self._last_steps.pop(run, {})
        last |= _stored_steps(client, run_id, names={name for name, _, _ in points} - last.keys())
        now = int(time.time() * 1000)
        new = [Metric(name, value, now, step) for name, value, step in points if step > last[name]]
        for begin in range(0, len(new), BATCH):
            client.log_batch(run_id, metrics=new[begin : begin + BATCH])
        for metric in new:
            last[metric.key] = max(last[metric.key], metric.step)
        self._last_steps[run] = last

    def _log_final(self, client: MlflowClient, action: Action) -> None:
        run_id = self._runs[str(action["run"])]
        held = client.get_run(run_id).data.metrics
        wanted = {str(name): float(str(value)) for name, value in _mapping(action["values"]).items()}
        changed = {name: value for name, value in wanted.items() if not _is_same(held.get(name), value)}
        last = _stored_steps(client, run_id, names=set(changed))
        now = int(time.time() * 1000)
        # The newest value of a metric is the one with the highest step.
        client.log_batch(run_id, metrics=[Metric(name, value, now, last[name] + 1) for name, value in changed.items()])

    def _finish_run(self, client: MlflowClient, action: Action) -> None:
        client.set_terminated(self._runs[str(action["run"])], status=str(action["status"]))

    def _log_artifact(self, client: MlflowClient, action: Action) -> None:
        path = Path(str(action["path"]))
        # A spool may name anything, and MLflow would copy from a pipe or a device without end.
        if path.is_file():
            client.log_artifact(self._runs[str(action["run"])], str(path))

    def _set_note(self, client: MlflowClient, action: Action) -> None:
        client.set_tag(self._runs[str(action["run"])], MLFLOW_RUN_NOTE, str(action["text"])[:NOTE_LENGTH])

    def _log_model(self, client: MlflowClient, action: Action) -> None:
        """A model with its numbers on a dataset, as an output of its run; one of that digest is taken up again."""
        run_id, digest = self._runs[str(action["run"])], str(action["digest"])
        params = {str(key): str(value)[:PARAM_LENGTH] for key, value in _mapping(action["params"]).items()}
        model = _held_model(client, run_id, digest=digest, experiment=self._experiment_id(client))
        if model is None:
            model = client.create_logged_model(
                self._experiment_id(client),
                name=str(action["name"]),
                source_run_id=run_id,
                tags={MLFLOW_MODEL_IS_EXTERNAL: "true", MODEL_DIGEST: digest},
                params=params,
                model_type=str(action["kind"]),
            )
        if model.status != LoggedModelStatus.READY:
            client.finalize_logged_model(model.model_id, status=LoggedModelStatus.READY)
        run = client.get_run(run_id)
        linked = [] if run.outputs is None else [output.model_id for output in run.outputs.model_outputs]
        if model.model_id not in linked:
            client.log_outputs(run_id, models=[LoggedModelOutput(model.model_id, 0)])
        dataset = _dataset_input(*_pair(action["dataset"]), context="evaluation")
        met = {(held.dataset.name, held.dataset.digest) for held in run.inputs.dataset_inputs}
        if (dataset.dataset.name, dataset.dataset.digest) not in met:
            client.log_inputs(run_id, datasets=[dataset])
        self._log_model_metrics(client, action, run=run, model=model, dataset=dataset.dataset)

    def _log_model_metrics(
        self, client: MlflowClient, action: Action, *, run: Run, model: LoggedModel, dataset: Dataset
    ) -> None:
        """The model's numbers that it does not hold yet, or holds differently; the newest has the highest step."""
        held = {
            metric.key: metric.value
            for metric in sorted(model.metrics or [], key=lambda metric: (metric.step, metric.timestamp))
            if metric.dataset_digest == dataset.digest
        }
        wanted = {str(name): float(str(value)) for name, value in _mapping(action["values"]).items()}
        # MLflow keeps a model's NaN as 0.
        changed = {name: value for name, value in wanted.items() if math.isfinite(value) and held.get(name) != value}
        run_id = run.info.run_id
        last = _stored_steps(client, run_id, names=set(changed))
        links = {"model_id": model.model_id, "dataset_name": dataset.name, "dataset_digest": dataset.digest}
        now = int(time.time() * 1000)
        new = [Metric(name, value, now, last[name] + 1, run_id=run_id, **links) for name, value in changed.items()]
        for begin in range(0, len(new), BATCH):
            client.log_batch(run_id, metrics=new[begin : begin + BATCH])


def is_final(error: Exception) -> bool:
    """Whether this error of a store that was never reached will be the same in an hour."""
    if isinstance(error, MlflowException):
        return error.error_code in (*REFUSED, *LOCKED_OUT) or type(error) is not MlflowException
    if isinstance(error, DBAPIError):
        reason = str(error.orig)
        broken = type(error.orig) is sqlite3.DatabaseError  # its subclasses are trouble with a sound database
        return broken or "unable to open" in reason or "readonly" in reason
    kinds = (ImportError, ArgumentError, FileExistsError, NotADirectoryError, PermissionError)
    return isinstance(error, kinds)


def _held_model(client: MlflowClient, run_id: str, *, digest: str, experiment: str) -> LoggedModel | None:
    """The model of this digest that a run has logged before."""
    found = client.search_logged_models([experiment], filter_string=f"source_run_id = '{run_id}'")
    return next((model for model in found if model.tags.get(MODEL_DIGEST) == digest), None)


def _stored_steps(client: MlflowClient, run_id: str, *, names: set[str]) -> dict[str, int]:
    """The last step that the store holds of each curve, -1 where it holds none."""
    held = client.get_run(run_id).data.metrics if names else {}
    return {
        name: max((point.step for point in client.get_metric_history(run_id, name)), default=-1) if name in held else -1
        for name in names
    }


def _read_runs(path: Path) -> dict[str, str]:
    try:
        raw = read_json(path)
    except FileNotFoundError:
        return {}
    except (OSError, DistillError) as error:
        logger.warning("%s: cannot be read (%s); new runs are begun in MLflow", path, error)
        return {}
    return {str(run): str(run_id) for run, run_id in raw.items()} if isinstance(raw, dict) else {}


def _differs(held: Run, tags: Mapping[str, object]) -> bool:
    """Whether a run is that of a student with other data, start or stages."""
    digest = held.data.tags.get("student_digest")
    return digest is not None and digest != tags.get("student_digest")


def _is_same(held: float | None, value: float) -> bool:
    return held is not None and (held == value or (math.isnan(held) and math.isnan(value)))


def _rows(points: object) -> list[tuple[str, float, int]]:
    assert isinstance(points, list)
    return [(str(name), float(value), int(step)) for name, value, step in points]


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)
    return value


def _pair(value: object) -> tuple[str, str]:
    assert isinstance(value, list)
    name, digest = value
    return str(name), str(digest)


def _dataset_input(name: str, digest: str, *, context: str) -> DatasetInput:
    # MLflow keeps 36 characters of a dataset's digest.
    dataset = Dataset(name=name, digest=digest[:36], source_type="stillroom-cache", source=json.dumps({"view": digest}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", context)])
