"""A worker group and engines on the same GPUs: room for one of each, what is refused, and who sleeps when."""

from __future__ import annotations

from dataclasses import replace
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from local_engines import IDENTITY, VOCAB

from cache import TeacherIdentity
from configs import ConfigError, EngineError
from configs.schema import DistillConfig, ModelShape, TrainingSettings
from orchestration.cluster import engine_pool as ray_pool
from orchestration.cluster import worker_group as ray_train
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.cluster.worker_group import PLACED, train_in_group
from orchestration.fill.ledger import Ledger
from orchestration.inputs.shapes import PlannedShape
from orchestration.pipeline import rollout_maker as rollouts
from orchestration.pipeline import run as context
from orchestration.pipeline.rollout_maker import RolloutMaker
from orchestration.pipeline.run import Run
from orchestration.plan.colocation import GPU_SHARES
from orchestration.plan.hardware import Hardware
from orchestration.plan.memory import GIB, MemoryFit
from orchestration.plan.placement import plan_placement
from student_train.handoff.rollouts import RolloutExchange

SHAPE = PlannedShape("model", ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000), assumed=False)
LARGE = ModelShape(layers=32, hidden=4096, heads=32, kv_heads=8, mlp=14336, vocab=32000)
"""7.24 G parameters: 13.5 GiB in bfloat16, and 125 GiB of state to train them on one GPU."""


def experiment(*, ahead: bool = False, **runtime: Any) -> DistillConfig:
    stage = {"objective": "minillm", "rollout": {"count": 2, "ahead": ahead}}
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {"small": {"init": {"keep_layers": 2}, "stages": [stage]}},
            "runtime": {"colocate": True} | runtime,
        }
    )


def plan(config: DistillConfig, *, gpus: int, nodes: int = 1, student: PlannedShape = SHAPE) -> dict[str, MemoryFit]:
    hardware = Hardware("gpu", nodes, gpus, config.runtime.gpu_memory_gib)
    placement = plan_placement(config, teacher=SHAPE, students={"small": student}, hardware=hardware)
    return {fit.label: fit for fit in placement.fits}


def test_a_gpu_has_room_for_one_of_each_kind() -> None:
    """Every content of a GPU with a worker on it that Ray's books allow, in hundredths."""
    shares = {role: round(100 * share) for role, share in GPU_SHARES.items()}
    worker, teacher, student = (shares[role] for role in ("training worker", "teacher engine", "student engine"))
    assert worker + teacher + student == 100 < 2 * worker
    held = {(t, s) for t, s in product(range(5), range(7)) if worker + t * teacher + s * student <= 100}
    # Two student's engines only where there is none of the teacher's: memory is planned for that.
    assert held == {(0, 0), (0, 1), (0, 2), (1, 0), (1, 1)}


def test_engines_and_workers_share_gpus() -> None:
    three: dict[str, Any] = {"training": {"workers": 3}, "teacher_engine": {"count": 2}, "student_engine": {"count": 3}}
    assert "shared GPU, small" in plan(experiment(**three), gpus=3)
    assert plan(experiment(training={"workers": 1}), gpus=1)
    assert plan(experiment(training={"workers": 4}), gpus=2, nodes=2)
    with pytest.raises(ConfigError, match=r"on 8 GPUs at once.* there are 3: .* set runtime\.colocate: true"):
        plan(experiment(colocate=False, **three), gpus=3)


def test_on_cpus_there_is_nothing_to_share() -> None:
    config = experiment(ahead=True, student_engine={"count": 3}, training={"workers": 1})
    placement = plan_placement(config, teacher=SHAPE, students={"small": SHAPE}, hardware=Hardware("cpu"))
    assert not any(fit.label.startswith("shared") for fit in placement.fits)


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"ahead": True}, ["students.small.stages.0.rollout.ahead=true", "runtime.colocate=true", "remove one"]),
        ({"teacher_engine": {"tensor_parallel": 2}}, ["runtime.teacher_engine.tensor_parallel=2", "set it to 1"]),
        ({"student_engine": {"tensor_parallel": 2}}, ["runtime.student_engine.tensor_parallel=2", "colocate: false"]),
        ({"student_engine": {"count": 3}}, ["runtime.student_engine.count=3", "workers=2", "lower the first"]),
        ({"training": {"weight_sync": "broadcast"}}, ["weight_sync=broadcast", "NCCL", "set weight_sync: files"]),
        ({"nodes": 2}, ["runtime.training.workers=2", "runtime.nodes=2", "set workers to 8, or lower nodes"]),
    ],
)
def test_what_cannot_be_shared_names_keys_values_and_cure(changed: dict[str, Any], words: list[str]) -> None:
    config = experiment(**changed)
    with pytest.raises(ConfigError) as caught:
        plan(config, gpus=4, nodes=config.runtime.nodes)
    for word in words:
        assert word in str(caught.value)


