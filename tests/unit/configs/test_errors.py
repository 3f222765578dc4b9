"""The error tree: what the command line exits with, and that every error crosses process boundaries."""

from __future__ import annotations

import pickle

import pytest

from configs import errors
from configs.errors import BudgetReached, CacheError, ConfigError, DistillError, RecordError

KINDS = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, DistillError)]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_arrives_whole_in_another_process(kind: type[DistillError]) -> None:
    found = pickle.loads(pickle.dumps(kind("runtime.x=1: is wrong: set it to 2")))
    assert type(found) is kind and str(found) == "runtime.x=1: is wrong: set it to 2"


def test_the_exit_code_says_whether_anything_was_started() -> None:
    assert {kind.__name__: kind.exit_code for kind in KINDS if kind.exit_code != 1} == {
        "ConfigError": 2, "DataError": 2, "ModelError": 2, "BudgetReached": 3,
    }  # fmt: skip


def test_what_a_user_wrote_wrongly_is_a_value_error_and_a_budget_is_not() -> None:
    assert issubclass(ConfigError, ValueError) and issubclass(RecordError, CacheError | ValueError)
    assert not issubclass(BudgetReached, ValueError)
