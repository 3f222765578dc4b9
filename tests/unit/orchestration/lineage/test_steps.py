from __future__ import annotations

from orchestration.lineage.steps import compared


def test_a_digest_that_is_another_one_is_told_with_both() -> None:
    assert compared("named", "data", found="a" * 64, wanted="a" * 64).state == "holds"
    step = compared("named", "data", found="b" * 64, wanted="a" * 64)
    assert (step.state, step.says) == ("broken", f"data does not hold what it held: {'b' * 12}, not {'a' * 12}")
