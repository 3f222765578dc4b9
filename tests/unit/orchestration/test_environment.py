"""Users without a home directory or a name, as in a container under a bare user id; the versions of what runs."""

from __future__ import annotations

import getpass
import os
import pwd
import subprocess
from pathlib import Path

import pytest

from configs import ConfigError
from orchestration import environment
from orchestration.commands.main import main
from orchestration.environment import code_commit, installed_versions, require_home

AUTHOR = ("-c", "user.name=n", "-c", "user.email=n@n")
NAMES = ("LOGNAME", "USER", "LNAME", "USERNAME")


@pytest.fixture
def nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(user: int) -> pwd.struct_passwd:
        raise KeyError(f"getpwuid(): uid not found: {user}")

    monkeypatch.setattr(pwd, "getpwuid", unknown)
    for name in ("HOME", *NAMES):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.usefixtures("nobody")
def test_no_home_is_one_line_with_the_cure(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match=rf"HOME is not set and user id {os.getuid()} .*: set HOME to"):
        require_home()
    assert main(["report", "--config", "configs/tiny.yaml"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.usefixtures("nobody")
def test_a_user_without_a_name_gets_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    # Set here so that it is taken back after the test.
    monkeypatch.setenv("USER", "")
    require_home()
    assert getpass.getuser() == os.environ["USER"] == f"user-{os.getuid()}"


def test_who_has_both_keeps_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOGNAME", "somebody")
    monkeypatch.delenv("USER", raising=False)
    require_home()
    assert getpass.getuser() == "somebody" and "USER" not in os.environ


def test_the_commit_of_a_working_copy_says_whether_files_differ_and_installed_code_has_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = tmp_path / "orchestration"
    package.mkdir()
    (package / "environment.py").write_text("")
    monkeypatch.setattr(environment, "__file__", str(package / "environment.py"))
    assert code_commit() == ""
    for command in (["init", "-q"], ["add", "."], [*AUTHOR, "commit", "-qm", "first"]):
        subprocess.run(["git", "-C", str(tmp_path), *command], check=True)
    commit = code_commit()
    assert len(commit) == 40
    (package / "environment.py").write_text("changed = True")
    assert code_commit() == f"{commit} with changes"


def test_versions_are_of_what_is_installed() -> None:
    found = installed_versions()
    assert set(found) == {"vllm", "stillroom", "torch", "transformers", "deepspeed", "ray"}
    assert found["torch"].startswith("2.") and found["vllm"] != "unknown"
