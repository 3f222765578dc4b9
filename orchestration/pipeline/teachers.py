"""Several teachers of a language model that are asked one after the other, each for its own cache, and combined.

Each is asked as if it were the only one (`DistillConfig.of_teacher`), so what one said is found again by every other
experiment that has it. Where rows are routed a teacher answers its own alone. Where beliefs are mixed the first writes,
or what is given is taken, and the others score the same sequences.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from cache import TeacherCache
from cache.answers import Request
from configs import DistillConfig
from configs.teachers import FIRST
from orchestration.cluster.door_pool import DoorPool
from orchestration.cluster.engine_pool import EnginePool
from orchestration.fill.teacher_plans import plan_of, plans_of
from orchestration.inputs.prompts import PromptSet, PromptTable
from orchestration.inputs.teachers import Teacher, open_cache
from orchestration.pipeline.combining import heads_in_words, mixed_lesson, routed_lesson
from orchestration.pipeline.compute import Compute
from orchestration.pipeline.fill_stage import AskedTeacher, ask, fill_and_pin, pin_answered
from orchestration.pipeline.lessons import Lesson
from orchestration.pipeline.run import Journal, RunSettings
from orchestration.plan.requests import FillPlan
from orchestration.plan.scores import told_sets


@dataclass(frozen=True, slots=True)
class OpenTeacher:
    """A teacher with its cache, and its engines or its door, before it is known what it is asked."""

    teacher: Teacher
    cache: TeacherCache
    pool: EnginePool | DoorPool

    @property
    def surely_asked(self) -> bool:
        """Whether it is asked whatever the prompts are: nothing that it said is kept, and it answers the test split."""
        return self.cache.stats().records == 0


@dataclass(frozen=True, slots=True)
class AskedTeachers:
    """Every teacher of an experiment by its name, the first one first, and what each is to be asked."""

    by_name: Mapping[str, AskedTeacher]
    settings: RunSettings
    journal: Journal
    compute: Compute

    @property
    def first(self) -> AskedTeacher:
        """The one that stands at `teacher`."""
        return self.by_name[FIRST]

    @property
    def teachers(self) -> dict[str, Teacher]:
        """Who they are."""
        return {name: asked.teacher for name, asked in self.by_name.items()}

    @property
    def plans(self) -> tuple[FillPlan, ...]:
        """What each is asked."""
        return tuple(asked.plan for asked in self.by_name.values())

    def fill_and_pin(self, prompts: PromptSet) -> tuple[Lesson, PromptSet]:
        """Fill the caches, one after the other, and pin what students learn; prompts as of `fill_stage.fill_and_pin`.

        Raises:
            CacheError: a set has no row at all.
            DataError: filters leave no row.
        """
        if len(self.by_name) == 1:
            return fill_and_pin(
                self.first, settings=self.settings, journal=self.journal, compute=self.compute, prompts=prompts
            )
        return self._mixed(prompts) if self.settings.config.route is None else self._routed(prompts)

    def _mixed(self, prompts: PromptSet) -> tuple[Lesson, PromptSet]:
        first, config = self.first, self.settings.config
        failed = self._ask(FIRST, first)
        told = told_sets(first.sets, cache=first.cache)
        for name, asked in self._others():
            sets = tuple(each.scored_by(config.teachers[name], planned=False) for each in told)
            plan = plan_of(sets, config=config.of_teacher(name), teacher=asked.teacher, cache=asked.cache)
            refused = self._ask(name, replace(asked, plan=plan))
            for request, sequence in (pair for each in told if refused for pair in each.answered()):
                if sequence in refused:
                    failed.setdefault(request, f"{name}: {refused[sequence]}")
        lesson, prompts = pin_answered(
            _without(first, failed),
            failed=failed,
            settings=self._of(FIRST),
            journal=self.journal,
            prompts=prompts,
            stages=config.stages_taught_by(None),
        )
        caches = {name: asked.cache for name, asked in self._others()}
        folder = self.settings.directory / "views"
        mixed = mixed_lesson(lesson, others=caches, config=config, folder=folder)
        heads_in_words(mixed, config=config, console=self.journal.console)
        return mixed, prompts

    def _routed(self, prompts: PromptSet) -> tuple[Lesson, PromptSet]:
        config, lessons, kept = self.settings.config, dict[str, Lesson](), dict[str, PromptSet]()
        for name, asked in self.by_name.items():
            lessons[name], kept[name] = pin_answered(
                asked,
                failed=self._ask(name, asked),
                settings=self._of(name),
                journal=self.journal,
                prompts=prompts.of_teacher(name),
                stages=config.stages_taught_by(None),
                folder="" if name == FIRST else name,
            )
        there = {split: {row.row for part in kept.values() for row in part.splits[split]} for split in prompts.splits}
        aside = [row for part in kept.values() for row in part.rejected[len(prompts.rejected) :]]
        prompts = replace(
            prompts,
            splits={
                split: PromptTable(row for row in rows if row.row in there[split])
                for split, rows in prompts.splits.items()
            },
            rejected=(*prompts.rejected, *aside),
        )
        prompts.write_rejected(self.settings.directory / "rejected.jsonl")
        return routed_lesson(lessons, config=config, folder=self.settings.directory / "views"), prompts

    def _ask(self, name: str, asked: AskedTeacher) -> dict[Request, str]:
        """Ask one of them, whose engines end before those of the next one begin."""
        try:
            return dict(ask(asked, settings=self._of(name), journal=self.journal, compute=self.compute))
        finally:
            asked.pool.release()

    def _others(self) -> list[tuple[str, AskedTeacher]]:
        return [(name, asked) for name, asked in self.by_name.items() if name != FIRST]

    def _of(self, name: str) -> RunSettings:
        return replace(self.settings, config=self.settings.config.of_teacher(name))


def with_caches(teachers: Mapping[str, Teacher], *, config: DistillConfig, compute: Compute) -> dict[str, OpenTeacher]:
    """Every teacher with its cache and its engines, none of which is started."""
    return {
        name: OpenTeacher(teacher, open_cache(config.of_teacher(name), teacher), compute.teacher_pool(teacher))
        for name, teacher in teachers.items()
    }


def begin_engines(pool: EnginePool | DoorPool, *, settings: RunSettings, compute: Compute) -> None:
    """Have engines that will be asked begin to start, unless they answer behind a door or energy is limited.

    Energy is looked at when a stage begins, and nothing begins to take any before that.
    """
    if not isinstance(pool, DoorPool) and settings.config.budgets.max_kwh is None:
        compute.need_cluster()
        pool.begin()


def plan_teachers(
    opened: Mapping[str, OpenTeacher], prompts: PromptSet, *, settings: RunSettings, journal: Journal, compute: Compute
) -> AskedTeachers:
    """What each of the teachers is asked, as far as that is known before any of them answers.

    Raises:
        ConfigError: no row of a split to learn from is routed to one of them.
    """
    teachers = {name: each.teacher for name, each in opened.items()}
    caches = {name: each.cache for name, each in opened.items()}
    plans = plans_of(teachers, prompts, config=settings.config, caches=caches)
    asked = {name: AskedTeacher(each.teacher, each.cache, each.pool, plans[name]) for name, each in opened.items()}
    return AskedTeachers(asked, settings, journal, compute)


def _among(requests: Sequence[Request], failed: Mapping[Request, str]) -> frozenset[Request]:
    return frozenset(request for request in requests if request in failed) if failed else frozenset()


def _without(asked: AskedTeacher, failed: Mapping[Request, str]) -> AskedTeacher:
    """The first teacher, whose rows that another one could not answer are not learned."""
    sets = tuple(
        replace(part, sequences=replace(part.sequences, left_out=_among(part.sequences.requests, failed)))
        for part in asked.plan.sets
    )
    return replace(asked, plan=FillPlan(sets))
