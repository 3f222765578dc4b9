"""Which step of a stage becomes the student: the best one on the held-out split, never on the test split.

The trainer measures at step 0, at regular steps and at the end. The start of the stage is measured but never chosen,
unless the stage has `keep_start`; a stage that only made its student worse is recognised as such (`worsened`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from cache.views import CacheView
from configs.errors import ConfigError
from configs.stages import StageConfig
from student_train.job import StepMetrics

CRITERIA = {"dev_loss": "dev/loss", "dev_kl": "dev/forward_kl", "dev_accuracy": "dev/error"}
"""The held-out metric that each `select` makes as low as possible; `last` reads none."""

OWN_ANSWERS = "rollout/dev_reverse_kl"
"""What an on-policy stage lowers, measured before each rollout: reported one step after the weights it is about."""

OWN_ANSWERS_STDERR = f"{OWN_ANSWERS}_stderr"
"""Its standard error over the prompts, because what a student writes is sampled."""

BEYOND_NOISE = 2.0
"""So many standard errors is one sampled measurement behind another before it counts as worse."""


def check_measured(stage: StageConfig, *, values: Mapping[str, float], dev: CacheView) -> None:
    """Refuse a criterion that a measurement did not give: draws from the teacher do not give a divergence.

    Raises:
        ConfigError: select=dev_kl on draws.
    """
    if CRITERIA.get(stage.select, "dev/loss") not in values:
        raise ConfigError(
            f"select={stage.select} needs the teacher's log-probabilities but the held-out rows of {dev.dataset} are "
            "draws: set select: dev_loss"
        )


def measurement_due(step: int, *, total: int, every: int | None) -> bool:
    """Whether the held-out split is measured after `step` of `total` steps; without `every`, after each quarter."""
    return step % (every or math.ceil(total / 4)) == 0 or step == total


def selected(measured: Sequence[StepMetrics], *, select: str, keep_start: bool = False) -> StepMetrics | None:
    """The best measurement so far, the earliest of equal ones; None when nothing can be chosen.

    A value that is not finite is never the best. With `keep_start` step 0 is a candidate too.
    """
    name = CRITERIA.get(select)
    first = 0 if keep_start else 1
    candidates = [at for at in measured if at.step >= first and name in at.values and math.isfinite(at.values[name])]
    return min(candidates, key=lambda at: at.values[name], default=None) if name else None


def no_better(measured: Sequence[StepMetrics], *, select: str, keep_start: bool) -> int:
    """How many measurements in a row, up to the last one, were no better than the best."""
    best = selected(measured, select=select, keep_start=keep_start)
    return sum(at.step > (0 if best is None else best.step) for at in measured)


def worsened(measured: Sequence[StepMetrics], *, select: str, selected_step: int) -> dict[str, tuple[float, float]]:
    """The held-out metrics that a stage left worse than it found them: name -> (at step 0, at the selected step).

    These are what the stage selects by and the divergence that the comparison is about. An on-policy stage is judged by
    its own answers alone, because it may become worse on the teacher's, and only beyond the noise of sampling them.
    Lower is better.
    """
    own = {at.step - 1: at.values for at in measured if OWN_ANSWERS in at.values}
    if own:
        return _worse_answers(own[min(own)], own[max(step for step in own if step <= max(selected_step, min(own)))])
    before, after = (
        {name: value for at in measured if at.step == step for name, value in at.values.items()}
        for step in (0, selected_step)
    )
    names = dict.fromkeys((CRITERIA.get(select, "dev/loss"), CRITERIA["dev_kl"]))
    # Not "greater": a value that is not a number is worse too.
    return {n: (before[n], after[n]) for n in names if n in before and n in after and not after[n] <= before[n]}


def _worse_answers(before: Mapping[str, float], after: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """As `worsened`, of a student's own answers at two steps."""
    start, end = before[OWN_ANSWERS], after[OWN_ANSWERS]
    noise = math.hypot(*(at.get(OWN_ANSWERS_STDERR, 0.0) for at in (before, after)))
    # Of a single prompt there is no error; a value that is not a number is worse, whatever the noise.
    allowed = BEYOND_NOISE * noise if math.isfinite(noise) else 0.0
    return {} if end - start <= allowed else {OWN_ANSWERS: (start, end)}
