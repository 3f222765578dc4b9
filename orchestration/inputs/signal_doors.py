"""The door of somebody else's Stillroom that a teacher with a task head answers behind, in a task experiment.

The teacher's files are here as well, because students are cut from it and it stands in the comparison: only the work of
asking it is somebody else's (docs/decisions/0047-a-task-teacher-behind-a-door.md). So it is known here who has to
answer, and a run whose signals are all in the cache asks no door.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain

from configs import ConfigError, DoorError, EngineError
from configs.doors import DoorConfig
from configs.task_teacher import TaskTeacherConfig
from configs.teachers import FIRST, NOT_STATED
from orchestration.inputs.doors import other_identity, other_licence, settings_of
from orchestration.inputs.task_teachers import TaskTeacher
from teacher_server.http.signals.client import DoorSignals, HttpSignals


@dataclass(frozen=True, slots=True)
class SignalDoor:
    """A door, and the teacher that it has to lead to, as it is here and as it is wanted.

    `key` is where the teacher stands in the configuration.
    """

    place: DoorConfig
    teacher: TaskTeacher
    wanted: TaskTeacherConfig
    key: str = FIRST

    @property
    def host(self) -> str:
        """What the place is called for people."""
        return self.place.host

    @property
    def label(self) -> str:
        """The teacher behind it, for people."""
        return f"{self.teacher.label} behind {self.host}"

    def said(self, *, patience_s: float) -> str:
        """Who answers there, in a line for people; it raises as `open`."""
        with self.open(patience_s=patience_s) as source:
            told = source.told
        return (
            f"{told.name} behind {self.host} is {told.facts.identity.digest()[:12]}, licence "
            f"{told.licence or NOT_STATED}; it reads texts of up to {told.facts.max_tokens:,} tokens"
        )

    def open(self, *, patience_s: float | None = None) -> HttpSignals:
        """The teacher there, who is the one here. A door that is away is waited for, at most `patience_s` if given.

        Raises:
            ConfigError: it is another one, or gives less than is wanted, naming both sides; or there is no token.
            DoorError: the door cannot be reached, lets nobody in, or lacks the teacher.
        """
        settings = settings_of(self.place, key=self.key)
        if patience_s is not None:
            settings = replace(settings, budget_s=min(patience_s, settings.budget_s))
        try:
            source = HttpSignals(settings)
        except EngineError as error:
            raise DoorError(f"{self.key}.serve: {error}") from error
        line = next(self._differences(source.told), None)
        if line is not None:
            source.close()
            raise ConfigError(line)
        return source

    def _differences(self, told: DoorSignals) -> Iterator[str]:
        """Lines for what is not as it is wanted, the first cause first."""
        facts, there = told.facts, f"{told.name} behind {self.host}"
        here, label = self.teacher.identity, self.teacher.label
        return chain(
            other_identity(self.key, model=label, here=here, door=there, there=facts.identity),
            self._other_terms(told, there=there),
        )

    def _other_terms(self, told: DoorSignals, *, there: str) -> Iterator[str]:
        wanted = self.wanted
        yield from other_licence(self.key, wanted.licence, door=there, there=told.licence)
        if wanted.max_tokens > told.facts.max_tokens:
            yield (
                f"{self.key}.max_tokens={wanted.max_tokens} and {there} reads {told.facts.max_tokens} tokens: lower "
                "it, or ask another door"
            )
