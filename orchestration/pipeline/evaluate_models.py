"""Models on tasks, without an experiment around them: any decoder through an engine, any model with a task head.

Engines are started when the first question is due and serve one model after the other. A model that cannot be loaded,
or a task that it cannot be asked, is named and costs the others nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Generic

from cache import TeacherIdentity
from cache.fingerprint import fingerprint_model
from configs import DistillError
from configs.models import Device, ModelShape, ModelSource
from configs.places import FINGERPRINTS
from configs.schema import EngineSettings
from evaluation.results import DevScores
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.private import cluster
from orchestration.comparison.examination import Candidate, examine
from orchestration.comparison.head_answers import answer_by_head
from orchestration.comparison.label_likelihood import LABEL_LOGPROBS
from orchestration.comparison.task_examination import Scores, TaskExamination
from orchestration.comparison.task_questions import Asking
from orchestration.inputs.models import ModelFiles, locate_model, open_model
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from teacher_server.encoder import TaskHead
from teacher_server.heads import head_of


@dataclass(frozen=True, slots=True)
class Subject:
    """A model to be evaluated; `dtype` is what an engine serves it in.

    `digest` is what it is known by (`examination.Candidate`), where that is not just the content of its files.
    """

    name: str
    role: str
    source: ModelSource
    dtype: str
    digest: str | None = None
    asking: Asking = field(default_factory=Asking)


@dataclass(frozen=True, slots=True)
class Place:
    """Where and with what models are evaluated. Below `models_root` it is remembered what weights hashed to."""

    accelerator: Device
    gpus: int
    engine: EngineSettings
    models_root: Path
    artifacts: Artifacts
    log_dir: Path

    def longest(self, shape: ModelShape, *, asked: int = 0) -> int:
        """Tokens that engines read at most, answer included: as many as are `asked` for, if the model can."""
        return min(max(self.engine.max_model_len, asked), shape.max_positions)


@dataclass(slots=True)
class Found(Generic[Scores]):
    """Scores by (model, task), and a line for whatever could not be scored."""

    scores: dict[tuple[str, str], Scores] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def evaluate_models(
    subjects: Sequence[Subject],
    tasks: Sequence[LoadedTask],
    *,
    split: type[Scores],
    place: Place,
    console: Console,
) -> Found[Scores]:
    """Put every task to every model, on the split that `split` is of; what was found before is not asked again."""
    found: Found[Scores] = Found()
    with engines_at(place) as engines, console.stage("models", total=len(subjects), unit="models") as stage:
        for number, subject in enumerate(subjects):
            stage.update(number, note=subject.name)
            try:
                directory = locate_model(subject.source, models_root=place.models_root)
                if head_of(directory) is None:
                    ways = [TaskExamination(task, subject.asking, place.artifacts, split) for task in tasks]
                    _by_engine(subject, directory, ways, engines=engines, found=found)
                else:
                    head = TaskHead(directory, device=place.accelerator)
                    _by_head(subject.name, head, tasks, split=split, found=found)
            except DistillError as error:
                found.failures.append(f"{subject.name}: {error}")
        stage.summary = f"{len(found.scores)} of {len(subjects) * len(tasks)} scores"
    return found


class Engines:
    """The engines of an evaluation: none before the first question, new ones for another shape of model."""

    def __init__(self, place: Place, opened: ExitStack) -> None:
        self.place = place
        self._opened = opened
        self._serving: tuple[tuple[ModelShape, str, int], EnginePool] | None = None
        self._started = False

    def serve(self, candidate: Candidate, files: ModelFiles, *, asked: int = 0) -> EnginePool:
        """A pool that serves this model, questions of as many tokens as are `asked` included."""
        if not self._started:
            self._opened.enter_context(cluster(address=None, gpus=self.place.gpus))
            self._opened.callback(self.release)
            self._started = True
        served = files.shape, candidate.identity.dtype, self.place.longest(files.shape, asked=asked)
        if self._serving is None or self._serving[0] != served:
            self.release()
            self._serving = served, EnginePool(self._spec(candidate, files, longest=served[2]))
        pool = self._serving[1]
        pool.load(candidate.directory.resolve(), candidate.by_weights)
        return pool

    def release(self) -> None:
        """End them."""
        if self._serving is not None:
            self._serving[1].release()
            self._serving = None

    def _spec(self, candidate: Candidate, files: ModelFiles, *, longest: int) -> EngineSpec:
        place = self.place
        return EngineSpec(
            model_dir=files.directory.resolve(),
            identity=candidate.by_weights,
            vocab=files.vocab,
            dtype=candidate.identity.dtype,
            quantization=None,
            settings=place.engine.model_copy(update={"max_model_len": longest}),
            max_logprobs=LABEL_LOGPROBS,
            accelerator=place.accelerator,
            log_dir=place.log_dir,
        )


@contextmanager
def engines_at(place: Place) -> Iterator[Engines]:
    """Engines that are ended together with their cluster."""
    with ExitStack() as opened:
        yield Engines(place, opened)


def candidate_of(subject: Subject, directory: Path, *, place: Place) -> tuple[Candidate, ModelFiles]:
    """A decoder as engines and examinations know it.

    Raises:
        ModelError: no engine can serve what lies there.
    """
    files = open_model(directory, label=subject.name)
    prints = fingerprint_model(files.directory, memo=place.models_root / FINGERPRINTS)
    identity = TeacherIdentity(prints.weights_sha256, prints.config_sha256, dtype=subject.dtype)
    digest = subject.digest or identity.digest()
    parameters = files.shape.parameters
    return Candidate(subject.name, subject.role, digest, files.directory, identity, parameters), files


def _by_engine(
    subject: Subject,
    directory: Path,
    ways: Sequence[TaskExamination[Scores]],
    *,
    engines: Engines,
    found: Found[Scores],
) -> None:
    candidate, files = candidate_of(subject, directory, place=engines.place)
    due = [way for way in ways if way.due(candidate)]
    if due:
        asked = max(way.longest(files) for way in due)
        failed = examine(candidate, due, engines.serve(candidate, files, asked=asked))
        found.failures += [f"{subject.name}: {line}" for line in failed]
    for way in ways:
        scores = way.scores(candidate)
        if scores is not None:
            found.scores[subject.name, scores.task] = scores


def _by_head(
    name: str, head: TaskHead, tasks: Sequence[LoadedTask], *, split: type[Scores], found: Found[Scores]
) -> None:
    for task in tasks:
        try:
            answered = answer_by_head(head, task.dev if split is DevScores else task.test, task=task.config)
        except DistillError as error:
            found.failures.append(f"{name}: task {task.config.name}: {error}")
            continue
        found.scores[name, task.config.name] = split(task.config.name, "head", answered)
