"""MLflow: one parent run for the pipeline, one child for the fill, each student and the evaluation.

What a run says becomes actions here. Curves are buffered and flushed in batches, because one call takes MLflow
milliseconds whatever it carries. A store that is slow or down never stops the work: a thread talks to it, and what it
did not take is kept in a file beside the run (`orchestration.tracking.delivery`). One that can never work is named at
the start. What an action means in MLflow stands in `orchestration.tracking.mlflow_calls`.
"""

from __future__ import annotations

import logging
import queue
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from configs.errors import BudgetReached, ConfigError
from configs.secrets import redact
from configs.visible_text import first_line
from orchestration.tracking.delivery import Action, Delivery
from orchestration.tracking.mlflow_calls import MlflowCalls, is_final

EXPERIMENT = "stillroom"
FLUSH_EVERY_S = 30.0
CLOSE_S = 20.0
"""A run that has ended waits at most this long for its last points to arrive; the spool holds what did not."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Point:
    """One value of a curve."""

    name: str
    value: float
    step: int


@dataclass(frozen=True, slots=True)
class TrackedModel:
    """A model for MLflow's view of models: `kind` is its role, `dataset` (name, digest) what `values` are on."""

    name: str
    kind: str
    digest: str
    params: Mapping[str, object]
    values: Mapping[str, float]
    dataset: tuple[str, str]


class Tracker:
    """The runs of one experiment. All of them are written from this process; no call waits for MLflow or raises."""

    def __init__(self, run_dir: Path, *, uri: str, experiment: str = EXPERIMENT) -> None:
        self._uri = uri
        self._calls = MlflowCalls(run_dir, uri=uri, experiment=experiment)
        self._waiting: dict[str, list[Point]] = {}
        self._open: dict[str, None] = {}
        self._last_flush = time.monotonic()
        self._delivery = Delivery(self._calls.perform, spool=run_dir / "mlflow-spool.jsonl", service="MLflow")

    def require_usable(self, *, at_most_s: float) -> None:
        """Ask the store once. One that is down or slow is warned about; the run does without it.

        Raises:
            ConfigError: the store can never work: a URI that MLflow refuses, a driver that is not installed, a file
                that is not a database, a server that knows nobody of that name.
        """
        answer: queue.SimpleQueue[Exception | None] = queue.SimpleQueue()

        def ask() -> None:
            try:
                self._calls.ask()
            except Exception as error:  # noqa: BLE001 (whatever it is, it is handed to whoever asked)
                answer.put(error)
            else:
                answer.put(None)

        threading.Thread(target=ask, name="MLflow probe", daemon=True).start()
        try:
            error = answer.get(timeout=at_most_s)
        except queue.Empty:
            error = TimeoutError(f"no answer within {at_most_s:.0f} s")
        if error is None:
            return
        if is_final(error):
            raise ConfigError(
                f"runtime.tracking_uri={redact(self._uri)} cannot be used ({first_line(error)}): name an MLflow "
                "server (http://...) or a database (sqlite:////absolute/path/mlflow.db), or leave it out"
            )
        logger.warning("MLflow does not answer (%s); the run goes on, and what it logs is kept", first_line(error))

    def start(
        self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str], below: Path | None = None
    ) -> None:
        """Open the parent run, or take it up again. `below` is the run directory of the run that it stands below."""
        self._open["pipeline"] = None
        action = {"do": "start", "run": "pipeline", "name": name, "params": _shown(params), "tags": dict(tags)}
        self._put(action if below is None else {**action, "below": str(below)})

    def child(
        self, run: str, *, params: Mapping[str, object], tags: Mapping[str, str], dataset: tuple[str, str] | None = None
    ) -> None:
        """Open a child run, or take it up again. `dataset` is (name, digest) of the view that it reads.

        A run that was opened with another tag `student_digest` is not taken up: its curves are those of another
        student. It stays, renamed, and a new run takes its place.
        """
        self._open[run] = None
        self._put(
            {
                "do": "start",
                "run": run,
                "name": run,
                "params": _shown(params),
                "tags": dict(tags),
                "dataset": dataset,
            }
        )

    def log(self, run: str, points: Iterable[Point]) -> None:
        """Buffer points of curves; they are sent every 30 s or with `flush`."""
        self._waiting.setdefault(run, []).extend(points)
        if time.monotonic() - self._last_flush > FLUSH_EVERY_S:
            self.flush()

    def log_final(self, run: str, values: Mapping[str, float]) -> None:
        """Log single values and send everything. A value that the run holds already is replaced when it differs."""
        self.flush()
        self._put({"do": "final", "run": run, "values": dict(values)})

    def flush(self) -> None:
        """Send what waits."""
        self._last_flush = time.monotonic()
        waiting, self._waiting = self._waiting, {}
        for run, points in waiting.items():
            rows = [[point.name, point.value, point.step] for point in points]
            self._put({"do": "log", "run": run, "points": rows})

    def finish(self, run: str, *, status: str = "FINISHED") -> None:
        """Close a run."""
        self.flush()
        self._open.pop(run, None)
        self._put({"do": "finish", "run": run, "status": status})

    def finish_all(self, *, status: str) -> None:
        """Close every run that is still open, children before their parent."""
        for run in reversed(list(self._open)):
            self.finish(run, status=status)

    def artifact(self, run: str, path: Path) -> None:
        """Attach a file to a run."""
        self._put({"do": "artifact", "run": run, "path": str(path)})

    def note(self, run: str, text: str) -> None:
        """Set the note of a run, which MLflow shows as Markdown; a former one is replaced."""
        self._put({"do": "note", "run": run, "text": text})

    def model(self, run: str, model: TrackedModel) -> None:
        """Log a model as an output of its run, with its numbers; one of that digest is taken up again."""
        self.flush()
        self._put({"do": "model", "run": run, **asdict(model), "params": _shown(model.params)})

    def close(self) -> None:
        """Wait a little for the last points to arrive; keep for the next process what does not."""
        self.flush()
        self._delivery.close(at_most_s=CLOSE_S)

    def _put(self, action: Action) -> None:
        self._delivery.put(action)


@contextmanager
def parent_run(
    tracker: Tracker,
    name: str,
    *,
    params: Mapping[str, object],
    tags: Mapping[str, str],
    below: Path | None = None,
) -> Iterator[None]:
    """Keep a parent run open for as long as the context lasts; `below` as in `Tracker.start`.

    It and what is still open below it end as finished, as failed, or as killed where a budget or the user ended them.
    """
    tracker.start(name, params=params, tags=tags, below=below)
    try:
        yield
    except BaseException as error:
        ended_by_choice = isinstance(error, KeyboardInterrupt | BudgetReached)
        tracker.finish_all(status="KILLED" if ended_by_choice else "FAILED")
        raise
    tracker.finish_all(status="FINISHED")


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


def _shown(params: Mapping[str, object]) -> dict[str, str]:
    return {key: redact(str(value)) for key, value in params.items()}
