"""A stage in training, with an engine that only writes a file: what is reported, kept and read back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from alone import ALONE
from safetensors.torch import load_file
from torch import Tensor, nn
from training_jobs import make_job, variant

from configs.errors import ConfigError
from student_train.job import StepMetrics, TrainJob
from student_train.losses.metrics import METRICS
from student_train.training.shares import ShareFile
from student_train.training.state import BEST, TrainingState
from student_train.training.stopping import StopRequest
from student_train.training.worker import StageWorker


class Engine:
    """Stands in for DeepSpeed; `weight` is all that it trains."""

    weight = 0.0

    def save(self, folder: Path) -> list[ShareFile]:
        taken = str(self.weight)
        return [ShareFile(folder / "shard", lambda path: path.write_text(taken))]

    def load(self, folder: Path) -> None:
        self.weight = float((folder / "shard").read_text())

    def whole_weights(self, _: object) -> dict[str, Tensor]:
        return {"w": torch.tensor(self.weight)}


class Stage:
    """A stage that can be started again in the same place."""

    def __init__(self, job: TrainJob, *, data: str = "d") -> None:
        self.reported: list[StepMetrics] = []
        self.engine: Any = Engine()
        worker = StageWorker(
            job=job,
            group=ALONE,
            engine=self.engine,
            model=nn.Identity(),
            stop=StopRequest(lambda: False, group=ALONE),
        )
        self.state = TrainingState(worker, data_digest=data, report=self.reported.append)

    def save(self) -> None:
        self.state.save()
        self.state.settle()

    def step(self, loss: float | None = None, *, skipped: bool = False) -> None:
        self.engine.weight += 1.0
        self.state.advance(tokens=10, skipped=skipped)
        self.state.report({"train/loss": 1.0})
        if loss is not None:
            self.state.add_measurement({"dev/loss": loss})


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture
def place(job: TrainJob, tmp_path: Path) -> TrainJob:
    return variant(job, tmp_path)


def test_skipped_steps_in_a_row_start_again_after_a_sound_one(place: TrainJob) -> None:
    stage = Stage(place)
    for skipped in (True, True, False, True):
        stage.step(skipped=skipped)
    state = stage.state
    assert (state.step, state.tokens, state.skipped, state.skipped_in_a_row) == (4, 40, 3, 1)


def test_another_process_goes_on_and_reports_again_what_the_tracker_may_lack(place: TrainJob) -> None:
    stage = Stage(place)
    stage.step(3.0)
    stage.save()
    stage.step(2.0)
    stage.step()
    stage.save()
    again = Stage(place)
    again.state.resume()
    state = again.state
    assert (state.step, state.tokens, again.engine.weight) == (3, 30, 3.0)
    assert [at.values["dev/loss"] for at in state.measured] == [3.0, 2.0]
    assert again.reported == stage.reported[2:]
    # A checkpoint that says the same is not written anew.
    state.save()
    assert state.newest == stage.state.newest


def test_the_weights_of_the_best_step_stay_while_training_goes_on(place: TrainJob) -> None:
    stage = Stage(place)
    for loss in (3.0, 2.0, 2.5, 4.0):
        stage.step(loss)
        stage.save()
    assert stage.state.selected_step == 2
    weights = stage.state.selected_weights()
    assert weights is not None and float(weights["w"]) == 2.0
    assert stage.state.newest is not None
    assert float(load_file(stage.state.newest / BEST)["w"]) == 2.0


def test_a_stage_that_takes_the_last_step_keeps_no_other_weights(job: TrainJob, tmp_path: Path) -> None:
    stage = Stage(variant(job, tmp_path, stage={"select": "last"}))
    stage.step(1.0)
    stage.step(9.0)
    stage.save()
    assert stage.state.best is None and stage.state.selected_step == 2
    weights = stage.state.selected_weights()
    assert weights is not None and float(weights["w"]) == 2.0
    assert stage.state.newest is not None and not (stage.state.newest / BEST).exists()


def test_a_checkpoint_of_another_stage_is_not_gone_on_from(place: TrainJob) -> None:
    stage = Stage(place)
    stage.step()
    stage.save()
    other = Stage(variant(place, place.work_dir.parent, stage={"learning_rate": 1e-4}))
    with pytest.raises(ConfigError, match="undo the change"):
        other.state.resume()


def test_a_checkpoint_of_other_data_is_not_gone_on_from(place: TrainJob) -> None:
    stage = Stage(place)
    stage.step()
    stage.save()
    with pytest.raises(ConfigError, match="was trained on view d, this run reads e"):
        Stage(place, data="e").state.resume()


def test_what_was_learned_since_a_measurement_is_not_lost_between_processes(place: TrainJob) -> None:
    def learn(stage: Stage, loss: float) -> None:
        stage.step()
        stage.state.learn([loss] * len(METRICS), known={"loss": 3})

    whole, broken = Stage(place), Stage(variant(place, place.work_dir / "broken"))
    for stage in (whole, broken):
        stage.step(5.0)
        stage.save()
        learn(stage, 0.1)
        learn(stage, 0.2)
    broken.save()
    again = Stage(variant(place, place.work_dir / "broken"))
    again.state.resume()
    for stage in (whole, again):
        learn(stage, 0.7)
        stage.step(2.0)
        stage.step(1.0)
    assert whole.state.measured == again.state.measured
    first, second, third = (at.values for at in whole.state.measured)
    assert second["train/measured_loss"] == (0.1 + 0.2 + 0.7) / 9
    assert second["train/cache_overfit"] == 2.0 - second["train/measured_loss"]
    # Nothing was learned before the first, and since the second.
    assert (first, third) == ({"dev/loss": 5.0}, {"dev/loss": 1.0})
