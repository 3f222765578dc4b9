"""MLflow: one parent run for the pipeline, one child for the fill, each student and the evaluation.

Curves are buffered and flushed in batches, because one call takes MLflow milliseconds whatever it carries. A resumed
run sends only the steps above the last one that the run holds, so a curve has no duplicate points. A tracker that is
down never stops the work: what it did not take is kept in a file beside the run and sent with the next flush.
"""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME
from sqlalchemy.exc import SQLAlchemyError

from cache.disk.durable import replace_file
from orchestration.interrupts import interrupts_held

EXPERIMENT = "stillroom"
FLUSH_EVERY_S = 30.0
BATCH = 1000
"""MLflow's own limit on the metrics of one batch; its limit on parameters is 100."""

PARAM_BATCH = 100
PARAM_LENGTH = 6000

PATIENCE = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1", "MLFLOW_HTTP_REQUEST_TIMEOUT": "20"}
"""MLflow's own defaults keep a caller waiting for minutes when a server is down; the spool repeats more patiently."""

REFUSED = ("BAD_REQUEST", "INVALID_PARAMETER_VALUE", "INVALID_STATE", "RESOURCE_DOES_NOT_EXIST")
"""Errors that a repetition does not cure."""

# What a store that is down raises: MLflow's own error, a driver or a network that fails, a driver that is missing.
_DOWN = (MlflowException, SQLAlchemyError, OSError, ImportError)

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve."""

    name: str
    value: float
    step: int


class Tracker:
    """The runs of one experiment. All of them are written from this process."""

    def __init__(self, run_dir: Path, *, uri: str, experiment: str = EXPERIMENT) -> None:
        self._run_dir = run_dir
        self._uri = uri
        self._experiment = experiment
        self._spool = run_dir / "mlflow-spool.jsonl"
        self._runs_file = run_dir / "mlflow-runs.json"
        self._runs: dict[str, str] = json.loads(self._runs_file.read_text()) if self._runs_file.exists() else {}
        self._client: MlflowClient | None = None
        self._waiting: dict[str, list[Point]] = {}
        self._open: dict[str, None] = {}
        self._last_steps: dict[str, dict[str, int]] = {}
        self._last_flush = time.monotonic()
        self._down = False
        for name, value in PATIENCE.items():
            os.environ.setdefault(name, value)

    def start(self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Open the parent run, or take it up again."""
        self._open["pipeline"] = None
        self._attempt({"do": "start", "run": "pipeline", "name": name, "params": params, "tags": dict(tags)})

    def child(
        self, run: str, *, params: Mapping[str, object], tags: Mapping[str, str], dataset: tuple[str, str] | None = None
    ) -> None:
        """Open a child run, or take it up again. `dataset` is (name, digest) of the view that it reads."""
        self._open[run] = None
        self._attempt(
            {"do": "start", "run": run, "name": run, "params": params, "tags": dict(tags), "dataset": dataset}
        )

    def log(self, run: str, points: Iterable[Point]) -> None:
        """Buffer points of curves; they are sent every 30 s or with `flush`."""
        self._waiting.setdefault(run, []).extend(points)
        if time.monotonic() - self._last_flush > FLUSH_EVERY_S:
            self.flush()

    def log_final(self, run: str, values: Mapping[str, float]) -> None:
        """Log single values and send everything."""
        self.log(run, [Point(name, value, 0) for name, value in values.items()])
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        self._last_flush = time.monotonic()
        waiting, self._waiting = self._waiting, {}
        for run, points in waiting.items():
            rows = [[point.name, point.value, point.step] for point in points]
            self._attempt({"do": "log", "run": run, "points": rows})

    def finish(self, run: str, *, status: str = "FINISHED") -> None:
        """Close a run."""
        self.flush()
        self._open.pop(run, None)
        self._attempt({"do": "finish", "run": run, "status": status})

    def finish_all(self, *, status: str) -> None:
        """Close every run that is still open, children before their parent."""
        for run in reversed(list(self._open)):
            self.finish(run, status=status)

    def artifact(self, run: str, path: Path) -> None:
        """Attach a file to a run."""
        self._attempt({"do": "artifact", "run": run, "path": str(path)})

    def _attempt(self, action: dict[str, object]) -> None:
        """Replay what an earlier failure left, then do `action`; keep all of it if the tracker is down."""
        waiting = [*self._read_spool(), json.loads(json.dumps(action, default=str))]
        for done, waiting_action in enumerate(waiting):
            try:
                with self._whole():
                    self._perform(waiting_action)
            except _DOWN as error:
                what, reason = f"{waiting_action['do']} of {waiting_action['run']}", _first_line(error)
                if isinstance(error, MlflowException) and error.error_code in REFUSED and self._client is not None:
                    logger.warning("MLflow refused %s: %s", what, reason)
                    continue
                # Once on the console, then in the log alone: it is tried again every half minute.
                level = logging.INFO if self._down else logging.WARNING
                logger.log(level, "MLflow did not take %s (%s); kept for later", what, reason)
                self._down = True
                replace_file(self._spool, "".join(json.dumps(kept) + "\n" for kept in waiting[done:]).encode())
                return
        self._down = False
        self._spool.unlink(missing_ok=True)

    def _whole(self) -> AbstractContextManager[None]:
        """Keeps interrupts from a transaction: one in its middle leaves a local database locked.

        A server keeps its own transactions whole, and may be slow to answer.
        """
        return nullcontext() if self._uri.startswith("http") else interrupts_held()

    def _read_spool(self) -> list[dict[str, object]]:
        if not self._spool.exists():
            return []
        return [json.loads(line) for line in self._spool.read_text().splitlines()]

    def _perform(self, action: dict[str, object]) -> None:
        perform: Mapping[str, Callable[[MlflowClient, dict[str, object]], None]] = {
            "start": self._start_run,
            "log": self._log_points,
            "finish": self._finish_run,
            "artifact": self._log_artifact,
        }
        if self._client is None:
            self._client = MlflowClient(tracking_uri=self._uri)
        if action["do"] != "start" and action["run"] not in self._runs:
            return  # Its start was refused, which was said then.
        perform[str(action["do"])](self._client, action)

    def _start_run(self, client: MlflowClient, action: dict[str, object]) -> None:
        """Create the run, or take it up again; what a broken earlier start did not send is sent now."""
        run = str(action["run"])
        held = self._held(client, run)
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
            client.log_inputs(held.info.run_id, datasets=[_dataset_input(*dataset)])

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

    def _create(self, client: MlflowClient, *, run: str, action: dict[str, object]) -> Run:
        tags = {str(key): str(value) for key, value in _mapping(action["tags"]).items()}
        tags[MLFLOW_RUN_NAME] = str(action["name"])
        if run != "pipeline" and "pipeline" in self._runs:
            tags[MLFLOW_PARENT_RUN_ID] = self._runs["pipeline"]
        created = client.create_run(self._experiment_id(client), tags=tags, run_name=str(action["name"]))
        self._last_steps.pop(run, None)
        self._runs[run] = created.info.run_id
        replace_file(self._runs_file, json.dumps(self._runs, indent=2).encode())
        return created

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # Artifacts of a local store go beside it; a server decides for itself.
        location = (self._run_dir.parent / "mlartifacts").resolve().as_uri() if self._uri.startswith("sqlite") else None
        try:
            kind = {"mlflow.experimentKind": "custom_model_development"}  # the UI opens with runs, not with chat traces
            return str(client.create_experiment(self._experiment, artifact_location=location, tags=kind))
        except MlflowException:
            # Another pipeline may have created it between the two calls.
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_points(self, client: MlflowClient, action: dict[str, object]) -> None:
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

    def _finish_run(self, client: MlflowClient, action: dict[str, object]) -> None:
        client.set_terminated(self._runs[str(action["run"])], status=str(action["status"]))

    def _log_artifact(self, client: MlflowClient, action: dict[str, object]) -> None:
        path = Path(str(action["path"]))
        if path.exists():
            client.log_artifact(self._runs[str(action["run"])], str(path))


