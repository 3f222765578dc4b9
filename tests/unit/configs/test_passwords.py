"""Passwords in URIs are found, hidden, and refused in a configuration."""

from __future__ import annotations

from pathlib import Path

import pytest

from configs import ConfigError, DistillConfig, load_config
from configs.passwords import has_password, hide_passwords, passwords_in

WITH_PASSWORD = [
    "http://user:hunter2@tracking.example:5000",
    "postgresql+psycopg2://user:hun@hunter2@db.example/mlflow",
    "mysql://:hunter2@db.example/x",
    "https://tracking.example/?access_token=hunter2",
    "postgresql://db.example/x?user=me&password=hunter2&sslmode=require",
    "az://account/container?sig=hunter2",
    "https://hunter2@tracking.example",
    "https:/user:hunter2@tracking.example/x.jsonl",
]
WITHOUT = [
    "http://127.0.0.1:5000",
    "sqlite:////home/me@work/a:b/mlflow.db",
    "postgresql://user@db.example:5432/mlflow",
    "s3://bucket/prefix",
    "https://x.example/?page=2",
    "Write to http://user:pass@host and say so.",
    "a:b@c",
    "https://x.example/@user",
    "https://x.example?to=me@y.example",
]


@pytest.mark.parametrize("uri", WITH_PASSWORD)
def test_a_password_in_a_uri_is_never_shown(uri: str) -> None:
    assert has_password(uri)
    hidden = hide_passwords(f'no answer from "{uri}" (twice: {uri})')
    assert "hunter2" not in hidden
    assert hidden.count("<password>") == 2
    assert hide_passwords(hidden) == hidden


@pytest.mark.parametrize("text", WITHOUT)
def test_other_text_is_no_secret(text: str) -> None:
    assert not has_password(text)


@pytest.mark.parametrize(
    ("key", "cure"),
    [
        ("runtime.tracking_uri", "MLFLOW_TRACKING_PASSWORD"),
        ("runtime.cache_root", "AWS_SECRET_ACCESS_KEY"),
        ("runtime.ray_address", "leave it out of the URI"),
        ("data.train.path", "leave it out of the URI"),
    ],
)
def test_a_configuration_with_a_password_is_refused_with_the_cure(key: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("configs/quickstart.yaml"), overrides=[f"{key}=s3://key:hunter2@bucket/x"])
    message = str(caught.value)
    assert f"{key} holds a URI with a password" in message
    assert cure in message
    assert "hunter2" not in message and "\n" not in message


def test_so_is_one_that_a_program_makes() -> None:
    raw = load_config(Path("configs/quickstart.yaml")).model_dump()
    raw["runtime"]["tracking_uri"] = WITH_PASSWORD[0]
    with pytest.raises(ValueError, match="holds a URI with a password") as caught:
        DistillConfig.model_validate(raw)
    assert "MLFLOW_TRACKING_PASSWORD" in str(caught.value)


def test_keys_of_passwords_are_named_wherever_they_stand() -> None:
    tree = {"a": [{"b": WITH_PASSWORD[0]}, 3], "c": WITHOUT[0], "d": WITH_PASSWORD[1]}
    assert list(passwords_in(tree)) == ["a.0.b", "d"]


def test_a_password_under_a_wrong_key_is_not_printed() -> None:
    with pytest.raises(ConfigError) as caught:
        load_config(Path("configs/quickstart.yaml"), overrides=[f"data.train.limit={WITH_PASSWORD[0]}"])
    assert "hunter2" not in str(caught.value)
