"""Which measurement is the best, when one is due, and what cannot be selected by."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from training_jobs import STAGE, make_job

from cache.views import CacheView
from configs.errors import ConfigError
from student_train.job import StepMetrics
from student_train.training.selection import (
    OWN_ANSWERS,
    OWN_ANSWERS_STDERR,
    check_measured,
    measurement_due,
    no_better,
    selected,
    worsened,
)


def measured(*losses: float, kls: tuple[float, ...] = ()) -> list[StepMetrics]:
    points = [StepMetrics(step, {"dev/loss": loss}) for step, loss in enumerate(losses)]
    for point, kl in zip(points, kls, strict=False):
        point.values["dev/forward_kl"] = kl
    return points


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((3.0, 2.0, 1.0), 2),
        ((3.0, 1.0, 2.0), 1),
        ((0.5, 2.0, 1.0), 2),  # the untouched start is not a candidate
        ((3.0, 1.0, 1.0), 1),  # the earliest of equal ones
        ((3.0, math.nan, 2.0), 2),
        ((3.0, math.inf, -math.inf, 2.0), 3),
        ((3.0, math.nan), None),
        ((3.0,), None),
        ((), None),
    ],
)
def test_the_lowest_finite_loss_after_the_start_is_selected(losses: tuple[float, ...], best: int | None) -> None:
    found = selected(measured(*losses), select="dev_loss")
    assert (None if found is None else found.step) == best


def test_the_divergence_may_choose_another_step() -> None:
    points = measured(3.0, 1.0, 2.0, kls=(0.9, 0.8, 0.7))
    by_loss, by_kl = (selected(points, select=name) for name in ("dev_loss", "dev_kl"))
    assert by_loss is points[1]
    assert by_kl is points[2]
    assert selected(points, select="last") is None


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((3.0, 2.0, 1.0), 2),
        ((0.5, 2.0, 1.0), 0),
        ((1.0, 1.0), 0),  # what changes nothing gains nothing
        ((0.5, math.nan), 0),
        ((math.nan, 2.0), 1),
    ],
)
def test_a_stage_may_keep_its_start(losses: tuple[float, ...], best: int) -> None:
    found = selected(measured(*losses), select="dev_loss", keep_start=True)
    assert found is not None and found.step == best


def test_accuracy_is_selected_by_the_share_of_errors() -> None:
    points = [StepMetrics(step, {"dev/error": error}) for step, error in enumerate((0.1, 0.4, 0.2, 0.2))]
    found = selected(points, select="dev_accuracy")
    assert found is not None and found.step == 2
    assert worsened(points, select="dev_accuracy", selected_step=2) == {"dev/error": (0.1, 0.2)}


@pytest.mark.parametrize(
    ("losses", "keep_start", "count"),
    [
        ((3.0, 2.0, 1.0), False, 0),
        ((3.0, 1.0, 2.0, 1.0), False, 2),
        ((0.5, 1.0, 2.0), False, 1),
        ((0.5, 1.0, 2.0), True, 2),
        ((3.0, math.nan), False, 1),
        ((3.0,), False, 0),
    ],
)
def test_measurements_that_were_no_better_than_the_best_are_counted(
    losses: tuple[float, ...], keep_start: bool, count: int
) -> None:
    assert no_better(measured(*losses), select="dev_loss", keep_start=keep_start) == count


@pytest.mark.parametrize(
    ("select", "losses", "kls", "step", "worse"),
    [
        ("dev_loss", (3.0, 2.0), (), 1, {}),
        ("dev_loss", (3.0, 3.0), (), 1, {}),
        ("dev_loss", (2.0, 3.0), (), 1, {"dev/loss": (2.0, 3.0)}),
        ("dev_loss", (2.0, 3.0), (), 0, {}),
        ("dev_loss", (2.0, 3.0, 1.0), (), 1, {"dev/loss": (2.0, 3.0)}),
        ("dev_loss", (2.0, 1.0), (0.43, 0.50), 1, {"dev/forward_kl": (0.43, 0.50)}),
        ("dev_kl", (2.0, 3.0), (0.43, 0.40), 1, {}),
        ("dev_kl", (2.0, 3.0), (0.43, 0.50), 1, {"dev/forward_kl": (0.43, 0.50)}),
        ("last", (2.0, 3.0), (0.43, 0.50), 1, {"dev/loss": (2.0, 3.0), "dev/forward_kl": (0.43, 0.50)}),
        ("last", (), (), 4, {}),
    ],
)
def test_a_stage_that_made_its_student_worse_is_reported(
    select: str, losses: tuple[float, ...], kls: tuple[float, ...], step: int, worse: dict[str, tuple[float, float]]
) -> None:
    assert worsened(measured(*losses, kls=kls), select=select, selected_step=step) == worse


def test_a_loss_that_became_not_a_number_is_worse() -> None:
    assert list(worsened(measured(2.0, math.nan), select="last", selected_step=1)) == ["dev/loss"]


@pytest.mark.parametrize(
    ("total", "every", "steps"),
    [
        (8, None, [0, 2, 4, 6, 8]),
        (7, None, [0, 2, 4, 6, 7]),
        (3, None, [0, 1, 2, 3]),
        (1, None, [0, 1]),
        (7, 3, [0, 3, 6, 7]),
        (7, 100, [0, 7]),
    ],
)
def test_the_start_the_end_and_regular_steps_are_measured(total: int, every: int | None, steps: list[int]) -> None:
    assert [step for step in range(total + 1) if measurement_due(step, total=total, every=every)] == steps


def test_draws_do_not_give_a_divergence(tmp_path: Path) -> None:
    job = make_job(tmp_path)
    assert job.dev_view is not None
    dev = CacheView.load(job.dev_view)
    by_kl = STAGE.model_copy(update={"select": "dev_kl"})
    check_measured(by_kl, values={"dev/loss": 1.0, "dev/forward_kl": 1.0}, dev=dev)
    check_measured(STAGE, values={"dev/loss": 1.0}, dev=dev)
    with pytest.raises(ConfigError, match="the held-out rows of dev are draws: set select: dev_loss"):
        check_measured(by_kl, values={"dev/loss": 1.0}, dev=dev)


@pytest.mark.parametrize(("last", "worse"), [(0.96, {}), (1.2, {"rollout/dev_reverse_kl": (1.07, 1.2)})])
def test_a_stage_that_writes_its_own_answers_is_judged_by_these(
    last: float, worse: dict[str, tuple[float, float]]
) -> None:
    measured = [
        StepMetrics(0, {"dev/loss": 1.038, "dev/forward_kl": 1.09}),
        StepMetrics(1, {"rollout/dev_reverse_kl": 1.07}),
        StepMetrics(8, {"dev/loss": 1.042, "dev/forward_kl": 1.01}),
        StepMetrics(9, {"rollout/dev_reverse_kl": last}),
        StepMetrics(17, {"rollout/dev_reverse_kl": 9.0}),
    ]
    assert worsened(measured, select="dev_loss", selected_step=8) == worse


@pytest.mark.parametrize(
    ("errors", "end", "worse"),
    [
        ((0.06, 0.06), 0.67, False),
        ((0.04, 0.04), 0.67, True),
        ((0.01, 0.08), 0.67, False),
        ((math.nan, math.nan), 0.67, True),
        ((0.06, 0.06), math.nan, True),
    ],
)
def test_own_answers_are_worse_only_beyond_two_standard_errors_of_their_difference(
    errors: tuple[float, float], end: float, *, worse: bool
) -> None:
    measured = [
        StepMetrics(step, {OWN_ANSWERS: value, OWN_ANSWERS_STDERR: error})
        for step, value, error in zip((1, 9), (0.53, end), errors, strict=True)
    ]
    assert (OWN_ANSWERS in worsened(measured, select="last", selected_step=8)) is worse
