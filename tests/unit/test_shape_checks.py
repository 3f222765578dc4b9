"""Arrays are checked against the signatures of the functions that take and give them, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import pytest
from jaxtyping import Float, TypeCheckError
from shape_checks import with_checked_arrays

from cache.identity import TeacherIdentity
from cache.records import TeacherRecord, tail_logmass

Rows = Float[np.ndarray, "N K"]


def takes(rows: Float[np.ndarray, "N K"], more: Float[np.ndarray, " N"]) -> None: ...


def takes_inside(rows: Mapping[str, list[Rows] | None], more: int = 0) -> None: ...


def gives(shape: tuple[int, ...]) -> Rows:
    return np.zeros(shape)


def plain(rows: int, more: list[str]) -> Mapping[str, int]:
    return {}


@dataclass
class Holder:
    rows: Rows | None


@dataclass
class Named:
    name: str


@pytest.mark.parametrize(
    ("function", "right", "wrong"),
    [
        (takes, (np.zeros((2, 3)), np.zeros(2)), (np.zeros((2, 3)), np.zeros(3))),
        (takes_inside, ({"a": [np.zeros((2, 3))]},), ({"a": [np.zeros(3)]},)),
        (gives, ((2, 3),), ((2,),)),
        (Holder, (np.zeros((2, 3)),), (np.zeros(3),)),
    ],
)
def test_an_array_is_checked_wherever_the_signature_has_it(
    function: Callable[..., object], right: tuple[object, ...], wrong: tuple[object, ...]
) -> None:
    decorated = with_checked_arrays(function)
    decorated(*right)
    with pytest.raises(TypeCheckError):
        decorated(*wrong)


def test_what_has_no_array_is_left_as_it_is() -> None:
    assert with_checked_arrays(plain) is plain
    init = Named.__init__
    assert with_checked_arrays(Named).__init__ is init


def test_the_packages_are_checked_in_that_way() -> None:
    assert hasattr(tail_logmass, "__wrapped__") and hasattr(TeacherRecord.__init__, "__wrapped__")
    assert not hasattr(TeacherIdentity.digest, "__wrapped__")
    with pytest.raises(TypeCheckError, match="tail_logmass"):
        tail_logmass(np.zeros(3, dtype=np.float32), vocab=10)
