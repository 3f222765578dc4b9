"""The stateful test of the store, long and different each time."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, settings
from store_machine import StoreMachine

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the short test: no test cuts the power."""
    monkeypatch.setattr("os.fsync", lambda _: None)


class TestStoreForLong(StoreMachine.TestCase):  # type: ignore[misc, name-defined]
    settings = settings(
        max_examples=50,
        stateful_step_count=40,
        deadline=None,
        derandomize=False,
        print_blob=True,
        suppress_health_check=list(HealthCheck),
    )
