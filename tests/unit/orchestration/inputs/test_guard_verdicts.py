"""What a guard has said is kept whole or not at all, and holds no text."""

from __future__ import annotations

from pathlib import Path

from orchestration.inputs.guard_verdicts import GuardVerdicts, name_of


def test_verdicts_are_there_again_lot_by_lot(tmp_path: Path) -> None:
    first, second, third = (name_of(ids) for ids in ((1, 2), (1, 2, 3), (12,)))
    kept = GuardVerdicts(tmp_path / "guard")
    assert first not in kept
    kept.keep({first: 0.75, second: None})
    kept.keep({third: 0.0})
    again = GuardVerdicts(tmp_path / "guard")
    assert [again.of(each) for each in (first, second, third)] == [0.75, None, 0.0] and first in kept
    assert len(list((tmp_path / "guard").iterdir())) == 2


def test_a_lot_that_cannot_be_read_is_asked_again(tmp_path: Path) -> None:
    GuardVerdicts(tmp_path).keep({name_of((1,)): 0.5})
    (tmp_path / "cut.json").write_text('{"00')
    (tmp_path / "other.json").write_text('{"00": "unsafe"}')
    (tmp_path / "list.json").write_text("[1]")
    kept = GuardVerdicts(tmp_path)
    assert name_of((1,)) in kept and "00" not in kept
