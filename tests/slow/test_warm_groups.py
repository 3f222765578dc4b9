"""Stages that follow each other in the same processes under Ray: the same bits as in new ones, and what disturbs them."""

from __future__ import annotations

import json
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import meeting_worker
import psutil
import pytest
import ray_driver
from task_jobs import make_task_job, task_variant
from training_jobs import assert_same_bits, make_job, train_all, variant, weights_of

from student_train.job import StageJob, TrainJob

pytestmark = [pytest.mark.slow, pytest.mark.group, pytest.mark.timeout(900)]

ROOT = Path(__file__).parents[2]
STEPS = 12
PLAN = {"epochs": None, "steps": STEPS, "evaluate_every": 5}
VARIANTS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {}),
    ({"objective": "seqkd", "seed": 3}, {}),
    ({"dtype": "bfloat16"}, {"zero_stage": 1}),
    ({"lora": {"rank": 2}}, {"zero_stage": 0}),
    ({}, {"zero_stage": 3}),
)
"""Stages that leave different things behind."""

REPEATED = 5
"""How often the first of them comes again after all: by then everything is imported that they need."""

GROWTH_BYTES = 32 * 2**20
"""How much more a worker may hold after the last stage than after the first that was repeated, of 800 MB."""


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("base"))


def stage(base: TrainJob, folder: Path, number: int, **changes: Any) -> TrainJob:
    """One of several stages, each with a name of its own."""
    job = variant(base, folder / f"stage{number}", **changes)
    return replace(job, work_dir=job.work_dir.with_name(f"work{number}"))


