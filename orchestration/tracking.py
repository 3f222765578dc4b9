"""MLflow: one parent run for the pipeline, one child for the fill, each student and the evaluation.

Curves are buffered and flushed in batches, because one call takes MLflow milliseconds whatever it carries. A resumed
run sends only the steps above the last one that the run holds, so a curve has no duplicate points. A tracker that is
down never stops the work: what it did not take is kept in a file beside the run and sent with the next flush.
"""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, InputTag, Metric, Param, Run
from mlflow.exceptions import MlflowException
from mlflow.utils.mlflow_tags import MLFLOW_PARENT_RUN_ID, MLFLOW_RUN_NAME

EXPERIMENT = "stillroom"
FLUSH_EVERY_S = 30.0
BATCH = 1000
"""MLflow's own limit on the metrics of one batch; its limit on parameters is 100."""

PARAM_BATCH = 100
PARAM_LENGTH = 6000

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
        self._last_flush = time.monotonic()

    def start(self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str]) -> None:
        """Open the parent run, or take it up again."""
        self._attempt({"do": "start", "run": "pipeline", "name": name, "params": params, "tags": dict(tags)})

    def child(
        self, run: str, *, params: Mapping[str, object], tags: Mapping[str, str], dataset: tuple[str, str] | None = None
    ) -> None:
        """Open a child run, or take it up again. `dataset` is (name, digest) of the view that it reads."""
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
        self._attempt({"do": "finish", "run": run, "status": status})

    def artifact(self, run: str, path: Path) -> None:
        """Attach a file to a run."""
        self._attempt({"do": "artifact", "run": run, "path": str(path)})

    def _attempt(self, action: dict[str, object]) -> None:
        """Replay what an earlier failure left, then do `action`; keep all of it if the tracker is down."""
        waiting = [*self._read_spool(), json.loads(json.dumps(action, default=str))]
        for done, waiting_action in enumerate(waiting):
            try:
                self._perform(waiting_action)
            # SQLAlchemy's and HTTP's errors arrive as these two; a broken tracker must not stop a paid run.
            except (MlflowException, OSError) as error:
                logger.warning("MLflow did not take %s (%s); kept for later", waiting_action["do"], error)
                self._spool.write_text("".join(json.dumps(kept) + "\n" for kept in waiting[done:]))
                return
        self._spool.unlink(missing_ok=True)

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
        perform[str(action["do"])](self._client, action)

    def _start_run(self, client: MlflowClient, action: dict[str, object]) -> None:
        run = str(action["run"])
        if run in self._runs:
            client.update_run(self._runs[run], status="RUNNING")
            return
        tags = {str(key): str(value) for key, value in _mapping(action["tags"]).items()}
        tags[MLFLOW_RUN_NAME] = str(action["name"])
        if run != "pipeline":
            tags[MLFLOW_PARENT_RUN_ID] = self._runs["pipeline"]
        created = client.create_run(self._experiment_id(client), tags=tags, run_name=str(action["name"]))
        run_id = created.info.run_id
        params = [Param(str(key), str(value)[:PARAM_LENGTH]) for key, value in _mapping(action["params"]).items()]
        for begin in range(0, len(params), PARAM_BATCH):
            client.log_batch(run_id, params=params[begin : begin + PARAM_BATCH])
        dataset = action.get("dataset")
        if isinstance(dataset, list):
            client.log_inputs(run_id, datasets=[_dataset_input(*dataset)])
        self._runs[run] = run_id
        self._runs_file.write_text(json.dumps(self._runs, indent=2))

    def _experiment_id(self, client: MlflowClient) -> str:
        found = client.get_experiment_by_name(self._experiment)
        if found is not None:
            return str(found.experiment_id)
        # Artifacts of a local store go beside it; a server decides for itself.
        location = (self._run_dir.parent / "mlartifacts").resolve().as_uri() if self._uri.startswith("sqlite") else None
        try:
            return str(client.create_experiment(self._experiment, artifact_location=location))
        except MlflowException:
            # Another pipeline may have created it between the two calls.
            found = client.get_experiment_by_name(self._experiment)
            if found is None:
                raise
            return str(found.experiment_id)

    def _log_points(self, client: MlflowClient, action: dict[str, object]) -> None:
        run_id = self._runs[str(action["run"])]
        held = _last_steps(client.get_run(run_id), client, points=_rows(action["points"]))
        now = int(time.time() * 1000)
        metrics = [
            Metric(name, value, now, step) for name, value, step in _rows(action["points"]) if step > held.get(name, -1)
        ]
        for begin in range(0, len(metrics), BATCH):
            client.log_batch(run_id, metrics=metrics[begin : begin + BATCH])

    def _finish_run(self, client: MlflowClient, action: dict[str, object]) -> None:
        client.set_terminated(self._runs[str(action["run"])], status=str(action["status"]))

    def _log_artifact(self, client: MlflowClient, action: dict[str, object]) -> None:
        client.log_artifact(self._runs[str(action["run"])], str(action["path"]))


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


def _last_steps(run: Run, client: MlflowClient, *, points: Sequence[tuple[str, float, int]]) -> dict[str, int]:
    """The last step of each curve that the run already holds."""
    names = {name for name, _, _ in points} & set(run.data.metrics)
    return {name: max(m.step for m in client.get_metric_history(run.info.run_id, name)) for name in names}


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
