"""The door of a shared teacher in a configuration: an address, and no secret."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs import ConfigError, DistillConfig, load_config
from configs.doors import DoorConfig

TINY = Path(__file__).parents[3] / "configs/tiny.yaml"
HIDDEN = "stillroom_very-hidden"


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("https://teacher.example:8100", "teacher.example:8100"),
        ("https://teacher.example/door", "teacher.example"),
        ("http://127.0.0.1:8100", "127.0.0.1:8100"),
        ("http://localhost:8100", "localhost:8100"),
        ("http://[::1]:8100", "[::1]:8100"),
    ],
)
def test_text_is_the_address_of_a_door(url: str, host: str) -> None:
    door = DoorConfig.model_validate(url)
    assert (door.url, door.host, door.token_env, door.teacher) == (url, host, "STILLROOM_TOKEN", None)


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("http://teacher.example:8100", "would take the token unencrypted to another machine: write https://"),
        ("http://10.0.0.3", "unencrypted"),
        (f"https://me:{HIDDEN}@teacher.example", "url of teacher.example holds a user or password"),
        (f"https://{HIDDEN}@teacher.example", "holds a user or password"),
        (f"https://teacher.example?token={HIDDEN}", "goes on behind its path"),
        (f"https://teacher.example#{HIDDEN}", "goes on behind its path"),
        ("teacher.example:8100", "is not the address of a door: write it as https://HOST:PORT"),
        ("ftp://teacher.example", "is not the address of a door"),
        ("https://teacher.example:port", "is not the address of a door"),
        ("https://", "is not the address of a door"),
        ({"url": "https://teacher.example", "token_env": HIDDEN}, "token_env names no environment variable that ends"),
        ({"url": "https://teacher.example", "token_env": "A B_TOKEN"}, "token_env names no environment variable"),
        ({"url": "https://teacher.example", "token": HIDDEN}, "token"),
    ],
)
def test_what_is_no_door_or_gives_a_secret_away_is_refused_in_one_line(said: Any, why: str) -> None:
    with pytest.raises(ValidationError) as raised:
        DoorConfig.model_validate(said)
    (error,) = raised.value.errors()
    assert why in error["msg"] or why in error["loc"]
    assert HIDDEN not in error["msg"]


@pytest.mark.parametrize(
    "override",
    [
        f"teacher.serve=https://me:{HIDDEN}@teacher.example",
        f"teacher.serve={{url: 'https://teacher.example', token_env: {HIDDEN}}}",
    ],
)
def test_whoever_writes_a_secret_does_not_read_it_in_the_error(override: str) -> None:
    with pytest.raises(ConfigError, match=r"teacher\.serve") as raised:
        load_config(TINY, overrides=[override])
    assert HIDDEN not in str(raised.value)


def config_with(*overrides: str) -> DistillConfig:
    return load_config(TINY, overrides=list(overrides))


def test_where_the_teacher_answers_changes_no_number() -> None:
    alone = config_with()
    served = config_with("teacher.serve=https://teacher.example:8100")
    moved = config_with("teacher.serve={url: 'https://other.example', teacher: big, patience_s: 5}")
    assert alone.digest() == served.digest() == moved.digest()
    assert "serve" not in alone.model_dump(mode="json")["teacher"]
    assert served.teacher.serve is not None


def test_engines_of_a_served_teacher_limit_nothing() -> None:
    tight = "runtime.teacher_engine.max_model_len=100"
    with pytest.raises(ConfigError, match=r"runtime\.teacher_engine\.max_model_len=100"):
        config_with(tight)
    served = config_with(tight, "teacher.serve=https://teacher.example:8100")
    assert served.longest_asked == served.data.max_prompt_tokens + 12 + 1
