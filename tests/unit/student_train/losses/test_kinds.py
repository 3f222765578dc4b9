"""Kinds of divergence: their parameters are those of the configuration, and the few that are done by hand."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from configs.divergences import Divergence
from configs.errors import ConfigError
from student_train.losses.kinds import KINDS, LOG_FLOOR, Events, bound, complete

DEFAULTS: dict[str, dict[str, Any]] = {
    "jsd": {"beta": 0.5},
    "skew_kl": {"alpha": 0.1},
    "skew_reverse_kl": {"alpha": 0.1},
    "adaptive_kl": {"mu": 0.5},
    "alpha_beta": {"a": 0.2, "b": 0.7},
}


def events(teacher: list[float], student: list[float], *, tokens: int | None = None) -> Events:
    p, q = (torch.tensor([side], dtype=torch.float64).log() for side in (teacher, student))
    return Events(p, q, tokens=len(teacher) if tokens is None else tokens)


def test_defaults_are_those_of_the_configuration() -> None:
    schema: TypeAdapter[Divergence] = TypeAdapter(Divergence)
    for kind in KINDS:
        assert complete(kind, {}) == DEFAULTS.get(kind, {})
        assert schema.validate_python(kind).model_dump() == {"kind": kind, **DEFAULTS.get(kind, {})}
    assert complete("alpha_beta", {"a": 0.3}) == {"a": 0.3, "b": 0.7}


@pytest.mark.parametrize(
    ("kind", "parameters", "message"),
    [
        ("kl", {}, "divergence=kl is unknown: choose one of forward_kl, "),
        ("forward_kl", {"beta": 0.3}, "divergence=forward_kl with beta=0.3: it takes no beta"),
        ("jsd", {"alpha": 0.3}, "it takes no alpha"),
        ("jsd", {"beta": 1.0}, "divergence=jsd with beta=1: beta: .* less than 1"),
        ("skew_kl", {"alpha": -0.1}, "alpha: .* greater than or equal to 0"),
        ("adaptive_kl", {"mu": math.nan}, "mu: "),
        ("alpha_beta", {"a": 0.5, "b": -0.5}, "neither may be 0 .* nor may their sum"),
        ("alpha_beta", {"a": 0.0, "b": 0.5}, "neither may be 0"),
    ],
)
def test_parameters_that_cannot_be_are_refused_by_name(kind: str, parameters: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        complete(kind, parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("forward_kl", 0.5 * math.log(2) + 0.5 * math.log(2 / 3)),
        ("reverse_kl", 0.25 * math.log(0.5) + 0.75 * math.log(1.5)),
        ("tvd", 0.25),
        # m = (3/8, 5/8)
        ("jsd", 0.25 * math.log(4 / 3) + 0.25 * math.log(4 / 5) + 0.125 * math.log(2 / 3) + 0.375 * math.log(6 / 5)),
    ],
)
def test_two_events_by_hand(kind: str, expected: float) -> None:
    value = bound(kind, complete(kind, {}))(events([0.5, 0.5], [0.25, 0.75]))
    assert float(value) == pytest.approx(expected, rel=1e-12)


def test_the_tail_never_belongs_to_the_head_of_adaptive_kl() -> None:
    # The largest event is the tail; the head is both tokens, h = 0.2 + 0.1 and t = 0.1.
    both = events([0.3, 0.1, 0.6], [0.1, 0.2, 0.7], tokens=2)
    forward, reverse = (float(KINDS[kind](both)) for kind in ("forward_kl", "reverse_kl"))
    assert float(KINDS["adaptive_kl"](both, mu=0.5)) == pytest.approx(0.75 * forward + 0.25 * reverse, rel=1e-12)


def test_what_the_student_holds_impossible_costs_the_floor() -> None:
    value = float(KINDS["forward_kl"](events([0.5, 0.5], [1.0, 0.0])))
    assert value == pytest.approx(0.5 * math.log(0.5) + 0.5 * (math.log(0.5) - LOG_FLOOR), rel=1e-12)
