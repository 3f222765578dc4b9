"""Logging: one file for everything, the console for our warnings alone, and never a secret."""

from __future__ import annotations

import io
import logging
import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from configs import ConfigError, configure_logging, quiet_environment, redact

SECRET = "s3cr3t-value"


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in [handler for handler in root.handlers if handler not in handlers]:
        root.removeHandler(handler)
        handler.close()
    root.setLevel(level)
    logging.captureWarnings(False)


def test_everything_reaches_the_file_and_only_our_warnings_the_console(tmp_path: Path) -> None:
    console = io.StringIO()
    configure_logging(tmp_path / "deep" / "run.log", console=console)
    logging.getLogger("cache.store").info("a detail")
    logging.getLogger("cache.store").warning("a %s", "worry")
    logging.getLogger("urllib3.pool").warning("foreign noise")
    logging.getLogger("cachet").warning("not ours either")
    text = (tmp_path / "deep" / "run.log").read_text()
    assert all(words in text for words in ("a detail", "a worry", "foreign noise", "not ours either"))
    assert console.getvalue() == "warning: a worry\n"


def test_the_traceback_stays_in_the_file(tmp_path: Path) -> None:
    console = io.StringIO()
    configure_logging(tmp_path / "run.log", console=console)
    try:
        raise RuntimeError("deep down")
    except RuntimeError:
        logging.getLogger("orchestration").exception("it failed")
    assert console.getvalue() == "error: it failed\n"
    assert "RuntimeError: deep down" in (tmp_path / "run.log").read_text()


def test_configuring_twice_moves_to_the_second_file_and_repeats_nothing(tmp_path: Path) -> None:
    console = io.StringIO()
    configure_logging(tmp_path / "first.log", console=io.StringIO())
    configure_logging(tmp_path / "second.log", console=console)
    logging.getLogger("cache").warning("once")
    assert (tmp_path / "first.log").read_text() == ""
    assert (tmp_path / "second.log").read_text().count("once") == 1
    assert console.getvalue().count("once") == 1


def test_an_earlier_log_is_continued(tmp_path: Path) -> None:
    (tmp_path / "run.log").write_text("before\n")
    configure_logging(tmp_path / "run.log", console=io.StringIO())
    logging.getLogger("cache").warning("after")
    assert (tmp_path / "run.log").read_text().startswith("before\n")


def test_python_warnings_go_to_the_file(tmp_path: Path) -> None:
    console = io.StringIO()
    configure_logging(tmp_path / "run.log", console=console)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old style", DeprecationWarning, stacklevel=1)
    assert "old style" in (tmp_path / "run.log").read_text()
    assert console.getvalue() == ""


def test_a_log_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError) as caught:
        configure_logging(tmp_path / "file" / "run.log")
    assert str(tmp_path / "file" / "run.log") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["HF_TOKEN", "AWS_SECRET_ACCESS_KEY", "APP_SECRET", "DB_PASSWORD", "lower_token"])
def test_no_secret_reaches_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, SECRET)
    console = io.StringIO()
    configure_logging(tmp_path / "run.log", console=console)
    logger = logging.getLogger("orchestration")
    message = f"in the message: {SECRET}"
    logger.warning(message)
    logger.warning("as an argument: %s", {"header": f"Bearer {SECRET}"})
    try:
        raise RuntimeError(f"in a traceback: {SECRET}")
    except RuntimeError:
        logger.exception("failed")
    text = (tmp_path / "run.log").read_text()
    assert SECRET not in text + console.getvalue()
    assert text.count(f"<{name}>") >= 3


def test_a_secret_inside_another_leaves_nothing_behind() -> None:
    environ = {"A_KEY": "abcd", "B_KEY": "abcdefgh"}
    assert redact("x abcdefgh abcd", environ=environ) == "x <B_KEY> <A_KEY>"


def test_other_variables_and_very_short_values_are_left_alone() -> None:
    assert redact("home 1", environ={"HOME": "home", "FLAG_KEY": "1", "EMPTY_TOKEN": ""}) == "home 1"


PROBE = """
import vllm.envs, huggingface_hub.constants as hub, datasets.config as data, mlflow.environment_variables as mlflow
from ray._common.usage.usage_lib import usage_stats_enabled
assert vllm.envs.VLLM_NO_USAGE_STATS and vllm.envs.VLLM_DO_NOT_TRACK
assert hub.HF_HUB_DISABLE_TELEMETRY and hub.HF_HUB_DISABLE_PROGRESS_BARS and data.HF_DATASETS_DISABLE_PROGRESS_BARS
assert mlflow.MLFLOW_DISABLE_TELEMETRY.get()
assert not usage_stats_enabled()
"""


@pytest.mark.slow
def test_the_libraries_themselves_see_telemetry_turned_off() -> None:
    kept = {name: os.environ[name] for name in ("PATH", "HOME") if name in os.environ}
    subprocess.run([sys.executable, "-c", PROBE], env=kept | quiet_environment(), check=True, timeout=240)


def test_a_message_cannot_pretend_to_be_another_record_nor_drive_a_terminal(tmp_path: Path) -> None:
    console = io.StringIO()
    configure_logging(tmp_path / "run.log", console=console)
    logging.getLogger("cache").warning("prompt %s", "x\n2026-01-01T00:00:00.000Z ERROR 1 cache: forged\x1b[2J\u202e\r")
    text = (tmp_path / "run.log").read_text()
    assert [line[:4] for line in text.splitlines()] == [text[:4], "    "]
    shown = "2026-01-01T00:00:00.000Z ERROR 1 cache: forged\\x1b[2J\\u202e\\r"
    assert text.endswith(f"    {shown}\n")
    assert console.getvalue() == f"warning: prompt x\\n{shown}\n"
