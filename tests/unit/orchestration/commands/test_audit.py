"""`distill audit`: what it prints, what it keeps, and one line for what it cannot audit."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from audited_runs import audited_run, write_rows

from orchestration.audits import kinds
from orchestration.commands.main import main


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("audit")
    write_rows(root, train=10, dev=6, test=6)
    return audited_run(root, by_heart=False)


def test_an_audit_is_shown_kept_and_shown_again_without_computing(
    directory: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["audit", "privacy", str(directory)]) == 0
    first, said = capfd.readouterr()
    assert "privacy: kd (kd)" in first and "membership: loss" in first and "Note: kd: membership was asked" in first
    assert "Loading weights" not in first + said
    assert (directory / "audits" / "privacy.json").is_file()
    monkeypatch.setattr(kinds, "write_audit", lambda *_: pytest.fail("it was made again"))
    assert main(["audit", "privacy", directory.name, "--run-root", str(directory.parent)]) == 0
    again, _ = capfd.readouterr()
    assert again in first


def test_it_is_plain_data_on_demand(directory: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert main(["audit", "privacy", str(directory), "--json"]) == 0
    printed, _ = capfd.readouterr()
    (audit,) = json.loads(printed)
    assert audit["audit"] == "privacy" and audit["findings"][0]["model"] == "kd"


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (["privacy", "nowhere"], "nowhere: is neither a run directory nor the name of one in"),
        (["privcy", "RUN"], "there is no audit privcy: choose privacy"),
        (["privacy", "RUN", "RUN"], "name one audit at most, and one run"),
        (["privacy", "EMPTY"], "is not a run directory: name the directory of a finished run"),
    ],
)
def test_what_cannot_be_audited_is_one_line(
    directory: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], what: list[str], said: str
) -> None:
    places = {"RUN": str(directory), "EMPTY": str(tmp_path)}
    assert main(["audit", *(places.get(each, each) for each in what)]) == 2
    printed, error = capfd.readouterr()
    assert printed == "" and said in error and error.count("\n") == 1
