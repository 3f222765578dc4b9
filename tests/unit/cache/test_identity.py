"""What a teacher is: every field is in its digest."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from cache.identity import RemoteTeacherIdentity, TeacherIdentity, parse_identity

REMOTE = RemoteTeacherIdentity(provider="p", model="m", revision="r")


IDENTITY = TeacherIdentity(weights_sha256="00" * 32, config_sha256="11" * 32)


GOLDEN = json.loads(Path(__file__).with_name("golden_keys.json").read_text())


DIGEST = GOLDEN["identity"]


@pytest.mark.parametrize("change", [{"provider": "b"}, {"model": "b"}, {"revision": "b"}, {"epoch": 2}])
def test_every_field_of_a_remote_identity_changes_its_digest(change: dict[str, Any]) -> None:
    assert dataclasses.replace(REMOTE, **change).digest() != REMOTE.digest()


def test_a_remote_teacher_is_marked_and_read_back() -> None:
    assert IDENTITY.verifiable
    assert not REMOTE.verifiable
    for identity in (IDENTITY, REMOTE):
        assert parse_identity(dataclasses.asdict(identity)) == identity
    with pytest.raises(TypeError):
        parse_identity({"weights": "x"})


@pytest.mark.parametrize("name", [item.name for item in dataclasses.fields(TeacherIdentity)])
def test_every_field_of_an_identity_changes_its_digest(name: str) -> None:
    value: Any = 7 if name == "numerics_epoch" else "other"
    assert dataclasses.replace(IDENTITY, **{name: value}).digest() != DIGEST


def test_an_absent_field_differs_from_an_empty_one() -> None:
    assert dataclasses.replace(IDENTITY, quantization="").digest() != IDENTITY.digest()
