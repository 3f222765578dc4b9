"""Who comes in: tokens in a file of their owner's alone, and the names that the door answers to."""

from __future__ import annotations

import hashlib
import hmac
import json
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError
from teacher_server.http.guard import PREFIX, SCOPES, Guard, Key, Scope, TokenStore, require_scope
from teacher_server.http.refusals import Refusal


@pytest.fixture
def store(tmp_path: Path) -> TokenStore:
    return TokenStore(tmp_path / "deep" / "tokens.json")


def refused(guard: Guard, *authorizations: str) -> Refusal:
    with pytest.raises(Refusal) as found:
        guard.key_of(authorizations)
    return found.value


def test_a_token_is_256_random_bits_of_which_a_digest_alone_is_kept(store: TokenStore) -> None:
    token, other = store.new("a", scopes=["ask"]), store.new("b", scopes=["read", "admin", "read"])
    assert token.startswith(PREFIX) and len(token) == len(PREFIX) + 43 and token != other
    kept = store.path.read_text()
    assert token not in kept and token.removeprefix(PREFIX) not in kept
    assert hashlib.sha256(token.encode()).hexdigest() in kept
    found = store.find(token)
    assert found is not None and found.name == "a" and found.scopes == ("ask",)
    assert [key.scopes for key in store.listed()] == [("ask",), ("read", "admin")]
    assert store.find(token[:-1]) is None and store.find("") is None


def test_the_file_is_its_owner_s_alone(store: TokenStore) -> None:
    store.new("a", scopes=["ask"])
    assert store.path.stat().st_mode & 0o777 == 0o600
    store.new("b", scopes=["ask"])
    assert store.path.stat().st_mode & 0o777 == 0o600
    store.path.chmod(0o640)
    with pytest.raises(ConfigError, match="others than its owner may use it: chmod 600"):
        store.listed()


def test_without_a_file_nobody_comes_in(store: TokenStore) -> None:
    assert store.listed() == () and store.find("x") is None


def test_a_change_by_somebody_else_is_noticed(store: TokenStore) -> None:
    token = store.new("a", scopes=["ask"])
    door = TokenStore(store.path)
    assert door.find(token) is not None
    store.revoke("a")
    assert door.find(token) is None
    assert [key.revoked is not None for key in door.listed()] == [True]
    # The name is free again, and the old token stays what it is.
    fresh = store.new("a", scopes=["read"])
    found = door.find(fresh)
    assert found is not None and found.scopes == ("read",) and door.find(token) is None
    store.path.unlink()
    assert door.find(fresh) is None


