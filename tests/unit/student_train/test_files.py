"""Directories that appear whole, their numbers, and what goes along when a model becomes another."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from configs.errors import TrainingError
from configs.places import CURVES, SUMMARY
from student_train.files import copy_companions, numbered
from student_train.handoff.rollouts import RolloutExchange


def test_numbers_are_compared_as_numbers(tmp_path: Path) -> None:
    for name in ("part-999", "part-1000", "part-002", "part-10", "part-x", "part-", "part-²", "part--1", "other-5"):
        (tmp_path / name).mkdir()
    assert numbered(tmp_path, "part-") == [
        (number, tmp_path / f"part-{name}") for number, name in ((2, "002"), (10, "10"), (999, "999"), (1000, "1000"))
    ]
    assert numbered(tmp_path / "nothing", "part-") == []


@pytest.mark.parametrize("first", [8, 98, 997, 9_998])
def test_new_weights_stay_where_a_number_gets_one_digit_more(first: int, tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path)
    for version in range(first, first + 5):
        exchange.publish(version, write=lambda folder: (folder / "weights").touch())
        # The one before may be loaded just now; those before it are gone.
        shown = [each for each in range(first, version + 1) if exchange.has_policy(each)]
        assert shown == [each for each in (version - 1, version) if each >= first]
    exchange.withdraw_policies()
    assert list((tmp_path / "policies").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "not an archive", "without the array", "a folder"])
def test_a_damaged_file_of_a_rollout_is_named(damage: str, tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path)
    exchange.keep_behaviour(7, np.arange(500, dtype=np.float32))
    path = exchange.behaviour(7)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "cut": lambda: path.write_bytes(content[:900]),
        "flipped": lambda: path.write_bytes(content),
        "empty": lambda: path.write_bytes(b""),
        "not an archive": lambda: path.write_bytes(b"[" * 4000),
        "without the array": lambda: np.savez(path, other=np.zeros(1)),
        "a folder": lambda: (path.unlink(), path.mkdir()),
    }[damage]()
    with pytest.raises(TrainingError, match=r"behaviour-007\.npz is damaged \("):
        exchange.read_behaviour(7)


def test_what_a_stage_says_of_itself_does_not_pass_to_the_next(tmp_path: Path) -> None:
    before, after = tmp_path / "before", tmp_path / "after"
    before.mkdir()
    after.mkdir()
    for name in (SUMMARY, CURVES, "README.md", "config.json", "model.safetensors", "tokenizer.json", "LICENSE"):
        (before / name).write_text(name)
    copy_companions(before, after)
    assert sorted(path.name for path in after.iterdir()) == ["LICENSE", "tokenizer.json"]
