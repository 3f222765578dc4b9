"""The learning rate as a pure function of the step."""

from __future__ import annotations

import math
from typing import Literal

FINAL_FRACTION = 0.1
"""Decaying schedules end at this fraction of the peak: the last steps still learn."""


def learning_rate(
    step: int,
    *,
    peak: float,
    total_steps: int,
    warmup_steps: int = 0,
    schedule: Literal["cosine", "linear", "constant"] = "cosine",
) -> float:
    """Learning rate of optimiser step `step`, counted from 0.

    Rises linearly to `peak`, reached at step `warmup_steps`, then follows the schedule down to a tenth of it at the
    last step. A warm-up as long as the run never decays.
    """
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    if schedule == "constant" or total_steps - 1 <= warmup_steps:
        return peak
    progress = min(1.0, (step - warmup_steps) / (total_steps - 1 - warmup_steps))
    remaining = 1.0 - progress if schedule == "linear" else 0.5 * (1.0 + math.cos(math.pi * progress))
    return peak * (FINAL_FRACTION + (1.0 - FINAL_FRACTION) * remaining)
