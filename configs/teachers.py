"""Several teachers of one experiment: how what they believe becomes what is learned.

The first one stands at `teacher`, the others at `teachers` by names of their own. They are mixed in probability space,
p = sum w_t p_t, or each row has one of them, by a field of it.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal, Protocol

from pydantic import Field

from configs.models import Block, GrownBlock, ModelSource, Name
from configs.runtime import RuntimeConfig

FIRST = "teacher"
"""What the teacher that stands at `teacher` is called among several."""

BETWEEN = " + "
"""Stands between the labels of several teachers."""

NOT_STATED = "not stated"
"""Stands for the licence of a teacher that the configuration does not state, among others."""

USED_ALL_THE_SAME = " (used all the same: "
"""Between a licence and the reason to use a teacher in spite of it, where they are noted."""

KEYS = ("teachers", "combine")
"""What an experiment with one teacher does not set."""


class TeacherMixture(Block):
    """What is learned is the mean of the teachers' probabilities; `weights` by name, of any sum, equal unless given."""

    kind: Literal["mixture"]
    weights: dict[Name, Annotated[float, Field(gt=0.0)]] | None = None


class TeacherRoute(Block):
    """Each row has one teacher: the one that `to` names for the value of its `field`."""

    kind: Literal["route"]
    field: str
    to: Annotated[dict[str, Name], Field(min_length=1)]


Combination = Annotated[TeacherMixture | TeacherRoute, Field(discriminator="kind")]


def require_combined(others: Collection[str], combine: Combination | None, *, taken: Collection[str]) -> None:
    """Refuse teachers that do not go together with how they are combined.

    `others` are the names at `teachers`, `taken` those of students and of rows that the comparison has itself.

    Raises:
        ValueError: naming the key, both sides and the cure.
    """
    clash = sorted(set(others) & {FIRST, *taken})
    if clash:
        raise ValueError(f"teachers.{clash[0]} has a name that another row of the comparison has: choose another")
    if not others:
        if combine is not None:
            raise ValueError(
                f"combine.kind={combine.kind} combines several teachers, and teachers names none beside the first: add "
                "one, or remove combine"
            )
        return
    names = (FIRST, *others)
    match combine:
        case TeacherMixture(weights=dict() as weights) if set(weights) != set(names):
            raise ValueError(
                f"combine.weights is for {', '.join(weights) or 'nobody'}, and the teachers are {', '.join(names)}: "
                "give each of them a weight, or leave weights out for equal ones"
            )
        case TeacherRoute(to=to):
            unknown = next((name for name in to.values() if name not in names), None)
            if unknown is not None:
                raise ValueError(f"combine.to names {unknown}, and the teachers are {', '.join(names)}: name one")
            idle = next((name for name in names if name not in to.values()), None)
            if idle is not None:
                raise ValueError(f"combine.to sends no row to {idle}: route a value to it, or leave the teacher out")


def key_of_teacher(name: str) -> str:
    """Where the teacher of this name stands in a configuration."""
    return FIRST if name == FIRST else f"teachers.{name}"


def shares_of(others: Sequence[str], combine: Combination | None) -> dict[str, float]:
    """The share of each teacher in a mixture, the first one's first; they sum to 1."""
    names = (FIRST, *others)
    weights = combine.weights if isinstance(combine, TeacherMixture) else None
    given = {name: 1.0 if weights is None else weights[name] for name in names}
    total = sum(given.values())
    return {name: weight / total for name, weight in given.items()}


def unless_unused(said: Mapping[str, Any]) -> dict[str, Any]:
    """What an experiment says, written as before there could be several teachers where it has one."""
    return {key: value for key, value in said.items() if key not in KEYS or value}


class LicensedTeacher(GrownBlock):
    """A model that teaches under a licence; with `licence_override` for a reason that stands there in its place."""

    later_keys: ClassVar[tuple[str, ...]] = ("licence_override",)

    model: ModelSource
    licence: Annotated[str, Field(min_length=1)] | None = None
    licence_override: Annotated[str, Field(min_length=1)] | None = None

    @property
    def label(self) -> str:
        """What it is called for people."""
        return self.model.label

    @property
    def licence_as_used(self) -> str | None:
        """The licence whose duties a student takes over, and why it is used in spite of it if it is."""
        if self.licence_override is None:
            return self.licence
        return f"{self.licence or NOT_STATED}{USED_ALL_THE_SAME}{self.licence_override})"


class HasTeachers(Protocol):
    """An experiment with one teacher or several."""

    @property
    def every_teacher(self) -> Mapping[str, LicensedTeacher]:
        """All teachers by their names, the first one first."""
        ...

    @property
    def teachers(self) -> Mapping[str, LicensedTeacher]:
        """Those beside the first."""
        ...

    @property
    def runtime(self) -> RuntimeConfig:
        """Where it runs."""
        ...

    @property
    def combine(self) -> TeacherMixture | TeacherRoute | None:
        """How they are combined; equally mixed unless it is said."""
        ...


class Together:
    """What follows from the teachers of an experiment, whatever it distils."""

    @property
    def shares(self: HasTeachers) -> dict[str, float]:
        """The share of each teacher in a mixture, by name; they sum to 1."""
        return shares_of(tuple(self.teachers), self.combine)

    @property
    def route(self: HasTeachers) -> TeacherRoute | None:
        """By what each row has a teacher of its own; None where it has all of them."""
        return self.combine if isinstance(self.combine, TeacherRoute) else None

    @property
    def label_of_teachers(self: HasTeachers) -> str:
        """What the teachers are called for people."""
        return BETWEEN.join(teacher.label for teacher in self.every_teacher.values())

    @property
    def licence_of_teachers(self: HasTeachers) -> str | None:
        """The licences whose duties a student has."""
        return united_licences({name: teacher.licence_as_used for name, teacher in self.every_teacher.items()})

    @property
    def combined(self: HasTeachers) -> str:
        """How several teachers are combined, in words; "" where there is one."""
        labels = {name: teacher.label for name, teacher in self.every_teacher.items()}
        return combined_in_words(labels, tuple(self.teachers), self.combine)


def united_licences(licences: Mapping[str, str | None]) -> str | None:
    """What the licences of all teachers, by their names, come to for a student: each of them, unless they are one.

    None where no teacher states any.
    """
    stated = set(licences.values())
    if len(stated) == 1:
        return stated.pop()
    return "; ".join(f"{name}: {licence or NOT_STATED}" for name, licence in licences.items())


def is_stated(licence: str | None) -> bool:
    """Whether the licences of all teachers are known."""
    return bool(licence) and NOT_STATED not in str(licence)


def combined_in_words(labels: Mapping[str, str], others: Sequence[str], combine: Combination | None) -> str:
    """How the teachers of these labels, by their names, are combined; "" of one that is alone."""
    if not others:
        return ""
    if isinstance(combine, TeacherRoute):
        values = {name: ", ".join(value for value, to in combine.to.items() if to == name) for name in labels}
        parts = [f"{name} ({label}) for {combine.field} {values[name]}" for name, label in labels.items()]
        return f"each row has one teacher: {'; '.join(parts)}"
    shares = shares_of(others, combine)
    parts = [f"{name} ({label}) with weight {shares[name]:.3g}" for name, label in labels.items()]
    return f"teachers are mixed in probability space: {'; '.join(parts)}"
