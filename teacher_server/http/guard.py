"""Who may come in: bearer tokens with scopes, and the names that the door answers to.

A token is 256 random bits, shown once. Its SHA-256 is all that is kept: a password needs a slow hash because people
choose it, and nobody finds 256 random bits. The file is its owner's alone (mode 0600), replaced as a whole, and read
again when it has changed, so a token that is revoked ends with the next request.

    read    the list of teachers, the metrics, and answers that the cache has
    ask     also what the teacher has to be asked for
    admin   everything

The `Host` of a request has to be one of those that the door is known by: a page in somebody's browser may have its own
name lead here (DNS rebinding), and is told nothing.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import logging
import os
import re
import secrets
import threading
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal, cast, get_args

from cache.disk.durable import replace_file
from configs.errors import ConfigError
from configs.regular_files import UnreadableFileError, open_own, parse_json, read_regular
from teacher_server.http.refusals import Refusal

Scope = Literal["read", "ask", "admin"]

SCOPES: tuple[Scope, ...] = get_args(Scope)
"""Each allows what those before it allow."""

PREFIX = "stillroom_"
"""How a token begins, so that whatever looks for secrets in files finds it."""

FORMAT = "stillroom/tokens/1"

_BYTES = 32
_FILE_BYTES = 2**20
_LONGEST_TOKEN = 512
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
_DIGEST = re.compile(r"[0-9a-f]{64}")
_REALM = 'Bearer realm="stillroom"'

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Key:
    """A token as it is kept. Times are seconds since the epoch; `expires` None is never."""

    name: str
    sha256: str
    scopes: tuple[Scope, ...]
    created: float
    expires: float | None = None
    revoked: float | None = None

    def may(self, scope: Scope) -> bool:
        """Whether it allows this."""
        return max(map(SCOPES.index, self.scopes)) >= SCOPES.index(scope)

    def valid_at(self, now: float) -> bool:
        """Whether it opens the door at this time."""
        return self.revoked is None and (self.expires is None or now < self.expires)


class TokenStore:
    """The tokens of a door in a file, which need not be there yet: nobody comes in then."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read: tuple[tuple[int, ...], tuple[Key, ...]] | None = None
        # Requests are answered by one thread; whoever makes tokens may be another.
        self._lock = threading.Lock()

    def new(self, name: str, *, scopes: Collection[Scope], expires: datetime | None = None) -> str:
        """A new token under a name that no other one bears now; this is the only time that it is seen.

        Raises:
            ConfigError: the name is taken or is none, a scope is unknown, it has expired, or the file cannot be used.
        """
        now = datetime.now(UTC).timestamp()
        if _NAME.fullmatch(name) is None:
            raise ConfigError(f"name={name!r}: letters, digits, '.', '_' and '-' alone, at most 64: choose another")
        if not scopes or not set(scopes) <= set(SCOPES):
            raise ConfigError(f"scopes={','.join(scopes)!r}: choose from {', '.join(SCOPES)}")
        if expires is not None and expires.timestamp() <= now:
            raise ConfigError(f"expires={expires.isoformat()} has passed: choose a later time")
        token = PREFIX + secrets.token_urlsafe(_BYTES)
        with self._writing() as keys:
            if any(key.name == name and key.valid_at(now) for key in keys):
                raise ConfigError(f"name={name}: a token of this name is valid: revoke it first, or choose another")
            keys.append(
                Key(
                    name=name,
                    sha256=_hashed(token),
                    scopes=tuple(scope for scope in SCOPES if scope in scopes),
                    created=now,
                    expires=None if expires is None else expires.timestamp(),
                )
            )
        return token

    def revoke(self, name: str) -> None:
        """End the token of a name; running doors notice at once.

        Raises:
            ConfigError: no valid token bears the name, or the file cannot be used.
        """
        now = datetime.now(UTC).timestamp()
        with self._writing() as keys:
            at = next((at for at, key in enumerate(keys) if key.name == name and key.valid_at(now)), None)
            if at is None:
                raise ConfigError(f"name={name}: no valid token bears it in {self.path}: list them")
            keys[at] = replace(keys[at], revoked=now)

    def listed(self) -> tuple[Key, ...]:
        """All that were ever made, the revoked and the expired among them.

        Raises:
            ConfigError: the file is not one of tokens, or others than its owner may read it.
        """
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return ()
        seen = (found.st_ino, found.st_mtime_ns, found.st_size, found.st_mode)
        with self._lock:
            if self._read is None or self._read[0] != seen:
                if found.st_mode & 0o077:
                    raise ConfigError(f"{self.path}: others than its owner may use it: chmod 600 {self.path}")
                self._read = (seen, self._parsed())
            return self._read[1]

    def find(self, token: str) -> Key | None:
        """The valid token that this is.

        Raises:
            ConfigError: see `listed`.
        """
        hashed, now = _hashed(token), datetime.now(UTC).timestamp()
        # All are compared, each in constant time: how long it takes tells nothing of them.
        equal = [key for key in self.listed() if hmac.compare_digest(key.sha256, hashed)]
        return next((key for key in equal if key.valid_at(now)), None)

    @contextmanager
    def _writing(self) -> Iterator[list[Key]]:
        """The keys, to be changed by one process at a time; written where the context ends well."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            lock = open_own(self.path.with_name(f".{self.path.name}.lock"))
            try:
                fcntl.flock(lock, fcntl.LOCK_EX)
                keys = list(self.listed())
                yield keys
                document = {"format": FORMAT, "tokens": [asdict(key) for key in keys]}
                replace_file(self.path, json.dumps(document, indent=1).encode() + b"\n", mode=0o600)
            finally:
                os.close(lock)
        except (OSError, UnreadableFileError) as error:
            raise ConfigError(f"{self.path}: cannot be written ({error}): choose another place for tokens") from error

    def _parsed(self) -> tuple[Key, ...]:
        try:
            document = parse_json(read_regular(self.path, at_most=_FILE_BYTES), origin=str(self.path))
            if not isinstance(document, dict) or document.get("format") != FORMAT:
                raise ValueError(f"its format is not {FORMAT}")
            return tuple(_key(fields) for fields in document["tokens"])
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise ConfigError(f"{self.path}: not a file of tokens ({error}): mend it, or make a new one") from error


class Guard:
    """What stands at the door. `hosts` are the names and addresses, without ports, that it answers to."""

    def __init__(self, store: TokenStore, *, hosts: Collection[str]) -> None:
        self._store = store
        self._hosts = frozenset(host.lower() for host in hosts)

    def require_host(self, named: Sequence[str]) -> None:
        """Refuse a request that was sent to somebody else; `named` are its `Host` headers.

        Raises:
            Refusal: 400 without one of them, 421 with another one.
        """
        if len(named) != 1:
            raise Refusal(400, "bad_request", f"{len(named)} Host headers, where there has to be one")
        host = re.sub(r":\d*$", "", named[0].strip()).lower()
        if host not in self._hosts:
            raise Refusal(421, "misdirected", "the door does not answer to this Host")

    def key_of(self, authorizations: Sequence[str]) -> Key:
        """Whose request it is; `authorizations` are its `Authorization` headers.

        Raises:
            Refusal: 401 without a valid token, 503 where nobody's can be looked up.
        """
        if not authorizations:
            raise Refusal(401, "no_token", "give Authorization: Bearer <token>", headers={"WWW-Authenticate": _REALM})
        kind, _, token = authorizations[0].partition(" ")
        sound = len(authorizations) == 1 and kind.lower() == "bearer" and len(token) <= _LONGEST_TOKEN
        try:
            key = self._store.find(token.strip()) if sound else None
        except (ConfigError, OSError) as error:
            _log.error("nobody is let in: %s", error)
            raise Refusal(503, "no_tokens", "the tokens of the door cannot be read now") from error
        if key is None:
            challenge = {"WWW-Authenticate": f'{_REALM}, error="invalid_token"'}
            raise Refusal(401, "invalid_token", "the token is unknown, expired or revoked", headers=challenge)
        return key


def require_scope(key: Key, scope: Scope) -> None:
    """Refuse what a token does not allow.

    Raises:
        Refusal: 403.
    """
    if not key.may(scope):
        challenge = {"WWW-Authenticate": f'{_REALM}, error="insufficient_scope", scope="{scope}"'}
        reason = f"the token of {key.name} allows {', '.join(key.scopes)}, and this needs {scope}"
        raise Refusal(403, "wrong_scope", reason, headers=challenge)


def _hashed(token: str) -> str:
    return hashlib.sha256(token.encode()).hexdigest()


def _key(fields: dict[str, object]) -> Key:
    """A token as the file has it, nothing taken for granted.

    Raises:
        ValueError: it is not one.
        TypeError: it lacks a field, or has others.
    """
    key = Key(**{**fields, "scopes": tuple(cast("list[Scope]", fields["scopes"]))})  # type: ignore[arg-type]
    times = [key.created, *(time for time in (key.expires, key.revoked) if time is not None)]
    if (
        not isinstance(key.name, str)
        or not isinstance(key.sha256, str)
        or _DIGEST.fullmatch(key.sha256) is None
        or not key.scopes
        or not set(key.scopes) <= set(SCOPES)
        or not all(isinstance(time, int | float) and not isinstance(time, bool) for time in times)
    ):
        raise ValueError(f"the token of {key.name!r} is not one")
    return key
