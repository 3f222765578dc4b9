"""What a process prints goes to a file, whoever in it prints; the terminal stays for our own lines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from configs.regular_files import UnreadableFileError
from orchestration.outputs.redirect import terminal_kept


def test_everything_goes_to_the_file_but_what_is_written_to_the_terminal(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    log = tmp_path / "logs" / "run.log"
    with terminal_kept(log) as terminal:
        os.write(1, b"of a library\n")
        subprocess.run([sys.executable, "-c", "import sys; sys.stderr.write('of a child\\n')"], check=True)
        terminal.write("for a person\n")
    os.write(1, b"afterwards\n")
    assert log.read_text() == "of a library\nof a child\n"
    assert capfd.readouterr().out == "for a person\nafterwards\n"


def test_a_log_is_added_to(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    for word in (b"one\n", b"two\n"):
        with terminal_kept(tmp_path / "run.log"):
            os.write(2, word)
    assert (tmp_path / "run.log").read_text() == "one\ntwo\n"


def test_what_is_not_a_file_is_refused_and_nothing_is_redirected(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    os.mkfifo(tmp_path / "run.log")
    with pytest.raises(UnreadableFileError), terminal_kept(tmp_path / "run.log"):
        pass
    os.write(1, b"still here\n")
    assert capfd.readouterr().out == "still here\n"
