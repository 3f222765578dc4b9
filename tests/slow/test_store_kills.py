"""Two hundred writers of one cache, each killed at a random moment."""

from __future__ import annotations

from pathlib import Path

import pytest
from killed_writers import assert_resumed, kill_at_random
from store_builders import teacher_dir
from store_kinds import KINDS, Kind

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1500)]

KILLS = 200


@pytest.mark.parametrize("kind", KINDS.values(), ids=KINDS.keys())
def test_two_hundred_kills_lose_nothing_and_leave_nothing_wrong(tmp_path: Path, kind: Kind) -> None:
    productive = kill_at_random(tmp_path / "killed", kind, kills=KILLS, count=6000, seed=20, look_every=10)
    # Deaths were of both kinds, after commits and in the middle of them.
    assert productive > KILLS / 10
    assert len(list((teacher_dir(tmp_path / "killed") / "staging").iterdir())) > KILLS / 10
    assert_resumed(tmp_path / "killed", tmp_path / "undisturbed", kind, count=6000)
