"""Logging and the process environment: everything into one file, only our own warnings on the console, no secrets.

Foreign parts log a lot and some of them send usage statistics. `quiet_environment` turns the statistics and the
progress bars off; it has to be in `os.environ` (or a worker's environment) before those parts are imported.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import TextIO

from configs.errors import ConfigError
from configs.secrets import redact
from configs.visible_text import visible

PACKAGES = ("configs", "cache", "teacher_server", "student_train", "evaluation", "orchestration")
"""The loggers whose warnings reach the console."""


def configure_logging(log_file: Path, *, level: int = logging.INFO, console: TextIO | None = None) -> None:
    """Send all logging of this process to `log_file` (appended), and our own warnings also to the console.

    Calling it again replaces what an earlier call set up; handlers that others installed stay. Python warnings are
    logged too.

    Args:
        log_file: Created with its parent directories.
        level: What reaches the file.
        console: Where warnings go, one line each without a traceback; standard error if None.

    Raises:
        ConfigError: the file cannot be opened.
    """
    try:
        log_file.parent.mkdir(parents=True, exist_ok=True)
        to_file = _FileHandler(log_file, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        reason = error.strerror or str(error)
        raise ConfigError(f"{log_file}: cannot write the log ({reason}); choose another runtime.run_root") from None
    to_file.setFormatter(_FileFormatter("%(asctime)s %(levelname)s %(process)d %(name)s: %(message)s"))
    to_console = _ConsoleHandler(console)
    to_console.setLevel(logging.WARNING)
    to_console.setFormatter(_ConsoleFormatter())
    to_console.addFilter(_is_ours)
    root = logging.getLogger()
    for handler in [handler for handler in root.handlers if isinstance(handler, _FileHandler | _ConsoleHandler)]:
        root.removeHandler(handler)
        handler.close()
    root.addHandler(to_file)
    root.addHandler(to_console)
    root.setLevel(level)
    logging.captureWarnings(True)  # noqa: FBT003 (the standard library's signature)


def quiet_environment() -> dict[str, str]:
    """Environment variables that turn telemetry and foreign progress bars off, for every part that reads any.

    DeepSpeed sends nothing; its optional monitors are only ever turned on by its configuration.
    """
    return {
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_DO_NOT_TRACK": "1",
        "VLLM_LOGGING_LEVEL": "WARNING",
        "RAY_USAGE_STATS_ENABLED": "0",
        "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
        "TRANSFORMERS_VERBOSITY": "error",
        "DATASETS_VERBOSITY": "error",
        "TQDM_DISABLE": "1",
    }


class _FileHandler(logging.FileHandler):
    """Ours, to be distinguished from handlers that others installed."""


class _ConsoleHandler(logging.StreamHandler[TextIO]):
    """Ours, to be distinguished from handlers that others installed."""


class _FileFormatter(logging.Formatter):
    """UTC times, tracebacks, no secrets. Redacting the finished text also covers arguments and tracebacks."""

    converter = staticmethod(time.gmtime)
    default_time_format = "%Y-%m-%dT%H:%M:%S"
    default_msec_format = "%s.%03dZ"

    def formatMessage(self, record: logging.LogRecord) -> str:
        # A line of the message that is not the first one must not look like a record of its own.
        record.message = visible(record.message, lines=True).replace("\n", "\n    ")
        return super().formatMessage(record)

    def format(self, record: logging.LogRecord) -> str:
        return visible(redact(super().format(record)), lines=True)


class _ConsoleFormatter(logging.Formatter):
    """`warning: what happened`; the traceback stays in the file."""

    def format(self, record: logging.LogRecord) -> str:
        return visible(redact(f"{record.levelname.lower()}: {record.getMessage()}"))


def _is_ours(record: logging.LogRecord) -> bool:
    return record.name.partition(".")[0] in PACKAGES
