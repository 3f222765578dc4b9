"""A worker group from the driver's side: its places, its resources, its result and what is said of its failure."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from ray.exceptions import OutOfMemoryError

from configs import TrainingError
from configs.models import ModelSource
from configs.schema import ModelShape, TrainingSettings
from configs.stages import StageConfig
from orchestration.cluster import worker_group
from orchestration.cluster.worker_group import PLACED, train_in_group
from orchestration.inputs.models import materialise
from orchestration.plan.colocation import GPU_SHARES

SHAPE = ModelShape(layers=4, hidden=64, heads=8, kv_heads=2, mlp=128, vocab=1000)
LOG = Path("/runs/x/logs")


def test_a_group_without_memory_names_what_its_workers_were_planned_with(tmp_path: Path) -> None:
    model = materialise(ModelSource(random=SHAPE), models_root=tmp_path)
    group = worker_group._WorkerGroup.__new__(worker_group._WorkerGroup)
    group._job = SimpleNamespace(  # type: ignore[assignment]
        start="m",
        model_dir=model.directory,
        settings=TrainingSettings(workers=1),
        stage=StageConfig(objective="seqkd", steps=1),
    )
    group._log_dir, group._accelerator, group._error = LOG, "cpu", OutOfMemoryError("the node ran low on memory")
    with pytest.raises(TrainingError, match=r"each was planned with 1\.\d GiB, this machine .*micro_batch_tokens="):
        group.raise_failure()


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

    monkeypatch.setattr(worker_group, "_WorkerGroup", WorkerGroup)
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
    trainer = worker_group._trainer(job, log_dir=tmp_path, accelerator="gpu", gpu_share=GPU_SHARES["training worker"])
    scaling = trainer.scaling_config
    assert (scaling.num_workers, scaling.resources_per_worker) == (2, {"CPU": 1.0, "GPU": 0.6})


class Ended:
    """A worker group that has ended by itself."""

    def __init__(self, *_: object, **__: object) -> None:
        """Nothing is started."""

    def running(self, _: float) -> bool:
        return False

    def wait(self, _: float) -> None:
        """It has ended."""

    def raise_failure(self) -> None:
        """Nothing went wrong."""


def train(folder: Path, patch: pytest.MonkeyPatch, *, result: str | None) -> dict[str, object]:
    def started(*_: object, **__: object) -> Ended:
        if result is not None:
            (folder / "result.json").write_text(result)
        return Ended()

    patch.setattr(worker_group, "_WorkerGroup", started)
    job: Any = SimpleNamespace(work_dir=folder)
    return train_in_group(job, log_dir=folder, accelerator="cpu", on_step=lambda _: None, meanwhile=lambda: None)


def test_the_result_is_what_the_leader_wrote_and_not_that_of_an_earlier_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert train(tmp_path, monkeypatch, result='{"steps": 3}') == {"steps": 3}
    with pytest.raises(TrainingError, match="the training ended without a result"):
        train(tmp_path, monkeypatch, result=None)
    with pytest.raises(TrainingError, match=r"result\.json: is not the result of a training"):
        train(tmp_path, monkeypatch, result="[]")


def test_an_interrupt_asks_the_workers_for_a_checkpoint_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[bool] = []

    class InterruptedGroup(Ended):
        def running(self, _: float) -> bool:
            raise KeyboardInterrupt

        def wait(self, _: float) -> None:
            waited.append((tmp_path / "STOP").exists())

    monkeypatch.setattr(worker_group, "_WorkerGroup", InterruptedGroup)
    (tmp_path / "meeting").mkdir()
    job: Any = SimpleNamespace(work_dir=tmp_path)
    with pytest.raises(KeyboardInterrupt):
        train_in_group(job, log_dir=tmp_path, accelerator="cpu", on_step=lambda _: None, meanwhile=lambda: None)
    assert waited == [True]
    assert not (tmp_path / "meeting").exists()