def test_the_worse_of_writing_and_training_has_to_fit() -> None:
    def needed(**runtime: Any) -> tuple[MemoryFit, dict[str, MemoryFit]]:
        fits = plan(experiment(training={"workers": 1}, **runtime), gpus=1)
        return fits["shared GPU, small"], fits

    writing, fits = needed(teacher_engine={"kv_cache_gib": 20}, student_engine={"kv_cache_gib": 10})
    engines = fits["teacher engine"].total_bytes + fits["student engine, small"].total_bytes
    kept = [item for item in fits["training worker, small"].items if item.name != "activations"]
    assert writing.total_bytes == engines + sum(item.size_bytes for item in kept)
    assert [item.name for item in writing.items] == [*(item.name for item in kept), "engines"]

    several: dict[str, Any] = {"training": {"workers": 2}, "student_engine": {"count": 2, "kv_cache_gib": 20}}
    fits = plan(experiment(**several), gpus=2)
    # One of two GPUs may hold both of the student's engines, which are larger here than the teacher's.
    assert fits["shared GPU, small"].items[-1].size_bytes == 2 * fits["student engine, small"].total_bytes

    training, fits = needed(teacher_engine={"kv_cache_gib": 0.01}, student_engine={"kv_cache_gib": 0.01})
    assert training.total_bytes == fits["training worker, small"].total_bytes + 2 * 3 * GIB
    assert "asleep" in training.items[-1].arithmetic


def test_what_does_not_fit_together_is_refused() -> None:
    """The state takes 125 GiB, the student's engine 18, the teacher's 4 or 30; 152 are usable."""
    large = PlannedShape("large", LARGE, assumed=False)
    runtime: dict[str, Any] = {"training": {"workers": 1, "micro_batch_tokens": 512}, "gpu_memory_gib": 160.0}
    engine = {"kv_cache_gib": 27.0}
    assert plan(experiment(**runtime), gpus=1, student=large)
    with pytest.raises(ConfigError, match=r"shared GPU, small needs 173\.7.*engine\.kv_cache_gib=27 .*colocate: false"):
        plan(experiment(**runtime, teacher_engine=engine), gpus=1, student=large)


class Told:
    """An engine's actor that only writes down what it is told."""

    def __init__(self, who: str, calls: list[str]) -> None:
        self._who, self._calls = who, calls

    def __getattr__(self, name: str) -> Any:
        return SimpleNamespace(remote=lambda *_, **__: self._calls.append(f"{self._who} {name}"))


class Pool(EnginePool):
    """The real pool, without Ray."""

    def ask(self, references: list[Any]) -> list[Any]:
        return references

    def release(self) -> None:
        self._actors = []


def recorded_maker(folder: Path, calls: list[str], *, colocate: bool, patch: pytest.MonkeyPatch) -> RolloutMaker:
    """The real maker and its real pools; engines, commits and what is written are only noted in `calls`."""

    def options(*, num_gpus: float, num_cpus: float, **_: object) -> Any:
        assert num_cpus == 0

        def start(spec: EngineSpec, *, index: int) -> Told:
            calls.append(f"{spec.name} starts on {num_gpus:g} of GPU {index}")
            return Told(spec.name.removesuffix("-engine"), calls)

        return SimpleNamespace(remote=start)

    def commit(exchange: RolloutExchange, number: int) -> None:
        calls.append(f"commit {number}")
        (exchange.rollouts / f"rollout-{number:03d}").mkdir(parents=True)

    def identity(files: Any, **_: object) -> TeacherIdentity:
        return replace(IDENTITY, weights_sha256=files.directory.name)

    def write(maker: Any, version: int) -> int:
        maker._bring(version)
        calls.append(f"write by {version}")
        return version

    patch.setattr(rollouts, "identity_of", identity)
    patch.setattr(context, "EnginePool", Pool)
    patch.setattr(ray_pool, "EngineActor", SimpleNamespace(options=options))
    patch.setattr(rollouts, "open_model", lambda directory, **_: _files(directory))
    patch.setattr(RolloutExchange, "commit", commit)
    patch.setattr(RolloutMaker, "_write", write)
    config, nothing = experiment(colocate=colocate), cast(Any, None)
    run = Run(config, folder, Hardware("gpu"), nothing, nothing, nothing, Ledger(folder / "ledger"))
    teacher = SimpleNamespace(files=_files(folder), identity=IDENTITY)
    stage = config.students["small"].stages[0]
    link: Any = SimpleNamespace(stage=stage, work_dir=folder, start_dir=folder / "start", origin="start")
    prompts: Any = SimpleNamespace(splits={"train": [], "dev": []})
    return RolloutMaker(run, link, lesson=cast(Any, SimpleNamespace(teacher=teacher)), prompts=prompts)


