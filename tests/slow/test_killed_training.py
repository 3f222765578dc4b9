"""Worker groups killed with SIGKILL, whole or in part, at every named place and at random moments: the end is the same bits."""

from __future__ import annotations

import random
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from group_worker import Ask, Call, Death, Disk, Lost, Trained, run_groups
from task_jobs import make_task_job
from training_jobs import assert_same_bits, make_job, train_all, variant, weights_of

from configs.places import CURVES
from orchestration.outputs.curves import read_curve
from student_train.job import StageJob
from student_train.models.export import EXPORT_FAILPOINTS
from student_train.training.checkpoint import CHECKPOINT_FAILPOINTS, TRAINING_FAILPOINT

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

STEPS = 24
OWN_TO_A_PROCESS = {"train/tokens_per_s", "train/data_wait_share", "train/memory_gib"}
PLAN = {"epochs": None, "steps": STEPS, "evaluate_every": 5, "learning_rate": 0.02, "schedule": "constant"}
"""Steps so large that the best ones lie in the middle, and the best weights have to live through the kills."""

OF_A_TASK = PLAN | {"learning_rate": 0.05, "select": "dev_loss", "warmup_steps": 0}

Calm = tuple[StageJob, Trained]


def jobs(folder: Path) -> dict[str, StageJob]:
    """A stage of each kind; that of a task draws random numbers, for dropout."""
    return {
        "sequences": variant(make_job(folder / "sequences"), folder / "calm", stage=PLAN),
        "task": make_task_job(folder / "task", dropout=0.2, **OF_A_TASK),
    }


