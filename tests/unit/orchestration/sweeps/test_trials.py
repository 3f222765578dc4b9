"""What trials gave outlives a kill at any byte."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.sweeps.trials import Outcome, Trial, TrialLog

DONE = Outcome("", {"dev/forward_kl": 0.5}, 100, 60.0, 2.0, 0, "runs/a")
TRIALS = [Trial(0, {"a": 1.5, "b": {"kind": "jsd"}}, DONE), Trial(1, {"a": 2, "b": "x"})]


def test_the_last_line_of_a_trial_counts(tmp_path: Path) -> None:
    log = TrialLog(tmp_path / "trials.jsonl")
    log.write(Trial(0, TRIALS[0].values))
    for trial in TRIALS:
        log.write(trial)
    assert TrialLog(tmp_path / "trials.jsonl").trials == {0: TRIALS[0], 1: TRIALS[1]}


@pytest.mark.parametrize("cut", range(2, 40, 3))
def test_a_line_that_was_cut_short_is_left_out_and_the_next_is_whole(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "trials.jsonl"
    log = TrialLog(path)
    for trial in TRIALS:
        log.write(trial)
    path.write_bytes(path.read_bytes()[:-cut])
    again = TrialLog(path)
    assert again.trials == {0: TRIALS[0]}
    again.write(TRIALS[1])
    assert TrialLog(path).trials == {0: TRIALS[0], 1: TRIALS[1]}


@pytest.mark.parametrize(
    "line", [b"{}", b"[]", b"null", b'{"number": 0}', b"\xff", b'{"number":0,"values":3,"outcome":null}']
)
def test_what_is_not_a_trial_is_left_out(tmp_path: Path, line: bytes) -> None:
    (tmp_path / "trials.jsonl").write_bytes(line + b"\n")
    assert TrialLog(tmp_path / "trials.jsonl").trials == {}


def test_a_trial_is_judged_by_what_it_gave() -> None:
    assert TRIALS[0].score("dev/forward_kl") == 0.5
    assert TRIALS[0].score("dev/loss") is None
    assert TRIALS[1].score("dev/forward_kl") is None
    failed = Trial(2, {}, Outcome.failed("out of memory", seconds=1.0))
    assert failed.failed and failed.score("dev/forward_kl") is None
