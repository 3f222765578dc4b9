"""A whole experiment without Ray, MLflow and vLLM: tiny real models, a real cache, console, ledger and run root.

What computes is a fake: engines answer as `FakeTeacher` does, a worker group copies its start and writes a curve.
"""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from belief_builders import random_beliefs
from local_engines import lease_queue

from cache import ScoreRequest, TeacherCache, TeacherIdentity
from configs import DistillConfig, DistillError
from configs.models import ModelShape, ModelSource
from configs.places import CURVES
from configs.stages import StageConfig
from evaluation.closeness import closeness_of
from evaluation.exposure import exposure_of
from evaluation.results import Closeness, Exposure
from orchestration.cluster.calibration import DeriveJob
from orchestration.cluster.engines import TimedAnswers
from orchestration.cluster.exposure_scoring import ExposureJob
from orchestration.cluster.scoring import ScoringJob
from orchestration.comparison.report import Report
from orchestration.fill.answers import SequenceAnswers
from orchestration.fill.engine_loop import EngineLoop, FillOrder, FillProgress
from orchestration.fill.ledger import Ledger
from orchestration.fill.refusals import open_refusals
from orchestration.inputs.asked_prompts import read_prompts
from orchestration.inputs.models import ModelFiles, materialise, open_model
from orchestration.inputs.planted_rows import planted_data
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher, open_cache, open_teacher
from orchestration.outputs.artifacts import Artifacts
from orchestration.outputs.console import Console
from orchestration.outputs.foundations import content_of
from orchestration.pipeline.chain import Link, Student
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.experiment import Experiment, Until
from orchestration.pipeline.fill_stage import AskedTeacher
from orchestration.pipeline.lessons import Lesson, pin_lesson
from orchestration.pipeline.reading import FoundInData
from orchestration.pipeline.run import Journal, RunSettings, Written
from orchestration.pipeline.session import Session
from orchestration.pipeline.starts import Start
from orchestration.plan.hardware import Hardware
from orchestration.plan.requests import plan_fill, sequence_sets
from orchestration.tracking.tracker import TrackedModel
from student_train.files import copy_companions, staged_directory
from student_train.job import StepMetrics, TrainJob
from student_train.starts.derive import derive_student
from teacher_server import FakeTeacher
from teacher_server.occupancy import Occupancy

SHAPE = ModelShape(layers=2, hidden=16, heads=2, kv_heads=1, mlp=32, vocab=272, tied_embeddings=True, max_positions=64)
SIZES = {"train": 3, "dev": 2, "test": 2}
CLOSENESS = closeness_of([random_beliefs(1, rows=5), random_beliefs(2, rows=3)])
"""What every model scores on the held-out answers."""

KD = {"objective": "kd", "steps": 4, "dtype": "float32"}


def experiment(root: Path, **blocks: Any) -> DistillConfig:
    """A random teacher, seven prompts, one student of its first layer; `blocks` take the place of these."""
    for split, rows in SIZES.items():
        text = "".join(json.dumps({"prompt": f"{split} {number}"}) + "\n" for number in range(rows))
        if not (root / f"{split}.jsonl").exists():
            (root / f"{split}.jsonl").write_text(text)
    limits = {"max_model_len": 64, "max_batched_tokens": 64, "count": 1}
    runtime = {
        "accelerator": "cpu",
        "teacher_engine": limits,
        "student_engine": limits,
        **{name: str(root / name) for name in ("cache_root", "run_root", "models_root")},
    }
    wanted = {
        "name": "fake",
        "teacher": {"model": {"random": SHAPE.model_dump(), "seed": 0}, "dtype": "float32", "top_k": 4},
        "data": {**{split: {"path": str(root / f"{split}.jsonl")} for split in SIZES}, "max_prompt_tokens": 32},
        "generation": {"temperature": 0.0, "max_new_tokens": 6},
        "students": {"kd": {"init": {"keep_layers": 1}, "stages": [KD]}},
        "runtime": runtime | blocks.pop("runtime", {}),
    }
    return DistillConfig.model_validate(wanted | blocks)