@pytest.fixture(scope="module", params=["sequences", "task"])
def calm(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Calm:
    folder = tmp_path_factory.mktemp("calm")
    job = jobs(folder)[request.param]
    ((seen, _),) = train_all((job, {}), folder=folder / "group")
    assert seen.result.selected_step is not None and seen.result.selected_step < STEPS
    return job, seen


def life(job: StageJob, death: Death | None = None, *, disk: Disk | None = None, ask: Ask | None = None) -> Call:
    return "train_all", {"jobs": [(job, {"death": death, "disk": disk, "ask": ask})]}, 2


def elsewhere(job: StageJob, folder: Path) -> StageJob:
    """The same stage in directories of its own."""
    return replace(job, work_dir=folder / "work", output_dir=folder / "student")


def assert_died(group: list[Lost]) -> None:
    """One rank was killed, and the others neither ended well nor waited for it for ever."""
    codes = [one.code for one in group]
    assert -signal.SIGKILL in codes
    assert 0 not in codes


def assert_ends_as(calm: Calm, job: StageJob, seen: Trained) -> None:
    """A training that came to its end left what the undisturbed one left."""
    undisturbed, expected = calm
    for name in ("steps", "tokens", "skipped", "selected_step", "dev_losses"):
        assert getattr(seen.result, name) == getattr(expected.result, name)
    assert_same_bits(weights_of(job), weights_of(undisturbed))
    ours, theirs = (
        [(m.step, {n: v for n, v in m.values.items() if n not in OWN_TO_A_PROCESS}) for m in read_curve(path / CURVES)]
        for path in (job.work_dir, undisturbed.work_dir)
    )
    assert ours == theirs
    assert not list(job.work_dir.glob(".staging-*"))


def test_a_group_killed_at_every_named_place_ends_in_the_same_bits(calm: Calm, tmp_path: Path) -> None:
    job = elsewhere(calm[0], tmp_path)
    # The leader passes all places, the others write their shares and nothing more. Step 5 is measured and the best so
    # far, so the kills meet a checkpoint that writes the best weights and others that carry them on.
    deaths = [Death(after=at, ranks=(0,), failpoint=name) for at, name in enumerate(CHECKPOINT_FAILPOINTS, start=3)]
    ours = [name for name in CHECKPOINT_FAILPOINTS if name.endswith("-share")]
    deaths += [Death(after=at, ranks=(1,), failpoint=name) for at, name in enumerate(ours, start=11)]
    deaths += [Death(after=STEPS, ranks=(0,), failpoint=name) for name in EXPORT_FAILPOINTS]
    *killed, (seen, _) = run_groups([*(life(job, death) for death in deaths), life(job)], folder=tmp_path / "groups")
    for group in killed:
        assert_died(group)
    assert_ends_as(calm, job, seen[0])


def test_a_group_killed_while_it_trains_beside_a_commit_ends_in_the_same_bits(calm: Calm, tmp_path: Path) -> None:
    job = elsewhere(calm[0], tmp_path)
    # Several steps are taken beside each commit. The last deaths come when some are taken, of whoever is the slower.
    slow = [Disk(seconds_a_file=0.1), Disk(ranks=(0,), seconds_a_file=0.1), Disk(ranks=(1,), seconds_a_file=0.1)]
    deaths = [
        (Death(after=3 * at + 2, ranks=ranks, failpoint=TRAINING_FAILPOINT), slow[at])
        for at, ranks in enumerate([(0, 1), (0,), (1,)])
    ]
    deaths += [(Death(after=12 + at, ranks=(0,), delay_s=0.05), slow[at]) for at in range(3)]
    lives = [life(job, death, disk=disk) for death, disk in deaths]
    *killed, (seen, _) = run_groups([*lives, life(job, disk=slow[0])], folder=tmp_path / "groups")
    for group in killed:
        assert_died(group)
    assert_ends_as(calm, job, seen[0])


def test_a_disk_that_fills_up_ends_the_training_on_every_process_and_costs_no_bit(calm: Calm, tmp_path: Path) -> None:
    job = elsewhere(calm[0], tmp_path)
    full = [Disk(ranks=(1,), full_at=7), Disk(ranks=(0,), full_at=12)]
    *ended, (seen, _) = run_groups([*(life(job, disk=disk) for disk in full), life(job)], folder=tmp_path / "groups")
    no_space = "[Errno 28] No space left on device"
    for (leader, other), failed in zip(ended, (1, 0), strict=True):
        told = [f"TrainingError: worker {failed} could not write its share of a checkpoint: {no_space}"] * 2
        told[failed] = f"OSError: {no_space}"
        assert [leader[0].ended, other[0].ended] == told
        assert leader[0].reported[-1].step < STEPS
    assert_ends_as(calm, job, seen[0])


def test_a_stop_waits_for_the_commit(calm: Calm, tmp_path: Path) -> None:
    job = elsewhere(calm[0], tmp_path)
    stops = [life(job, disk=Disk(seconds_a_file=0.05), ask=Ask(after=at, signal=at == 4)) for at in (4, 9)]
    *stopped, (seen, other) = run_groups([*stops, life(job)], folder=tmp_path / "groups")
    lives = [[ranks[0][0], ranks[1][0]] for ranks in stopped]
    # What follows begins where each ended, so nothing is trained twice.
    for (leader, peer), later in zip(lives, [lives[1][0], seen[0]], strict=True):
        assert not leader.result.finished and leader.result == peer.result
        # Down to the wall times: what is reported again was kept, not trained again.
        again = [at for at in later.reported if at.step <= leader.result.steps and "train/tokens" in at.values]
        assert again and all(at in leader.reported for at in again)
    # A signal is heard at the next question, which may be after one step more.
    assert lives[0][0].result.steps in (4, 5) and lives[1][0].result.steps == 9
    assert other[0].result.finished
    assert_ends_as(calm, job, seen[0])


def test_a_group_killed_at_random_moments_ends_in_the_same_bits(calm: Calm, tmp_path: Path) -> None:
    job = elsewhere(calm[0], tmp_path)
    moments = random.Random(0)
    deaths = [
        Death(after=2 * at + 1, ranks=ranks, delay_s=moments.uniform(0.001, 0.1))
        for at, ranks in enumerate([(0,), (1,), (0, 1)] * 3)
    ]
    *killed, (seen, _) = run_groups([*(life(job, death) for death in deaths), life(job)], folder=tmp_path / "groups")
    for group in killed:
        assert_died(group)
    assert_ends_as(calm, job, seen[0])
