"""Contenders take turns, each step in its own process; one that fails says why and harms nobody."""

from __future__ import annotations

from functools import partial

import pytest
from toy_benchmarks import contend, contend_and_die

from benchmarks.turns import ContenderFailed, best_of_turns, stepping


def test_the_best_of_each_is_that_of_its_own_steps() -> None:
    with stepping(contend) as quick, stepping(partial(contend, work=0.05)) as slow:
        best = best_of_turns({"quick": quick, "slow": slow}, rounds=3)
    assert best["slow"] >= 0.05 > best["quick"] >= 0.0


def test_a_contender_that_fails_says_why_in_one_line_and_the_other_goes_on() -> None:
    with stepping(contend) as other:
        with stepping(partial(contend, at_most=1)) as step:
            step()
            with pytest.raises(ContenderFailed, match=r"^ValueError: out of batches$"):
                step()
        assert other() >= 0.0


def test_a_contender_whose_process_dies_is_told_too() -> None:
    with stepping(contend_and_die) as step, pytest.raises(ContenderFailed, match="its process ended with code 4"):
        step()
