"""What several teachers of a language model can be combined for: students learn from the cache what they told."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from configs.stages import StageConfig, StudentConfig
from configs.teachers import TeacherMixture, TeacherRoute


def require_combinable(
    others: Collection[str],
    combine: TeacherMixture | TeacherRoute | None,
    *,
    students: Mapping[str, StudentConfig],
    exposure: bool,
) -> None:
    """Refuse students that need one teacher where `others` stand beside it, and teachers that nothing is learned of.

    Raises:
        ValueError: naming the key, both sides and the cure.
    """
    if not others:
        return
    names = ", ".join(others)
    for name, student in students.items():
        if student.teacher is not None:
            raise ValueError(
                f"students.{name}.teacher={student.teacher} has one teacher, and teachers names {names}: let it learn "
                "in an experiment of its own, or remove teachers"
            )
        for number, stage in enumerate(student.stages):
            _require_cached(f"students.{name}.stages.{number}", stage, names=names)
            _require_fitting(f"students.{name}.stages.{number}", stage, routed=isinstance(combine, TeacherRoute))
    if exposure:
        raise ValueError(
            f"evaluation.exposure=true has one teacher read what students write, and teachers names {names}: remove "
            "one of them"
        )
    if not isinstance(combine, TeacherRoute) and not any(
        stage.needs_cached for student in students.values() for stage in student.stages
    ):
        raise ValueError(
            f"teachers names {names}, whose beliefs are mixed, and no stage learns what a teacher believes: set "
            "objective: kd, combine by kind: route, or remove teachers"
        )


def _require_cached(key: str, stage: StageConfig, *, names: str) -> None:
    """Refuse a stage for which one teacher answers beside the student."""
    beside = {"rollout": stage.rollout, "teacher=live": stage.teacher == "live", "features": stage.features}
    for what, given in beside.items():
        if given:
            raise ValueError(
                f"{key} has {what}, for which one teacher reads beside the student, and teachers names {names}: remove "
                "one of them"
            )


def _require_fitting(key: str, stage: StageConfig, *, routed: bool) -> None:
    if routed and stage.source == "plain":
        raise ValueError(
            f"{key}.source=plain with combine.kind=route, which goes by a field, and windows of plain text have none: "
            "choose another source, or combine by kind: mixture"
        )
    if not routed and stage.temperature != 1.0:
        raise ValueError(
            f"{key}.temperature={stage.temperature:g} with several teachers that are mixed: a student would soften the "
            "mean of what they believe, which is not the mean of what each believes softened: set temperature: 1.0, or "
            "combine by kind: route"
        )
