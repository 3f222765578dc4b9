"""`distill serve token`: made, listed, revoked; shown once."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestration.commands.main import main
from orchestration.commands.serve_tokens import TOKENS
from teacher_server.http.guard import TokenStore

TINY = Path(__file__).resolve().parents[4] / "configs" / "tiny.yaml"


def run(root: Path, *arguments: str) -> int:
    return main(["serve", "--config", str(TINY), "--set", f"runtime.run_root={root}", "token", *arguments])


def test_a_token_is_made_listed_and_revoked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "new", "team", "--scope", "read", "--days", "2") == 0
    shown = capsys.readouterr()
    token, store = shown.out.strip(), TokenStore(tmp_path / TOKENS)
    assert "only time" in shown.err
    key = store.find(token)
    assert key is not None and (key.name, key.scopes) == ("team", ("read",)) and key.expires is not None
    assert token not in (tmp_path / TOKENS).read_text()

    assert run(tmp_path, "list") == 0
    listed = capsys.readouterr().out
    assert "team" in listed and "read" in listed and token not in listed

    assert run(tmp_path, "revoke", "team") == 0
    assert store.find(token) is None
    assert run(tmp_path, "list") == 0
    assert "(revoked)" in capsys.readouterr().out


def test_what_cannot_be_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path, "revoke", "nobody") == 2
    assert "no valid token bears it" in capsys.readouterr().err
    assert run(tmp_path, "new", "a b") == 2
    assert "choose another" in capsys.readouterr().err


def test_the_file_may_lie_elsewhere(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere.json"
    sets = ["--set", f"runtime.run_root={tmp_path}", "--set", f"runtime.serve.tokens={elsewhere}"]
    assert main(["serve", "--config", str(TINY), *sets, "token", "new", "team"]) == 0
    assert elsewhere.exists() and not (tmp_path / TOKENS).exists()
