"""Whether an engine can be used: it is free, it serves a call, or it died of something and refuses everything."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from configs.errors import EngineError

FAULTS: tuple[type[Exception], ...] = (
    RuntimeError, ValueError, TypeError, LookupError, AttributeError, AssertionError, OSError, MemoryError,
)  # fmt: skip
"""What the code of an engine may die of."""


class Condition:
    """The condition of one engine. `faults` are the errors that end it; each becomes an `EngineError`."""

    def __init__(self, faults: tuple[type[Exception], ...]) -> None:
        self.busy = False
        self._faults = faults
        self._broken: str | None = None

    @property
    def is_broken(self) -> bool:
        """Whether it died or was closed."""
        return self._broken is not None

    def require_whole(self) -> None:
        """Refuse an engine that is broken.

        Raises:
            EngineError: saying of what.
        """
        if self._broken is not None:
            raise EngineError(f"the engine cannot be used: {self._broken}")

    def require_free(self) -> None:
        """Refuse an engine that is broken or busy.

        Raises:
            EngineError: it died or is closed, or serves another call.
        """
        self.require_whole()
        if self.busy:
            raise EngineError("the engine serves another call: finish or close its iterator first")

    def close(self) -> None:
        """From now on nothing is to be had from it."""
        self._broken = self._broken or "it was closed"

    def died(self, error: Exception) -> EngineError:
        """From now on nothing is to be had from it, and this is why."""
        self._broken = f"it died of {type(error).__name__}: {one_line(error)}"
        return EngineError(f"the engine cannot be used: {self._broken}")

    @contextmanager
    def fatal(self) -> Iterator[None]:
        """Whatever goes wrong within leaves an engine that refuses everything.

        Raises:
            EngineError: it went wrong.
        """
        try:
            yield
        except self._faults as error:
            raise self.died(error) from error


def one_line(error: Exception) -> str:
    """What an error says, cut to a length that a person reads."""
    return " ".join(str(error).split())[:300] or type(error).__name__
