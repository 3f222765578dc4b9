"""What a benchmark says: values beside their targets and peers, and remarks. Nothing heavy is imported here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Target:
    """What a value is held against."""

    bound: float
    kind: Literal["at least", "at most"]

    def met(self, value: float) -> bool:
        """Whether the value stands on the right side; what is not a number never does."""
        return bool(value >= self.bound if self.kind == "at least" else value <= self.bound)


@dataclass(frozen=True, slots=True)
class Measurement:
    """One row of the table: what was measured, in which unit, what it should be, and what others need for the same.

    Attributes:
        what: Whole enough to be understood without the benchmark's name.
        digits: Behind the point, also of the peers.
        peers: By name, in the same unit, measured in the same run.
        note: What a reader has to know to judge it.
    """

    what: str
    value: float
    unit: str = ""
    digits: int = 2
    target: Target | None = None
    peers: Mapping[str, float] = field(default_factory=dict)
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the target is met; None without one."""
        return None if self.target is None else self.target.met(self.value)

    def to_fields(self) -> dict[str, Any]:
        """What JSON can hold; with the verdict, for those who read it elsewhere."""
        # Values often come from numpy, whose numbers JSON does not know.
        plain = {"value": float(self.value), "peers": {name: float(value) for name, value in self.peers.items()}}
        return asdict(self) | plain | {"met": self.met}

    @classmethod
    def from_fields(cls, fields: Mapping[str, Any]) -> Measurement:
        """What `to_fields` has given."""
        own = {name: value for name, value in fields.items() if name != "met"}
        return cls(**own | {"target": None if fields["target"] is None else Target(**fields["target"])})


@dataclass(frozen=True, slots=True)
class Failure:
    """A benchmark that did not come to its end: why, and where all that it wrote can be read, if it wrote."""

    reason: str
    log: str = ""


Row = Measurement | str | Failure
"""A benchmark yields measurements and remarks; a failure is what the runner makes of its end."""


def at_least(what: str, value: float, target: float, **rest: Any) -> Measurement:
    """A measurement that is the better the larger it is; `rest` are other fields of it."""
    return Measurement(what, value, target=Target(target, "at least"), **rest)


def at_most(what: str, value: float, target: float, **rest: Any) -> Measurement:
    """A measurement that is the better the smaller it is; `rest` are other fields of it."""
    return Measurement(what, value, target=Target(target, "at most"), **rest)