@dataclass
class NotedTracker:
    """A tracker that notes what it is told, in order."""

    told: list[tuple[Any, ...]] = field(default_factory=list)

    def require_usable(self, *, at_most_s: float) -> None:
        self.told.append(("usable",))

    def start(
        self, name: str, *, params: Mapping[str, object], tags: Mapping[str, str], below: Path | None = None
    ) -> None:
        self.told.append(("start", name, dict(tags)))

    def child(self, run: str, *, params: Mapping[str, object], tags: Mapping[str, str], dataset: Any = None) -> None:
        self.told.append(("child", run, dict(tags), dataset))

    def log(self, run: str, points: Any) -> None:
        self.told += [("point", run, each.name, each.value, each.step) for each in points]

    def log_final(self, run: str, values: Mapping[str, float]) -> None:
        self.told.append(("final", run, dict(values)))

    def finish(self, run: str, *, status: str = "FINISHED") -> None:
        self.told.append(("finish", run, status))

    def finish_all(self, *, status: str) -> None:
        self.told.append(("finish all", status))

    def artifact(self, run: str, path: Path) -> None:
        self.told.append(("artifact", run, path.name))

    def note(self, run: str, text: str) -> None:
        self.told.append(("note", run, text))

    def model(self, run: str, model: TrackedModel) -> None:
        self.told.append(("model", run, model))

    def flush(self) -> None:
        self.told.append(("flush",))

    def of(self, kind: str, run: str | None = None) -> list[tuple[Any, ...]]:
        """What was told of one kind, without its name."""
        return [each[1:] for each in self.told if each[0] == kind and (run is None or each[1] == run)]


