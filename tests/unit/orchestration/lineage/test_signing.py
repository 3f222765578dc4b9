"""A signature is of one student as it is and by one key; what is no key, or of another kind, is said."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)

from configs import ConfigError
from configs.places import SUMMARY
from orchestration.lineage.signing import SIGNATURE, sign, signed_by


@pytest.fixture
def student(tmp_path: Path) -> Path:
    folder = tmp_path / "student"
    folder.mkdir()
    (folder / SUMMARY).write_text('{"files": {}}')
    return folder


def keys(folder: Path, name: str, *, password: bytes | None = None) -> tuple[Path, Path]:
    """A private key and its public half, as openssl writes them."""
    key = Ed25519PrivateKey.generate()
    locked = NoEncryption() if password is None else BestAvailableEncryption(password)
    private, public = folder / f"{name}.pem", folder / f"{name}.public.pem"
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, locked))
    public.write_bytes(key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return private, public


def test_who_signed_is_known_and_nobody_else_did(student: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    _, other = keys(tmp_path, "other")
    assert signed_by(student, key=public).state == "broken"
    assert sign(student, key=private) == student / SIGNATURE
    assert signed_by(student, key=public).state == "holds"
    assert signed_by(student, key=other).state == "broken"


@pytest.mark.parametrize("name", [SUMMARY, SIGNATURE])
def test_one_changed_byte_breaks_it(name: str, student: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    sign(student, key=private)
    content = bytearray((student / name).read_bytes())
    content[5] ^= 1
    (student / name).write_bytes(bytes(content))
    assert signed_by(student, key=public).state == "broken"


def test_what_is_no_key_is_said_with_how_to_make_one(student: Path, tmp_path: Path) -> None:
    private, public = keys(tmp_path, "mine")
    locked, _ = keys(tmp_path, "locked", password=b"secret")
    curve = tmp_path / "curve.pem"
    curve.write_bytes(
        generate_private_key(SECP256R1()).private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    )
    for path in (public, locked, curve):
        with pytest.raises(ConfigError, match="no private Ed25519 key in PEM without a password: make one with"):
            sign(student, key=path)
    with pytest.raises(ConfigError, match="no public Ed25519 key"):
        signed_by(student, key=private)
    with pytest.raises(ConfigError, match="cannot be read"):
        sign(student, key=tmp_path / "nowhere.pem")
