"""Who makes rollouts: when engines sleep, wake, are given weights and started anew."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from local_engines import IDENTITY, VOCAB
from pipeline_builders import experiment as tiny_experiment
from pipeline_builders import model_in
from pool_builders import surround

from cache import TeacherIdentity
from configs import EngineError
from configs.schema import DistillConfig, ModelShape
from configs.stages import StageConfig
from orchestration.cluster import engine_pool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.cluster.engines import EngineSpec
from orchestration.fill.ledger import Ledger
from orchestration.inputs.models import open_model
from orchestration.inputs.shapes import PlannedShape
from orchestration.outputs.console import Console
from orchestration.pipeline import rollout_maker
from orchestration.pipeline import workers as workers_module
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.rollout_maker import RolloutMaker
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.pipeline.session import Session
from orchestration.plan.hardware import Hardware
from student_train.handoff.rollouts import RolloutExchange

SHAPE = PlannedShape("model", ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000), assumed=False)


def experiment(*, colocate: bool) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "test",
            "teacher": {"model": {"path": "teacher"}},
            "data": {split: {"path": f"{split}.jsonl"} for split in ("train", "dev", "test")},
            "students": {
                "small": {"init": {"keep_layers": 2}, "stages": [{"objective": "minillm", "rollout": {"count": 2}}]}
            },
            "runtime": {"colocate": colocate},
        }
    )


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

        def start(spec: EngineSpec, *, index: int, **_: object) -> Told:
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

    patch.setattr(rollout_maker, "identity_of", identity)
    patch.setattr(workers_module, "EnginePool", Pool)
    patch.setattr(engine_pool, "EngineActor", SimpleNamespace(options=options))
    surround(patch)
    patch.setattr(rollout_maker, "open_model", lambda directory, **_: _files(directory))
    patch.setattr(RolloutExchange, "commit", commit)
    patch.setattr(RolloutMaker, "_write", write)
    config, nothing = experiment(colocate=colocate), cast(Any, None)
    ledger = Ledger(folder / "ledger")
    settings = RunSettings(config, folder, Hardware("gpu"), nothing)
    compute = Compute(settings, Journal(Console(io.StringIO()), nothing, ledger), Session(folder))
    teacher = SimpleNamespace(files=_files(folder), identity=IDENTITY, by_weights=IDENTITY, door=None)
    stage = config.students["small"].stages[0]
    link: Any = SimpleNamespace(stage=stage, work_dir=folder, start_dir=folder / "start", origin="start")
    prompts: Any = SimpleNamespace(splits={"train": [], "dev": []})
    lesson: Any = SimpleNamespace(teacher=teacher)
    return RolloutMaker(link, config=config, ledger=ledger, compute=compute, lesson=lesson, prompts=prompts)


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


def test_the_memo_of_digests_holds_no_weights_of_a_rollout(tmp_path: Path) -> None:
    model = model_in(tmp_path)
    stage = StageConfig.model_validate({"objective": "minillm", "rollout": {"count": 3}, "dtype": "float32"})
    loaded: list[TeacherIdentity] = []
    engine = SimpleNamespace(start=lambda: None, load=lambda directory, identity: loaded.append(identity))
    compute: Any = SimpleNamespace(rollout_pools=lambda **_: (engine, engine))
    link: Any = SimpleNamespace(stage=stage, work_dir=tmp_path / "work", start_dir=model, origin="start")
    lesson: Any = SimpleNamespace(teacher=SimpleNamespace(files=open_model(model, label="t"), identity=IDENTITY))
    prompts: Any = SimpleNamespace(splits={"train": [], "dev": []})
    config = tiny_experiment(tmp_path)
    ledger = Ledger(tmp_path / "ledger")
    maker = RolloutMaker(link, config=config, ledger=ledger, compute=compute, lesson=lesson, prompts=prompts)
    for version in (1, 2):
        maker._exchange.publish(version, write=lambda folder: shutil.copytree(model, folder, dirs_exist_ok=True))
    for version in (0, 1, 2):
        maker._bring(version)
    assert [identity.dtype for identity in loaded] == ["float32"] * 3
    remembered = json.loads((tmp_path / "models_root" / "fingerprints.json").read_text())["files"]
    assert [Path(path).parent for path in remembered] == [model]
