"""The door of a shared teacher in a configuration: an address, and no secret."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from configs import ConfigError, DistillConfig, load_config
from configs.doors import DoorConfig, OpenAiConfig
from configs.secrets import redact

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
        (
            "http://teacher.example:8100",
            "would take prompts and the token unencrypted to another machine: write https://",
        ),
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


SERVER = {"base_url": "https://api.example/v1", "model": "big", "revision": "2026-11"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"base_url": "http://api.example/v1"}, "would take prompts and the key unencrypted to another machine"),
        ({"base_url": f"https://me:{HIDDEN}@api.example/v1"}, "base_url of api.example holds a user or password"),
        ({"base_url": f"https://api.example/v1?key={HIDDEN}"}, "goes on behind its path: write it as https://HOST/v1"),
        ({"base_url": "api.example"}, "base_url is not the address of a server"),
        ({"key_env": HIDDEN}, "key_env names no environment variable that ends in KEY: name one, e.g. OPENAI_API_KEY"),
        ({"revision": ""}, "at least 1 character"),
        ({"key": HIDDEN}, "key"),
    ],
)
def test_what_is_no_server_or_gives_a_key_away_is_refused_in_one_line(changes: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError) as raised:
        OpenAiConfig.model_validate(SERVER | changes)
    (error,) = raised.value.errors()
    assert why in error["msg"] or why in error["loc"]
    assert HIDDEN not in error["msg"]


def test_a_key_is_in_a_variable_whose_value_is_hidden() -> None:
    assert (
        redact(f"a {HIDDEN}", environ={OpenAiConfig(**SERVER, key_env="MY_KEY").key_env or "": HIDDEN}) == "a <MY_KEY>"
    )


def elsewhere(*overrides: str, **changes: Any) -> DistillConfig:
    server = json.dumps(SERVER | changes)
    return config_with(f"teacher.openai={server}", "teacher.dtype=bfloat16", *overrides)


def test_who_is_declared_is_another_experiment_and_how_it_is_asked_is_none() -> None:
    alone, declared = config_with(), elsewhere()
    assert "openai" not in alone.model_dump(mode="json")["teacher"]
    same = elsewhere(
        "budgets.max_teacher_money=5", base_url="https://api.example:8443/v2", key_env="A_KEY", concurrency=2,
        requests_a_minute=60, patience_s=5, price={"read": 1, "written": 2},
    )  # fmt: skip
    moved = elsewhere(base_url="http://127.0.0.1:8000/v1", provider="api.example")
    assert declared.digest() == same.digest() == moved.digest()
    others = [elsewhere(**each) for each in ({"model": "b"}, {"revision": "b"}, {"provider": "b"}, {"epoch": 2})]
    assert len({each.digest() for each in (alone, declared, *others)}) == 6
    assert declared.label_of_teachers == "big (revision 2026-11, as api.example declares it; unverifiable)"


@pytest.mark.parametrize(
    ("overrides", "why"),
    [
        (["teacher.serve=https://teacher.example"], "the teacher answers in one place, remove one of them"),
        (["teacher.dtype=float16"], "dtype=float16 acts on engines, and big behind api.example has"),
        (["teacher.quantization=fp8"], "quantization=fp8 acts on engines"),
        (["teacher.top_k=0"], r"students\.kd\.stages\.0 has objective=kd, .* teacher\.top_k=0 keeps none .*seqkd"),
        (["budgets.max_teacher_money=5"], "budgets.max_teacher_money=5 and no teacher has a price"),
        (
            ["teacher.openai.price={read: 1, written: 2}", "prices.teacher_million_tokens=3"],
            "prices.teacher_million_tokens=3 and teacher.openai.price are prices of the same tokens",
        ),
    ],
)
def test_what_does_not_go_together_is_refused_with_both_sides(overrides: list[str], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        elsewhere(*overrides)


def test_only_a_server_of_somebody_elses_may_keep_its_beliefs_to_itself() -> None:
    with pytest.raises(ConfigError, match="top_k=0 keeps nothing that a teacher believes"):
        config_with("teacher.top_k=0")
    stages = "[{objective: seqkd, steps: 4, dtype: float32}]"
    students = f"students={{a: {{init: {{model: {{hub: a/b}}}}, stages: {stages}}}}}"
    assert elsewhere("teacher.top_k=0", students).teacher.top_k == 0
