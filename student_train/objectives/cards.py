"""Words that the model cards of several objectives share."""

from __future__ import annotations

from collections.abc import Mapping

from configs.stages import StageConfig


def data_learned(stage: StageConfig) -> str:
    """Whose answers were learned, or what the student wrote while it learned: the end of a sentence."""
    rollout = stage.rollout
    if rollout is None:
        return "on plain text" if stage.source == "plain" else f"on {stage.source} answers"
    shared = "" if rollout.share == 1.0 else f", a share of {1.0 - rollout.share:g} by the teacher"
    return (
        f"on {rollout.count} rollouts of {rollout.prompts} sequences by the student{shared}, tokens mixed with the "
        f"teacher's at alpha {rollout.alpha:g}, {rollout.epochs} passes over each"
    )


def in_words(settings: Mapping[str, object]) -> str:
    """Settings one behind another, each by its name."""
    return ", ".join(f"{name} {value}" for name, value in settings.items())
