"""The fixture of every folder whose tests commit much to a store."""

from __future__ import annotations

import os

import pytest


@pytest.fixture(autouse=True)
def unsynced(monkeypatch: pytest.MonkeyPatch) -> None:
    """No fsync, of which a commit needs about seventy: only a power cut would tell, and no test cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda _: None)