def test_the_file_is_read_again_only_where_it_changed(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    token = store.new("a", scopes=["ask"])
    door = TokenStore(store.path)
    door.find(token)
    monkeypatch.setattr("teacher_server.http.guard.read_regular", None)
    assert door.find(token) is not None


def test_a_token_ends_when_it_expires(store: TokenStore) -> None:
    soon = datetime.now(UTC) + timedelta(hours=1)
    token = store.new("a", scopes=["ask"], expires=soon)
    found = store.find(token)
    assert found is not None
    assert found.valid_at(soon.timestamp() - 1) and not found.valid_at(soon.timestamp())
    document = json.loads(store.path.read_text())
    document["tokens"][0]["expires"] = found.created - 1
    store.path.write_text(json.dumps(document))
    assert store.find(token) is None
    store.new("a", scopes=["ask"])


def test_every_token_is_compared_in_constant_time(store: TokenStore, monkeypatch: pytest.MonkeyPatch) -> None:
    token, compared = store.new("a", scopes=["ask"]), []
    store.new("b", scopes=["ask"])

    def compare(one: str, other: str) -> bool:
        compared.append((one, other))
        return one == other

    monkeypatch.setattr(hmac, "compare_digest", compare)
    assert store.find(token) is not None and store.find("nobody's") is None
    assert len(compared) == 4


@pytest.mark.parametrize("name", ["", "a b", "a\n", "../a", "ä", "-a", "a" * 65])
def test_a_name_is_a_plain_one(store: TokenStore, name: str) -> None:
    with pytest.raises(ConfigError, match="name="):
        store.new(name, scopes=["ask"])
    assert not store.path.exists()


def test_what_cannot_be_made_or_ended_is_told(store: TokenStore) -> None:
    store.new("a", scopes=["ask"])
    before = store.path.read_bytes()
    with pytest.raises(ConfigError, match="name=a: a token of this name is valid: revoke it first"):
        store.new("a", scopes=["read"])
    with pytest.raises(ConfigError, match="choose from read, ask, admin"):
        store.new("b", scopes=["root"])  # type: ignore[list-item]
    with pytest.raises(ConfigError, match="choose from"):
        store.new("b", scopes=[])
    with pytest.raises(ConfigError, match="has passed"):
        store.new("b", scopes=["ask"], expires=datetime(2020, 1, 1, tzinfo=UTC))
    with pytest.raises(ConfigError, match="name=b: no valid token bears it"):
        store.revoke("b")
    assert store.path.read_bytes() == before


def test_tokens_that_are_made_at_once_are_all_kept(store: TokenStore) -> None:
    threads = [
        threading.Thread(target=TokenStore(store.path).new, args=(f"t{at}",), kwargs={"scopes": ["ask"]})
        for at in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in store.listed()} == {f"t{at}" for at in range(8)}


GOOD: dict[str, Any] = {
    "name": "a",
    "sha256": "0" * 64,
    "scopes": ["ask"],
    "created": 1.0,
    "expires": None,
    "revoked": None,
}


@pytest.mark.parametrize(
    "content",
    [
        "",
        "[]",
        "[" * 5000,
        json.dumps({"format": "stillroom/tokens/2", "tokens": []}),
        *(
            json.dumps({"format": "stillroom/tokens/1", "tokens": [GOOD | change]})
            for change in (
                {"sha256": "0"}, {"sha256": None}, {"scopes": []}, {"scopes": ["root"]}, {"scopes": 3}, {"created": "now"},
                {"expires": True}, {"name": 3}, {"more": 1},
            )
        ),
        json.dumps({"format": "stillroom/tokens/1", "tokens": [{"name": "a"}]}),
    ],
)  # fmt: skip
def test_a_file_that_is_not_one_of_tokens_lets_nobody_in(
    store: TokenStore, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    token = store.new("a", scopes=["admin"])
    store.path.write_text(content)
    with pytest.raises(ConfigError, match="not a file of tokens"):
        store.listed()
    refusal = refused(Guard(store, hosts=[]), f"Bearer {token}")
    assert (refusal.status, refusal.code) == (503, "no_tokens") and str(store.path) not in refusal.reason
    assert "not a file of tokens" in caplog.text and token not in caplog.text


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be written"):
        TokenStore(tmp_path / "file" / "tokens.json").new("a", scopes=["ask"])


@pytest.mark.parametrize("held", SCOPES)
@pytest.mark.parametrize("asked", SCOPES)
def test_a_scope_allows_what_those_before_it_allow(held: Scope, asked: Scope) -> None:
    key = Key("a", "0" * 64, (held,), 0.0)
    if SCOPES.index(held) >= SCOPES.index(asked):
        require_scope(key, asked)
        return
    with pytest.raises(Refusal, match=f"the token of a allows {held}, and this needs {asked}") as found:
        require_scope(key, asked)
    assert found.value.status == 403
    assert found.value.headers["WWW-Authenticate"].endswith(f'error="insufficient_scope", scope="{asked}"')


def test_the_bearer_of_a_token_is_known(store: TokenStore) -> None:
    guard, token = Guard(store, hosts=[]), store.new("a", scopes=["ask"])
    assert guard.key_of([f"Bearer {token}"]).name == "a"
    assert guard.key_of([f"bearer  {token} "]).name == "a"


def test_whoever_has_none_is_told_how(store: TokenStore) -> None:
    guard, token = Guard(store, hosts=[]), store.new("a", scopes=["ask"])
    nothing = refused(guard)
    assert (nothing.status, nothing.code) == (401, "no_token")
    assert nothing.headers == {"WWW-Authenticate": 'Bearer realm="stillroom"'}
    wrong = [
        [f"Bearer {token}x"],
        [f"Basic {token}"],
        [token],
        ["Bearer"],
        ["Bearer " + "x" * 1000],
        [f"Bearer {token}"] * 2,
    ]
    for given in wrong:
        refusal = refused(guard, *given)
        assert (refusal.status, refusal.code) == (401, "invalid_token")
        assert refusal.headers == {"WWW-Authenticate": 'Bearer realm="stillroom", error="invalid_token"'}
        assert token not in refusal.reason


@pytest.mark.parametrize(
    "host", ["door", "DOOR", "door:8000", "door:", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8000", " door "]
)
def test_the_door_answers_to_its_names(store: TokenStore, host: str) -> None:
    Guard(store, hosts=["Door", "127.0.0.1", "[::1]"]).require_host([host])


@pytest.mark.parametrize(
    ("hosts", "status"),
    [
        ([], 400),
        (["door", "door"], 400),
        (["evil.example"], 421),
        (["door.evil.example"], 421),
        (["evil.example:80@door"], 421),
        (["door@evil.example"], 421),
        ([""], 421),
        (["door:80:80"], 421),
        (["::1"], 421),
    ],
)
def test_the_door_answers_to_no_other_name(store: TokenStore, hosts: list[str], status: int) -> None:
    with pytest.raises(Refusal) as found:
        Guard(store, hosts=["door", "[::1]"]).require_host(hosts)
    assert found.value.status == status
