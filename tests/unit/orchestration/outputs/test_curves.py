"""Training curves on disk: nothing twice, nothing torn, nothing lost by a resume."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from configs.places import CURVES
from orchestration.outputs.curves import CurveReader, CurveWriter, read_curve
from student_train.job import StepMetrics


def point(step: int, loss: float = 1.0) -> StepMetrics:
    return StepMetrics(step=step, values={"train/loss": loss, "train/grad_norm": 0.5})


def write(path: Path, *steps: int, loss: float = 1.0) -> None:
    writer = CurveWriter(path)
    for step in steps:
        writer(point(step, loss))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "work" / CURVES


def test_what_was_written_is_read(path: Path) -> None:
    write(path, 1, 2, 3)
    assert read_curve(path) == [point(1), point(2), point(3)]


def test_every_step_is_one_json_object_a_line(path: Path) -> None:
    write(path, 1, 2)
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[1] == {"step": 2, "values": {"train/loss": 1.0, "train/grad_norm": 0.5}}


def test_no_file_is_an_empty_curve(path: Path) -> None:
    assert read_curve(path) == []
    assert CurveReader(path).new() == []


def test_a_resumed_training_replaces_the_steps_that_it_repeats(path: Path) -> None:
    write(path, 1, 2, 3, 4, loss=9.0)
    write(path, 3, 4, 5, loss=1.0)
    assert read_curve(path) == [point(1, 9.0), point(2, 9.0), point(3), point(4), point(5)]


def test_a_training_that_starts_anew_drops_the_old_curve(path: Path) -> None:
    write(path, 1, 2, 3, loss=9.0)
    write(path, 1, loss=1.0)
    assert read_curve(path) == [point(1)]


def test_a_line_cut_short_by_a_kill_is_left_out_and_then_replaced(path: Path) -> None:
    write(path, 1, 2)
    with path.open("a") as stream:
        stream.write('{"step": 3, "values": {"train/lo')
    assert read_curve(path) == [point(1), point(2)]
    write(path, 3, 4)
    assert read_curve(path) == [point(1), point(2), point(3), point(4)]


@pytest.mark.parametrize(
    "damage", [b"{", b"[]", b"\xff", b"[" * 100_000, b'{"step": 2}', b'{"step": "x", "values": {}}', b"9" * 9_000]
)
def test_a_damaged_line_is_left_out(path: Path, damage: bytes) -> None:
    write(path, 1, 2, 3)
    first, _, last = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join((first, damage, last, b"")))
    assert read_curve(path) == [point(1), point(3)]


def test_a_resume_killed_while_it_cuts_the_curve_loses_no_step(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(path, 1, 2, 3)

    def die(*names: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", die)
    with pytest.raises(KeyboardInterrupt):
        write(path, 3)
    assert read_curve(path) == [point(1), point(2), point(3)]


def test_a_follower_gets_every_step_once(path: Path) -> None:
    reader = CurveReader(path)
    writer = CurveWriter(path)
    writer(point(1))
    writer(point(2))
    assert [p.step for p in reader.new()] == [1, 2]
    assert reader.new() == []
    writer(point(3))
    assert [p.step for p in reader.new()] == [3]


def test_a_follower_does_not_repeat_what_a_resume_wrote_again(path: Path) -> None:
    reader = CurveReader(path)
    write(path, 1, 2, 3)
    reader.new()
    write(path, 2, 3, 4)
    assert [p.step for p in reader.new()] == [4]


def test_a_follower_waits_for_the_end_of_a_line(path: Path) -> None:
    write(path, 1)
    reader = CurveReader(path)
    reader.new()
    line = json.dumps({"step": 2, "values": {"train/loss": 1.0}})
    with path.open("a") as stream:
        stream.write(line[:10])
        stream.flush()
        assert reader.new() == []
        stream.write(line[10:] + "\n")
    assert [p.step for p in reader.new()] == [2]


def test_a_loss_that_is_no_number_survives(path: Path) -> None:
    write(path, 1, loss=math.nan)
    assert math.isnan(read_curve(path)[0].values["train/loss"])


def test_two_points_of_one_step_are_both_followed(path: Path) -> None:
    reader, writer = CurveReader(path), CurveWriter(path)
    writer(point(1))
    assert reader.new() == [point(1)]
    held_out = StepMetrics(step=1, values={"dev/loss": 2.0})
    writer(held_out)
    assert reader.new() == [held_out]
    assert reader.new() == []


def test_what_was_read_is_not_read_again(path: Path) -> None:
    write(path, 1, 2)
    reader = CurveReader(path)
    assert reader.new() == [point(1), point(2)]
    content = path.read_bytes()
    with path.open("r+b") as stream:
        stream.write(content.replace(b'"step": 1', b'"step": 7'))
    line = json.dumps({"step": 3, "values": {"train/loss": 1.0, "train/grad_norm": 0.5}}).encode()
    with path.open("ab") as stream:
        stream.write(line[:20])
        stream.flush()
        assert reader.new() == []
        stream.write(line[20:] + b"\n")
    assert reader.new() == [point(3)]
    assert CurveReader(path).new() == [point(7), point(2), point(3)]


def test_a_curve_that_became_shorter_in_place_is_read_from_its_beginning(path: Path) -> None:
    write(path, 1, 2, 3)
    reader = CurveReader(path)
    assert len(reader.new()) == 3
    path.write_bytes(path.read_bytes().replace(b'"step": 1', b'"step": 9')[:70])
    assert [each.step for each in reader.new()] == [9]