class FakePool:
    """Engines of one model in this process; those of another `seed` believe other things."""

    def __init__(self, identity: TeacherIdentity, *, files: ModelFiles, seed: int = 0) -> None:
        self.identity, self.vocab, self.seed = identity, files.vocab, seed
        self._longest = files.shape.max_positions
        self._eos = files.stop_ids[0]
        self.called: list[str] = []
        self.on_check: Callable[[], None] = lambda: None
        self.on_fill: Callable[[], None] = lambda: None

    @property
    def source(self) -> FakeTeacher:
        return FakeTeacher(
            self.identity, vocab=self.vocab, seed=self.seed, eos_id=self._eos, max_model_len=self._longest
        )

    def begin(self) -> None:
        self.called.append("begin")

    def check(self, prompts: Sequence[Any], *, stop_ids: Any, bos_id: Any, reference: Any) -> None:
        self.called.append(f"check {len(prompts)}")
        self.on_check()

    def fill(
        self, work: Iterable[Any], order: FillOrder, *, progress: Any, token_budget: Any, seconds_budget: Any
    ) -> FillProgress:
        items = list(work)
        self.called.append(f"fill {len(items)}")
        self.on_fill()
        queue = lease_queue(items, token_budget=token_budget)
        cache = TeacherCache.open(order.cache_root, self.identity)
        with cache.writer(
            vocab=self.vocab, licence=order.licence, provenance=order.provenance, encoding=order.encoding
        ) as writer:
            EngineLoop(queue, order, SequenceAnswers(self.source, writer, k=order.k)).work()
        done: FillProgress = queue.progress()
        progress.update(done.rows, tokens=done.response_tokens)
        return done

    def answer(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        score = isinstance(requests[0], ScoreRequest)
        self.called.append(f"answer {len(requests)} {'score' if score else 'write'}")
        asked = self.source.score if score else self.source.generate
        outcomes = dict(asked(list(requests), k=max(k, 1)))
        return TimedAnswers(tuple(outcomes[at] for at in range(len(requests))), 2.0, "a fake")

    def answer_alone(self, requests: Sequence[Any], *, k: int) -> TimedAnswers:
        return self.answer(requests, k=k)

    def forget_prefixes(self) -> None:
        """It keeps none."""

    def occupancy(self) -> Occupancy:
        return Occupancy(10**6, 0)

    def load(self, model_dir: Path, identity: TeacherIdentity) -> None:
        self.called.append(f"load {model_dir.name}")
        self.identity = identity

    def release(self) -> None:
        self.called.append("release")


class FakeCompute(Compute):
    """Notes what it is asked for; `losses` are the held-out losses of every training, one a step."""

    def __init__(self, settings: RunSettings, journal: Journal) -> None:
        super().__init__(settings, journal, Session(settings.directory))
        self.called: list[str] = []
        self.jobs: list[TrainJob] = []
        self.pools: list[FakePool] = []
        self.losses: tuple[float, ...] = (2.0, 1.5, 1.0)
        self.on_train: Callable[[TrainJob], None] = lambda job: None
        self.on_score: Callable[[], None] = lambda: None
        self.unscorable: dict[str, DistillError] = {}
        self.seeds: dict[str, int] = {}

    def need_cluster(self) -> None:
        self.called.append("cluster")

    def teacher_pool(self, teacher: Teacher) -> Any:
        if teacher.door is not None:
            return super().teacher_pool(teacher)
        # Every teacher believes something of its own, by whatever name it is asked.
        seed = self.seeds.setdefault(teacher.identity.digest(), len(self.seeds))
        pool: Any = FakePool(teacher.identity, files=teacher.files, seed=seed)
        self.pools.append(pool)
        self._pools.append(pool)
        return pool

    def student_pool(self, files: ModelFiles, identity: TeacherIdentity) -> Any:
        self.called.append(f"student pool {files.label}")
        self.pools.append(FakePool(identity, files=files))
        return self.pools[-1]

    def train(self, job: TrainJob, *, on_step: Any, meanwhile: Any = None, gpu_share: float = 1.0) -> dict[str, object]:
        self.called.append(f"train {job.stage.objective}")
        self.jobs.append(job)
        self.on_train(job)
        if meanwhile is not None:
            meanwhile()
        return export(job, losses=self.losses, on_step=on_step)

    def derive(self, job: DeriveJob) -> None:
        self.called.append("derive")
        derive_student(job.teacher_dir, job.out_dir, keep_layers=(0,))

    def score(self, jobs: list[ScoringJob]) -> list[Closeness | DistillError]:
        self.called.append(f"score {len(jobs)}")
        self.on_score()
        return [self.unscorable.get(job.model_dir.name, CLOSENESS) for job in jobs]

    def score_exposure(self, job: ExposureJob) -> list[Exposure | DistillError]:
        self.called.append(f"exposure {len(job.models)}")
        self.on_score()
        found: list[Exposure | DistillError] = []
        for each in job.models:
            free, forced = (
                [np.ones(len(one.token_ids) - one.prompt_len) for one in sequences]
                for sequences in (each.free, each.forced)
            )
            found.append(self.unscorable.get(each.model_dir.name) or exposure_of(free, forced, free))
        return found


def export(
    job: TrainJob, *, losses: Sequence[float], on_step: Callable[[StepMetrics], None] = lambda _: None
) -> dict[str, object]:
    """What a worker group leaves: a curve, and the start as the trained model."""
    curve = [StepMetrics(step, {"dev/loss": loss, "train/tokens": 10.0 * step}) for step, loss in enumerate(losses)]
    job.work_dir.mkdir(parents=True, exist_ok=True)
    rows = [json.dumps({"step": each.step, "values": dict(each.values)}) + "\n" for each in curve]
    (job.work_dir / CURVES).write_text("".join(rows))
    for metrics in curve:
        on_step(metrics)
    with staged_directory(job.output_dir) as staging:
        copy_companions(job.model_dir, staging)
        for name in ("config.json", "model.safetensors"):
            shutil.copy(job.model_dir / name, staging / name)
    return {"selected_step": len(losses) - 1}


@dataclass
class FakeRun:
    """The parts of one run in a folder, and what it says."""

    root: Path
    config: DistillConfig
    stream: io.StringIO = field(default_factory=io.StringIO)
    tracker: NotedTracker = field(default_factory=NotedTracker)

    def __post_init__(self) -> None:
        directory = self.root / "run_root" / "fake-run"
        directory.mkdir(parents=True, exist_ok=True)
        console, tracker = Console(self.stream), self.tracker
        artifacts = Artifacts(self.root / "run_root", say=console.warn)
        self.planted = planted_data(self.config, root=self.root / "run_root/planted")
        self.settings = RunSettings(self.planted.config, directory, Hardware("cpu", cpus=2), artifacts)
        noted: Any = tracker
        self.journal = Journal(console, noted, Ledger.open(directory))
        self.compute = FakeCompute(self.settings, self.journal)

    @property
    def parts(self) -> dict[str, Any]:
        return {"settings": self.settings, "journal": self.journal, "compute": self.compute}

    @property
    def said(self) -> str:
        return self.stream.getvalue()

    def teacher(self) -> Teacher:
        return open_teacher(self.config)

    def prompts(self, teacher: Teacher) -> PromptSet:
        return read_prompts(self.config, teacher=teacher.files).prompts

    def asked(self, teacher: Teacher, prompts: PromptSet) -> AskedTeacher:
        cache = open_cache(self.config, teacher)
        sets = sequence_sets(self.config, prompts.splits, stop_ids=teacher.files.stop_ids)
        plan = plan_fill(
            sets, cache=cache, refused=open_refusals(self.config.runtime, teacher.identity, k=self.config.teacher.top_k)
        )
        return AskedTeacher(teacher, cache, self.compute.teacher_pool(teacher), plan)

    def lesson(self, teacher: Teacher, prompts: PromptSet) -> Lesson:
        """Everything answered and pinned."""
        asked = self.asked(teacher, prompts)
        fake = FakePool(teacher.identity, files=teacher.files).source
        for part in asked.sets:
            requests: list[Any] = list(part.requests)
            said: list[Any] = list(fake.generate(requests, k=part.k))
            asked.cache.put([(record, requests[at]) for at, record in said], vocab=teacher.files.vocab)
        asked.cache.refresh()
        return pin_lesson(
            asked.sets,
            journal=self.journal,
            teacher=teacher,
            cache=asked.cache,
            stages=self.config.stages_taught_by(None),
            prompts=prompts.splits,
            folder=self.settings.directory / "views",
        )


def widened(prompts: PromptSet) -> PromptSet:
    """These prompts for a teacher that is shown three tokens more than its students."""
    shown = {
        name: tuple(replace(row, wide_ids=(7, 8, 9, *row.prompt_ids)) for row in rows)
        for name, rows in prompts.splits.items()
    }
    return replace(prompts, splits=shown)


def fake_run(root: Path, **blocks: Any) -> FakeRun:
    """A run of `experiment`; its paths are real already."""
    return FakeRun(root, experiment(root, **blocks))


def go(run: FakeRun, *, until: Until = "eval", written: DistillConfig | None = None) -> Report | None:
    """Run it, as far as it is told; the report of a run that went to its end."""
    config = run.config if written is None else written
    content = content_of(config, config_dir=run.root)
    found = FoundInData(planted=run.planted)
    parts = Written(config, run.root, content), run.settings, run.journal, run.compute
    return Experiment(*parts, found=found).run(until=until).report


def model_in(root: Path, *, layers: int = 1, seed: int = 5) -> Path:
    """A random model of its own."""
    source = ModelSource(random=SHAPE.model_copy(update={"layers": layers}), seed=seed)
    return materialise(source, models_root=root / "models_root").directory


def student(name: str, start: Path, end: Path, *dtypes: str) -> Student:
    """A student that was trained in these dtypes, stage by stage, from one model to another."""
    stages = [StageConfig.model_validate({"objective": "kd", "steps": 1, "dtype": dtype}) for dtype in dtypes]
    links = tuple(Link(stage, f"{name}{at}", start, end, end, "") for at, stage in enumerate(stages))
    shape = open_model(start, label=name).shape
    return Student(name, Start("start", start, shape, "a start"), links)


def namespace(**fields: Any) -> Any:
    """Stands for something of which only these fields are read."""
    return SimpleNamespace(**fields)
