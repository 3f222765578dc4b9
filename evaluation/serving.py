"""How much faster and smaller one model is than another, where both were measured side by side."""

from __future__ import annotations

import math
import statistics

from evaluation.results import ModelResults, Spread, TextSpeed


def text_speed(model: ModelResults, batch: int) -> TextSpeed | None:
    """The speed with this many texts at a time; None where it was not measured."""
    speeds = () if model.serving is None else model.serving.texts
    return next((speed for speed in speeds if speed.batch == batch), None)


def text_batches(model: ModelResults) -> tuple[int, ...]:
    """With how many texts at a time it was measured, the fewest first."""
    return () if model.serving is None else tuple(sorted(speed.batch for speed in model.serving.texts))


def times_faster(model: ModelResults, than: ModelResults, *, batch: int) -> Spread | None:
    """How many times as fast a model answers a text as another one, round by round.

    None where the two were not measured side by side, on one machine.
    """
    ours, theirs = text_speed(model, batch), text_speed(than, batch)
    if ours is None or theirs is None or model.serving is None or than.serving is None:
        return None
    if model.serving.measured_on != than.serving.measured_on or len(ours.text_s) != len(theirs.text_s):
        return None
    ratios = [theirs_s / ours_s for ours_s, theirs_s in zip(ours.text_s, theirs.text_s, strict=True)]
    return Spread(statistics.median(ratios), min(ratios), max(ratios), len(ratios))


def times_smaller(model: ModelResults, than: ModelResults) -> float:
    """How many times as many bytes the other one has on disk; NaN where that is not known."""
    return than.disk_bytes / model.disk_bytes if model.disk_bytes and than.disk_bytes else math.nan