def flatten(tree: Mapping[str, object], *, prefix: str = "") -> dict[str, object]:
    """Nested mappings as dotted keys, for parameters that can be compared in the UI. None is left out."""
    flat: dict[str, object] = {}
    for key, value in tree.items():
        name = f"{prefix}{key}"
        if isinstance(value, Mapping):
            flat |= flatten(value, prefix=f"{name}.")
        elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(v, Mapping) for v in value):
            flat |= flatten({str(i): item for i, item in enumerate(value)}, prefix=f"{name}.")
        elif value is not None:
            flat[name] = value
    return flat


def _stored_steps(client: MlflowClient, run_id: str, *, names: set[str]) -> dict[str, int]:
    """The last step that the store holds of each curve, -1 where it holds none."""
    held = client.get_run(run_id).data.metrics if names else {}
    return {
        name: max((point.step for point in client.get_metric_history(run_id, name)), default=-1) if name in held else -1
        for name in names
    }


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:200]


def _rows(points: object) -> list[tuple[str, float, int]]:
    assert isinstance(points, list)
    return [(str(name), float(value), int(step)) for name, value, step in points]


def _mapping(value: object) -> Mapping[str, object]:
    assert isinstance(value, dict)
    return value


def _dataset_input(name: str, digest: str) -> DatasetInput:
    # MLflow keeps 36 characters of a dataset's digest.
    dataset = Dataset(name=name, digest=digest[:36], source_type="stillroom-cache", source=json.dumps({"view": digest}))
    return DatasetInput(dataset, [InputTag("mlflow.data.context", "training")])
