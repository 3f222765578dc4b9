"""Who answers behind the door of a task experiment, held against the teacher whose files are here."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from served_heads import ServedHeadDoor, serving_head
from served_teachers import TOKEN_ENV
from task_pipeline_builders import TaskPlace, task_place

from cache.identity import RemoteTeacherIdentity
from configs import ConfigError, DoorError
from orchestration.inputs.signal_doors import SignalDoor
from orchestration.inputs.task_teachers import TaskTeacher, open_task_teacher
from orchestration.inputs.tasks import load_task


@pytest.fixture
def place(tmp_path: Path) -> TaskPlace:
    return task_place(tmp_path)


def teacher_of(place: TaskPlace) -> TaskTeacher:
    config = place.run.config
    return open_task_teacher(config, load_task(config.task).config)


@pytest.fixture
def served(place: TaskPlace, monkeypatch: pytest.MonkeyPatch) -> Iterator[ServedHeadDoor]:
    with serving_head(place.root, teacher_of(place), licence="mit") as opened:
        monkeypatch.setenv(TOKEN_ENV, opened.token)
        yield opened


def door(place: TaskPlace, served: ServedHeadDoor, *, teacher: TaskTeacher | None = None, **wanted: Any) -> SignalDoor:
    """The door of the experiment, whose teacher is wanted otherwise than it stands there."""
    settings = place.run.config.teacher.model_copy(update={"licence": "mit"} | wanted)
    return SignalDoor(served.place(), teacher or teacher_of(place), settings)


def test_the_teacher_there_is_the_one_here(place: TaskPlace, served: ServedHeadDoor) -> None:
    here = teacher_of(place)
    with door(place, served).open() as source:
        assert source.identity == here.identity and source.facts.labels == here.model.labels
    said = door(place, served).said(patience_s=1.0)
    host, digest = served.url.removeprefix("http://"), here.identity.digest()[:12]
    assert said == f"seer behind {host} is {digest}, licence mit; it reads texts of up to 16 tokens"
    assert served.token not in repr(door(place, served))


@pytest.mark.parametrize(
    ("field", "said"), [("config_sha256", r"another config\.json"), ("weights_sha256", "other weights")]
)
def test_another_model_is_refused_with_both_sides(
    place: TaskPlace, served: ServedHeadDoor, field: str, said: str
) -> None:
    here = teacher_of(place)
    other = replace(here, identity=replace(here.identity, **{field: "c" * 64}))
    with pytest.raises(
        ConfigError, match=rf"^teacher\.model=.* has {said} \(c{{12}}\) than seer behind .*name the model"
    ):
        door(place, served, teacher=other).open()
    assert served.moods.questions == 0


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        ({"licence": "apache-2.0"}, r"^teacher\.licence=apache-2\.0, and seer behind .* is under mit"),
        ({"licence": None}, r"^teacher\.licence=not set, and seer behind .* is under mit"),
        ({"max_tokens": 17}, r"^teacher\.max_tokens=17 and seer behind .* reads 16 tokens: lower it"),
    ],
)
def test_a_teacher_that_is_wanted_otherwise_is_refused(
    place: TaskPlace, served: ServedHeadDoor, wanted: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        door(place, served, **wanted).open()
    second = replace(door(place, served, **wanted), key="teachers.second")
    with pytest.raises(ConfigError, match=said.replace("teacher", "teachers.second", 1)):
        second.open()


def test_another_dtype_is_another_teacher(place: TaskPlace, served: ServedHeadDoor) -> None:
    place.values["teacher"]["dtype"] = "bfloat16"
    with pytest.raises(ConfigError, match=r"^teacher\.dtype=bfloat16, and seer behind .* has dtype=float32"):
        door(place, served).open()


def test_a_teacher_whose_weights_nobody_knows_is_another_one(place: TaskPlace, monkeypatch: pytest.MonkeyPatch) -> None:
    declared = RemoteTeacherIdentity("host", "name", "1")
    with serving_head(place.root, teacher_of(place), identity=declared) as opened:
        monkeypatch.setenv(TOKEN_ENV, opened.token)
        with pytest.raises(ConfigError, match=r"^teacher\.serve: seer behind .* is host/name, whose weights nobody"):
            door(place, opened).open()


def test_a_door_that_lets_nobody_in_or_is_away_is_named(
    place: TaskPlace, served: ServedHeadDoor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN_ENV, "wrong")
    with pytest.raises(DoorError, match=r"^teacher\.serve: the door refused /v1/teachers: the token is unknown"):
        door(place, served).open()
    monkeypatch.delenv(TOKEN_ENV)
    with pytest.raises(ConfigError, match=rf"^teacher\.serve\.token_env={TOKEN_ENV} is not set"):
        door(place, served).open()
    monkeypatch.setenv(TOKEN_ENV, served.token)
    away = SignalDoor(served.place(url="http://127.0.0.1:9"), teacher_of(place), place.run.config.teacher)
    with pytest.raises(DoorError, match=r"^teacher\.serve: .*127\.0\.0\.1:9"):
        away.open(patience_s=0.1)
