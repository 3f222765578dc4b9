"""Secrets are kept out of everything that is written."""

from __future__ import annotations

import pytest

from configs import redact
from configs.secrets import SECRET_SUFFIXES


@pytest.mark.parametrize("suffix", SECRET_SUFFIXES)
def test_a_secret_of_the_environment_is_shown_by_its_name(suffix: str) -> None:
    environ = {f"OUR_{suffix}".lower(): "hunter2", "OUR_NAME": "plain", f"SHORT_{suffix}": "abc"}
    assert (
        redact("abc hunter2 plain hunter2", environ=environ)
        == f"abc <our_{suffix.lower()}> plain <our_{suffix.lower()}>"
    )


def test_a_secret_within_another_leaves_nothing_of_it_behind() -> None:
    assert redact("hunter2-long", environ={"A_KEY": "hunter2", "B_KEY": "hunter2-long"}) == "<B_KEY>"


def test_a_password_of_a_uri_is_hidden_with_them() -> None:
    assert redact("http://me:hunter2@host", environ={}) == "http://me:<password>@host"


@pytest.mark.parametrize("value", ["test", "train", "kd", "data", "teacher", "bfloat16", "runtime", "TRUE", "tracking"])
def test_words_of_our_own_are_no_secrets(value: str) -> None:
    message = "data.test.path, eval/test/rouge_l, train/loss, runtime.tracking_uri=..., teacher bfloat16 kd true"
    assert redact(message, environ={"SECRET_KEY": value}) == message


def test_an_escaped_secret_is_hidden_too() -> None:
    environ = {"DB_PASSWORD": "p@ss/word"}
    assert redact("a p%40ss%2Fword b p@ss/word", environ=environ) == "a <DB_PASSWORD> b <DB_PASSWORD>"