def _files(directory: Path) -> SimpleNamespace:
    return SimpleNamespace(directory=directory, vocab=VOCAB, label=SHAPE.label, shape=SHAPE.shape)


STARTS = [
    "teacher-engine starts on 0.25 of GPU 0", "teacher ready",
    "student-engine starts on 0.15 of GPU 0", "student ready",
]  # fmt: skip
SLEEP = ["teacher sleep", "student sleep"]


def test_engines_sleep_while_the_group_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    maker = recorded_maker(tmp_path, calls, colocate=True, patch=monkeypatch)
    maker.make_due()
    assert calls == [*STARTS, "write by 0", *SLEEP, "commit 0"]
    calls.clear()
    maker.make_due()
    assert calls == []
    RolloutExchange(tmp_path).publish(1, write=lambda _: None)
    maker.make_due()
    assert calls == ["teacher wake", "student wake", "student load", "write by 1", *SLEEP, "commit 1"]


def test_engines_with_gpus_of_their_own_stay_awake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    maker = recorded_maker(tmp_path, calls, colocate=False, patch=monkeypatch)
    RolloutExchange(tmp_path).publish(1, write=lambda _: None)
    maker.make_due()
    maker.make_due()
    starts = [call.replace("0.25", "1").replace("0.15", "1") for call in STARTS]
    assert calls == [*starts, "write by 0", "commit 0", "student load", "write by 1", "commit 1"]


def test_engines_that_cannot_fall_asleep_are_started_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    maker = recorded_maker(tmp_path, calls, colocate=True, patch=monkeypatch)

    def asked(pool: Pool, references: list[Any]) -> list[Any]:
        if calls[-1] == "student sleep":
            pool.release()
            raise EngineError("it died")
        return references

    monkeypatch.setattr(Pool, "ask", asked)
    maker.make_due()
    assert calls[-3:] == [*SLEEP, "commit 0"]
    calls.clear()
    RolloutExchange(tmp_path).publish(1, write=lambda _: None)
    maker.make_due()
    assert calls[:4] == ["teacher wake", *STARTS[2:], "student load"]


@pytest.mark.parametrize(("share", "called"), [(1.0, [1, 2, 3, 4]), (0.6, [3, 4])])
def test_engines_wait_until_the_workers_have_their_places(
    share: float, called: list[int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    polls: list[int] = []

    class WorkerGroup:
        def __init__(self, *_: object, gpu_share: float, **__: object) -> None:
            assert gpu_share == share

        def running(self, _: float) -> bool:
            polls.append(len(polls) + 1)
            if polls[-1] == 3:
                (tmp_path / PLACED).touch()
            (tmp_path / "result.json").write_text("{}")
            return polls[-1] < 5

        def raise_failure(self) -> None:
            """Nothing went wrong."""

    monkeypatch.setattr(ray_train, "_WorkerGroup", WorkerGroup)
    (tmp_path / PLACED).touch()
    found: list[int] = []
    job: Any = SimpleNamespace(work_dir=tmp_path)
    train_in_group(
        job,
        log_dir=tmp_path,
        accelerator="gpu",
        on_step=lambda _: None,
        meanwhile=lambda: found.append(polls[-1]),
        gpu_share=share,
    )
    assert found == called


def test_a_worker_takes_its_share_of_a_gpu(tmp_path: Path) -> None:
    job: Any = SimpleNamespace(settings=TrainingSettings(workers=2), work_dir=tmp_path)
    trainer = ray_train._trainer(job, log_dir=tmp_path, accelerator="gpu", gpu_share=GPU_SHARES["training worker"])
    scaling = trainer.scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker) == (2, {"CPU": 1.0, "GPU": 0.6})