def driven(jobs: Sequence[StageJob], trouble: str, *, folder: Path) -> list[dict[str, Any]]:
    """What a driver says that trains these jobs."""
    file = folder / "jobs.pickle"
    file.write_bytes(pickle.dumps(list(jobs)))
    driver = subprocess.run(
        [sys.executable, ray_driver.__file__, str(file), trouble],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert driver.returncode == (-9 if trouble == "killed" else 0), driver.stderr
    return [json.loads(line) for line in driver.stdout.splitlines() if line.startswith("{")]


def in_new_processes(job: StageJob, folder: Path) -> StageJob:
    """The same stage, trained by processes that train nothing else."""
    alone = replace(job, work_dir=folder / "work", output_dir=folder / "student")
    train_all((alone, {}), folder=folder / "group")
    return alone


def test_stages_in_the_same_processes_end_in_the_bits_of_new_ones(base: TrainJob, tmp_path: Path) -> None:
    jobs = [
        stage(base, tmp_path, number, stage=PLAN | changes, settings=settings)
        for number, (changes, settings) in enumerate([*VARIANTS, *VARIANTS[:1] * REPEATED])
    ]
    stages = driven(jobs, "none", folder=tmp_path)
    assert [each["ended"] for each in stages] == ["finished"] * len(jobs)
    # The same two processes all along, which do not grow.
    assert len({tuple(each["left"]) for each in stages}) == 1 and len(stages[0]["left"]) == 2
    for worker, held in stages[-1]["left"].items():
        assert held < stages[len(VARIANTS)]["left"][worker] + GROWTH_BYTES
    for number, job in enumerate(jobs[: len(VARIANTS)]):
        assert_same_bits(weights_of(job), weights_of(in_new_processes(job, tmp_path / f"alone{number}")))
    for again in jobs[len(VARIANTS) :]:
        assert_same_bits(weights_of(again), weights_of(jobs[0]))
    logs = {path.name for path in (tmp_path / "logs").iterdir()}
    assert logs == {f"work{number}-rank{rank}.log" for number in range(len(jobs)) for rank in range(2)}
    assert list((tmp_path / "meetings").iterdir()) == []


TASKS: tuple[tuple[dict[str, Any], dict[str, Any]], ...] = (
    ({}, {"zero_stage": 0}),
    ({"objective": "hard_labels", "temperature": 1.0, "gold_weight": 0.0, "seed": 3}, {"zero_stage": 0}),
    ({"unfrozen": 0}, {"zero_stage": 0}),
    ({"dtype": "bfloat16"}, {"zero_stage": 1}),
    ({}, {"zero_stage": 3}),
)
"""Stages of a task that leave different things behind."""


def test_stages_of_tasks_and_of_sequences_follow_each_other_in_the_same_processes(
    base: TrainJob, tmp_path: Path
) -> None:
    task = make_task_job(tmp_path / "task", dropout=0.2)
    short = {"epochs": None, "steps": STEPS, "evaluate_every": 5}
    jobs: list[StageJob] = [
        task_variant(task, tmp_path / f"stage{number}", stage=short | changes, settings=settings)
        for number, (changes, settings) in enumerate(TASKS)
    ]
    # A language model behind them, in what they leave, and the first of them behind that.
    sequences = stage(base, tmp_path, len(jobs), stage=PLAN)
    jobs += [sequences, task_variant(jobs[0], tmp_path / "again")]  # type: ignore[arg-type]
    jobs = [replace(job, work_dir=tmp_path / f"work{number}") for number, job in enumerate(jobs)]
    stages = driven(jobs, "none", folder=tmp_path)
    assert [each["ended"] for each in stages] == ["finished"] * len(jobs)
    assert len({tuple(each["left"]) for each in stages}) == 1 and len(stages[0]["left"]) == 2
    for number, job in enumerate(jobs[:-1]):
        assert_same_bits(weights_of(job), weights_of(in_new_processes(job, tmp_path / f"alone{number}")))
    assert_same_bits(weights_of(jobs[-1]), weights_of(jobs[0]))


def test_a_worker_that_is_killed_fails_its_stage_alone(base: TrainJob, tmp_path: Path) -> None:
    jobs = [stage(base, tmp_path, number, stage=PLAN) for number in range(3)]
    first, struck, failed, last = driven(jobs, "lost", folder=tmp_path)
    assert first["ended"] == last["ended"] == "finished"
    assert failed["ended"].startswith("TrainingError: a training worker ")
    assert "its last checkpoint is kept, run again to go on; its log is in" in failed["ended"]
    # Collectives wait for half an hour: only an end that does not wait for them is as soon as this.
    assert failed["seconds"] < 60
    assert not jobs[1].output_dir.exists() and list(jobs[1].work_dir.glob("step-*"))
    assert not set(last["left"]) & {str(pid) for pid in struck["struck"]}
    assert_same_bits(weights_of(jobs[2]), weights_of(jobs[0]))
    train_all((jobs[1], {}), folder=tmp_path / "again")
    assert_same_bits(weights_of(jobs[1]), weights_of(jobs[0]))


def test_a_stage_that_is_interrupted_in_a_warm_group_leaves_a_checkpoint(base: TrainJob, tmp_path: Path) -> None:
    jobs = [stage(base, tmp_path, number, stage=PLAN) for number in range(3)]
    first, _, stopped = driven(jobs, "stopped", folder=tmp_path)
    assert (first["ended"], stopped["ended"]) == ("finished", "KeyboardInterrupt: ")
    assert stopped["left"] == {}
    assert not jobs[1].output_dir.exists() and list(jobs[1].work_dir.glob("step-*"))
    train_all((jobs[1], {}), folder=tmp_path / "again")
    assert_same_bits(weights_of(jobs[1]), weights_of(jobs[0]))


def test_a_driver_that_is_killed_leaves_no_worker_behind(base: TrainJob, tmp_path: Path) -> None:
    jobs = [stage(base, tmp_path, number, stage=PLAN) for number in range(3)]
    _, struck = driven(jobs, "killed", folder=tmp_path)
    assert len(struck["struck"]) == 2
    deadline = time.monotonic() + 60
    while any(psutil.pid_exists(pid) for pid in struck["struck"]) and time.monotonic() < deadline:
        time.sleep(0.5)
    assert not any(psutil.pid_exists(pid) for pid in struck["struck"])


def test_stages_of_several_threads_are_trained_side_by_side(base: TrainJob, tmp_path: Path) -> None:
    """On a private cluster of two cores or more; with two cores the third stage waits for one of the others' groups."""
    jobs = [stage(base, tmp_path, number, stage=PLAN, settings={"workers": 1}) for number in range(3)]
    (told,) = driven(jobs, "together", folder=tmp_path)
    assert len(told["left"]) == min(len(jobs), max(os.cpu_count() or 1, 2))
    alone = variant(jobs[0], tmp_path / "alone")
    train_all((alone, {}), folder=tmp_path / "group", workers=1)
    for job in jobs:
        assert_same_bits(weights_of(job), weights_of(alone))


def test_a_group_that_waits_for_longer_than_a_collective_may_take_works_on(tmp_path: Path) -> None:
    limit, pause = "30", "40"
    place = {"PYTHONPATH": str(ROOT), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "0"}
    workers = [
        subprocess.Popen(
            [sys.executable, meeting_worker.__file__, str(tmp_path / "meeting"), limit, pause],
            env=os.environ | place | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    said = [worker.communicate(timeout=300)[0] for worker in workers]
    assert [worker.returncode for worker in workers] == [0, 0]
    assert [json.loads(each)["size"] for each in said] == [2, 2]
