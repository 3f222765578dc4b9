"""A task experiment in a folder, with worker groups and engines that work in this process."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from pipeline_builders import NotedTracker
from safetensors.torch import load_file, save_file
from speaking_engines import Speaker
from task_files import SHAPE
from task_heads import save_classifier

from cache import SignalRecord, SignalRequest, TeacherCache
from configs.places import CURVES
from configs.task_experiment import TaskDistillConfig
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.fill.ledger import Counts, Ledger, Meter
from orchestration.inputs.real_paths import resolve_task_paths
from orchestration.inputs.screened_experiment import Screening
from orchestration.inputs.screened_tasks import screened_task
from orchestration.inputs.task_teachers import TaskTeacher
from orchestration.inputs.teachers import Teacher
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.run import Journal, Written
from orchestration.pipeline.tasks.experiment import TaskEnded, TaskExperiment, Until
from orchestration.pipeline.tasks.generative_teaching import GenerativeTeaching
from orchestration.pipeline.tasks.head_teaching import HeadTeaching
from orchestration.pipeline.tasks.run import TaskRun
from orchestration.plan.hardware import Hardware, HostMemory
from student_train.files import copy_companions, staged_directory
from student_train.job import StepMetrics, TaskJob
from teacher_server.features import SignalModel

TASK = {
    "name": "moods",
    "kind": "classification",
    "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
    "fields": {"label": "label"},
    "labels": ["good", "bad"],
    "template": "{{ text }}",
}

TEXTS = {
    "train": ["sun", "rain", "sun rain", "rain sun", "sun sun oslo", "rain oslo"],
    "dev": ["sun rome", "rain rome"],
    "test": ["sun where", "rain where"],
}

TRANSFER = ["oslo sun", "rome rain", "rome"]

STAGE = {"objective": "logit_mse", "data": ["train", "transfer"], "epochs": 1.0, "batch_size": 4}


@dataclass
class FakeWorkers:
    """Worker groups that train nothing: an eighth is added to every weight of the start."""

    jobs: list[TaskJob] = field(default_factory=list)
    clusters: int = 0

    def need_cluster(self) -> None:
        self.clusters += 1

    def room(self) -> Any:
        return nullcontext()

    def train(self, job: TaskJob, *, on_step: Any) -> dict[str, object]:
        self.jobs.append(job)
        job.work_dir.mkdir(parents=True, exist_ok=True)
        curve = [{"step": at, "values": {"dev/loss": 2.0 - at, "dev/accuracy": 0.5 * at}} for at in (0, 1)]
        (job.work_dir / CURVES).write_text("".join(json.dumps(row) + "\n" for row in curve))
        for row in curve:
            on_step(StepMetrics(row["step"], row["values"]))
        with staged_directory(job.output_dir) as staging:
            copy_companions(job.model_dir, staging)
            shutil.copy(job.model_dir / "config.json", staging / "config.json")
            weights = load_file(job.model_dir / "model.safetensors")
            save_file({name: tensor + 0.125 for name, tensor in weights.items()}, staging / "model.safetensors")
        return {"selected_step": 1, "steps": 1, "tokens": 9}


@dataclass
class LocalEngines:
    """The real model in this process."""

    teacher: TaskTeacher
    called: list[str]

    def check(self, requests: Sequence[SignalRequest]) -> None:
        self.called.append(f"check {len(requests)}")

    def fill(
        self,
        work: Iterable[tuple[int, SignalRequest]],
        order: FillOrder,
        *,
        progress: Any,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        items = list(work)
        self.called.append(f"fill {len(items)}")
        store = TeacherCache.open(order.cache_root, self.teacher.identity, provenance=order.provenance).signals
        answers = SignalModel(self.teacher.directory, self.teacher.identity).signals(request for _, request in items)
        records = [record for _, record in answers if isinstance(record, SignalRecord)]
        for width in {record.width for record in records}:
            store.put([record for record in records if record.width == width], encoding=str(order.encoding))
        Meter(order.ledger).add(Counts(fill=sum(len(record.token_ids) for record in records)))
        return FillProgress(rows=len(records), committed_rows=len(records))

    def release(self) -> None:
        self.called.append("release")


@dataclass
class TaskPlace:
    """A folder with a task, unlabelled texts and a teacher; and what came of the runs in it."""

    root: Path
    values: dict[str, Any]
    stream: io.StringIO = field(default_factory=io.StringIO)
    tracker: NotedTracker = field(default_factory=NotedTracker)
    memory: HostMemory | None = None
    workers: FakeWorkers = field(default_factory=FakeWorkers)
    called: list[str] = field(default_factory=list)
    speaks: dict[str, Any] = field(default_factory=dict)
    """What a language model says (`speaking_engines.Speaker`)."""

    @property
    def config(self) -> TaskDistillConfig:
        return TaskDistillConfig.model_validate(self.values)

    @property
    def run(self) -> TaskRun:
        directory = self.root / "runs/moods-1"
        directory.mkdir(parents=True, exist_ok=True)
        real = resolve_task_paths(self.config, config_dir=self.root)
        return TaskRun(real, directory, Hardware("cpu", cpus=2, memory=self.memory), Artifacts(self.root / "runs"))

    @property
    def journal(self) -> Journal:
        tracker: Any = self.tracker
        return Journal(Console(self.stream), tracker, Ledger.open(self.root / "runs/moods-1"))

    def experiment(self) -> TaskExperiment:
        config, workers = self.config, self.workers
        written = Written(config, self.root, content_of(config, config_dir=self.root))
        fake: Any = workers
        run, journal = self.run, self.journal
        screened = screened_task(run.config, Screening(self.root / "runs/screened", say=journal.console.say))
        run = replace(run, config=screened.config)
        return TaskExperiment(written, run, journal, fake, teaching=self.teaching, screened=screened.splits)

    def teaching(self, run: TaskRun, journal: Journal, workers: Any) -> HeadTeaching | GenerativeTeaching:
        if run.config.teacher.answers == "head":
            return HeadTeaching(run, journal, workers, engines=lambda teacher: LocalEngines(teacher, self.called))

        def engines(teacher: Teacher) -> Any:
            return Speaker(teacher.files, teacher.identity, called=self.called, **self.speaks)

        return GenerativeTeaching(run, journal, workers, engines=engines)

    def change_task(self, **changes: Any) -> None:
        """Write the file of the task anew, with other keys."""
        (self.root / "moods.yaml").write_text(json.dumps({**TASK, **changes}))

    def go(self, until: Until) -> TaskEnded:
        return self.experiment().run(until=until)

    @property
    def said(self) -> str:
        return self.stream.getvalue()


def task_place(root: Path, **values: Any) -> TaskPlace:
    """An experiment whose teacher finds texts good that begin with `sun`."""
    for split, texts in TEXTS.items():
        rows = [{"text": text, "label": "good" if text.startswith("sun") else "bad"} for text in texts]
        (root / f"{split}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (root / "transfer.jsonl").write_text("".join(json.dumps({"text": text}) + "\n" for text in TRANSFER))
    (root / "moods.yaml").write_text(json.dumps(TASK))
    save_classifier(root / "teacher")
    places = {"cache_root": "cache", "run_root": "runs", "models_root": "models"}
    plain = {
        "name": "moods",
        "task": "moods.yaml",
        "teacher": {"model": {"path": str(root / "teacher")}, "max_tokens": 16},
        "data": {"transfer": [{"path": "transfer.jsonl"}]},
        "students": {"bag": {"start": {"kind": "bag", "embedding_size": 4}, "stages": [STAGE]}},
        "runtime": {key: str(root / name) for key, name in places.items()} | {"accelerator": "cpu"},
    }
    return TaskPlace(root, plain | values)


def spoken_place(root: Path, *, answers: str, stage: dict[str, Any], **teacher: Any) -> TaskPlace:
    """The same with a language model of random weights, which finds texts good that begin with `sun`."""
    model = {"random": SHAPE.model_dump(mode="json")}
    place = task_place(root, teacher={"model": model, "answers": answers, **teacher})
    place.change_task(chat=False, template="{{ text }} is")
    place.values["runtime"]["teacher_engine"] = {"max_model_len": 128}
    place.values["students"]["bag"]["stages"] = [STAGE | stage]

    def likes(prompt: str, more: str) -> float:
        return -0.5 if ("good" in more) == prompt.startswith("sun") else -2.0

    place.speaks = {"says": lambda prompt: "good" if prompt.startswith("sun") else "bad, clearly", "likes": likes}
    return place
