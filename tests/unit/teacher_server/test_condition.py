"""An engine that is busy says so, and one that died or was closed refuses everything from then on."""

from __future__ import annotations

import pytest

from configs.errors import EngineError
from teacher_server.condition import FAULTS, Condition


def test_a_fault_is_fatal_and_says_why_on_one_line() -> None:
    condition = Condition(FAULTS)
    condition.require_free()
    with pytest.raises(EngineError, match=r"died of LookupError: gone with a second line$"), condition.fatal():
        raise LookupError("gone\n with a second line")
    condition.close()
    assert condition.is_broken
    for refuse in (condition.require_whole, condition.require_free):
        with pytest.raises(EngineError, match="it died of LookupError"):
            refuse()


def test_a_foreign_error_is_no_fault() -> None:
    condition = Condition((ValueError,))
    with pytest.raises(KeyError), condition.fatal():
        raise KeyError("the caller's own")
    condition.require_whole()


def test_a_busy_engine_is_whole_but_not_free() -> None:
    condition = Condition(FAULTS)
    condition.busy = True
    condition.require_whole()
    with pytest.raises(EngineError, match="serves another call"):
        condition.require_free()


def test_a_closed_engine_says_so() -> None:
    condition = Condition(FAULTS)
    condition.close()
    with pytest.raises(EngineError, match="it was closed"):
        condition.require_whole()
