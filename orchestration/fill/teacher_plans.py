"""What each teacher of an experiment is asked, by what its cache lacks.

A plan that is only printed and one that is carried out are made here, without anything that computes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from configs import ConfigError, DistillConfig
from configs.teachers import FIRST
from orchestration.fill.refusals import open_refusals
from orchestration.inputs.prompts import PromptSet
from orchestration.inputs.teachers import Teacher
from orchestration.plan.requests import FillPlan, Holdings, SequenceSet, plan_fill, sequence_sets
from orchestration.plan.scores import told_sets


def plans_of(
    teachers: Mapping[str, Teacher], prompts: PromptSet, *, config: DistillConfig, caches: Mapping[str, Holdings]
) -> dict[str, FillPlan]:
    """The plan of each teacher by its name.

    Raises:
        ConfigError: no row of a split to learn from is routed to one of them, or they are shown more than students.
    """
    found: dict[str, FillPlan] = {}
    if config.teachers and prompts.wide:
        raise ConfigError(
            f"the teacher is shown more than its students, and teachers names {', '.join(config.teachers)}, who are "
            "asked about what students see: remove one of them"
        )
    for name, teacher in teachers.items():
        alone = config.of_teacher(name)
        if name == FIRST or config.route is not None:
            own = prompts.of_teacher(name)
            if "train" in own.splits and not own.splits["train"]:
                raise ConfigError(f"combine.to sends no row of data.train to {name}: route one, or leave it out")
            sets = sequence_sets(alone, own.splits, stop_ids=teacher.files.stop_ids, plain=own.plain)
        else:
            first = [part.sequences for part in found[FIRST].sets]
            told = told_sets(first, cache=caches[FIRST])
            sets = tuple(each.scored_by(alone.teacher, planned=True) for each in told)
        found[name] = plan_of(sets, config=alone, teacher=teacher, cache=caches[name])
    return found


def plan_of(sets: Sequence[SequenceSet], *, config: DistillConfig, teacher: Teacher, cache: Holdings) -> FillPlan:
    """What of these sequences a teacher is asked; what it could not answer before is left out."""
    refused = open_refusals(config.runtime, teacher.identity, k=config.teacher.top_k, door=teacher.door)
    return plan_fill(sets, cache=cache, refused=refused)
