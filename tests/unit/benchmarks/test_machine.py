"""The line that says what figures were measured on."""

from __future__ import annotations

import os

from benchmarks.machine import cores, describe_machine, installed


def test_it_names_cores_load_and_the_versions_that_are_there() -> None:
    told = describe_machine(versions=("numpy", "no-such-distribution"))
    assert f"{cores()} cores" in told and ", load " in told
    assert told.endswith(", ".join(installed(("numpy",)))) and "no-such-distribution" not in told


def test_cores_are_those_that_this_process_may_use() -> None:
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    try:
        assert cores() == 1
    finally:
        os.sched_setaffinity(0, allowed)
