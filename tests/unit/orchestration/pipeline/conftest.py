"""What the tests of sessions, and of what computes in them, share: a Ray that is not there."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from orchestration.pipeline import session


@pytest.fixture
def ray_calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What is done to Ray, in order; a cluster has three nodes."""
    noted: list[str] = []

    @contextmanager
    def cluster(*, address: str | None, gpus: int) -> Iterator[None]:
        noted.append(f"attach to {address} with {gpus} GPUs")
        yield
        noted.append("detach")

    monkeypatch.setattr(session, "cluster", cluster)
    monkeypatch.setattr(session, "require_gpus", lambda address: noted.append(f"require GPUs at {address}"))
    monkeypatch.setattr(session, "probe_roots", lambda roots: noted.append(f"probe {', '.join(roots)}") or 3)
    return noted
