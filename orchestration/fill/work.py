"""What a fill asks for, whatever it is: sequences (`sequences`) or signals (`signals`).

The fill itself (claims, budgets, engines that die, other pipelines) needs to know a few things of it, which
`WantedRows` names.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from cache import SignalRequest
from cache.answers import Request
from configs import EngineError
from orchestration.fill.engine_loop import FillOrder, FillProgress
from orchestration.outputs.console import ProgressSink

AnyRequest = TypeVar("AnyRequest", bound=Request | SignalRequest)
"""What is asked for one by one: `Request` or `SignalRequest`."""

AnyRequest_contra = TypeVar("AnyRequest_contra", bound=Request | SignalRequest, contravariant=True)


@dataclass(frozen=True, slots=True)
class Work(Generic[AnyRequest]):
    """Requests that engines can be asked together, under one order.

    `claimed_k` is with how many log-probabilities they are claimed: 0 where any answer serves.
    """

    requests: Sequence[AnyRequest]
    order: FillOrder
    claimed_k: int = 0


@dataclass(frozen=True, slots=True)
class Kept:
    """What of some work is in the cache."""

    rows: int
    response_tokens: int


class WantedRows(Protocol[AnyRequest]):
    """What a fill asks for."""

    @property
    def identity(self) -> str:
        """Digest of the teacher that is asked."""
        ...

    def open_work(self, failed: Collection[AnyRequest]) -> list[Work[AnyRequest]]:
        """What nothing in the cache answers and what has not `failed`, in the order in which it is to be asked.

        Looks at the cache anew.
        """
        ...

    def names(self, requests: Sequence[AnyRequest]) -> list[bytes]:
        """What a claim knows each request by."""
        ...

    def missing(self, work: Work[AnyRequest]) -> list[AnyRequest]:
        """The requests of `work` that nothing answers, by a new look at the cache."""
        ...

    def kept(self, work: Work[AnyRequest]) -> Kept:
        """What of `work` the cache holds, by a new look at it."""
        ...


class EnginesDiedError(EngineError):
    """Engines died; `under_way` are the positions of all that they had been handed, answered or not."""

    def __init__(self, message: str, under_way: Sequence[int] = ()) -> None:
        super().__init__(message)
        self.under_way = tuple(under_way)

    def __reduce__(self) -> tuple[type[EnginesDiedError], tuple[str, tuple[int, ...]]]:
        return type(self), (str(self), self.under_way)


class MemoryRanOutError(EnginesDiedError):
    """Engines died of memory, and their next start takes less of it: no row is to blame yet."""


class Engines(Protocol[AnyRequest_contra]):
    """The engines of a fill (`engine_pool.EnginePool`, `signal_engines.SignalPool`)."""

    def fill(
        self,
        work: Iterable[tuple[int, AnyRequest_contra]],
        order: FillOrder,
        *,
        progress: ProgressSink,
        token_budget: int | None,
        seconds_budget: float | None,
    ) -> FillProgress:
        """Work through `work`, requests with their positions, within the budgets and commit the records.

        It is drawn from as engines have room; what is drawn was claimed.

        Raises:
            EngineError: engines died; what they had committed before is kept. It is an `EnginesDiedError` where it is
                known what they were asked.
        """
        ...
