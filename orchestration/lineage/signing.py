"""Who made a student: a signature over its summary, which lists every file by its digest and says where it comes from.

Ed25519 (RFC 8032) over the bytes of `stillroom.json`, base64 in a file beside it. The keys are PEM files as
`openssl genpkey -algorithm ed25519` and `openssl pkey -pubout` write them. A signature says that whoever holds the key
vouched for this student. What it began as and what it learned is named in the summary by address and digest, and signed
with it; the files of these are not.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from cache.disk.durable import replace_file
from configs import ConfigError
from configs.places import SUMMARY
from configs.regular_files import UnreadableFileError, read_regular
from orchestration.lineage.steps import SHOWN, Step

SIGNATURE = f"{SUMMARY}.sig"

KEY_BYTES = 2**16
SUMMARY_BYTES = 2**28


def sign(student: Path, *, key: Path) -> Path:
    """Sign a student with a private key; returns the file of the signature.

    Raises:
        ConfigError: the key is no Ed25519 key without a password, or the file cannot be written.
    """
    pem = _read(key, at_most=KEY_BYTES)
    try:
        private = load_pem_private_key(pem, password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(_not_a_key(key, "private")) from error
    if not isinstance(private, Ed25519PrivateKey):
        raise ConfigError(_not_a_key(key, "private"))
    path = student / SIGNATURE
    signed = private.sign(_read(student / SUMMARY, at_most=SUMMARY_BYTES))
    try:
        replace_file(path, base64.b64encode(signed) + b"\n")
    except OSError as error:
        raise ConfigError(f"{path} cannot be written ({error.strerror})") from error
    return path


def signed_by(student: Path, *, key: Path) -> Step:
    """Whether the holder of this public key's other half signed the student as it is now.

    Raises:
        ConfigError: the key is no Ed25519 key.
    """
    pem = _read(key, at_most=KEY_BYTES)
    try:
        public = load_pem_public_key(pem)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise ConfigError(_not_a_key(key, "public")) from error
    if not isinstance(public, Ed25519PublicKey):
        raise ConfigError(_not_a_key(key, "public"))
    path = student / SIGNATURE
    if not path.is_file():
        return Step("signature", "broken", f"{path} is not there: nobody signed it")
    try:
        signature = base64.b64decode(_read(path, at_most=KEY_BYTES), validate=False)
        public.verify(signature, _read(student / SUMMARY, at_most=SUMMARY_BYTES))
    except (InvalidSignature, binascii.Error):
        return Step("signature", "broken", f"{path} is not by {key}, or of another student")
    return Step("signature", "holds", f"by the key {_print_of(public)} ({key})")


def _print_of(key: Ed25519PublicKey) -> str:
    raw = key.public_bytes(Encoding.Raw, PublicFormat.Raw)
    return hashlib.sha256(raw).hexdigest()[:SHOWN]


def _read(path: Path, *, at_most: int) -> bytes:
    try:
        return read_regular(path, at_most=at_most, links="follow")
    except (OSError, UnreadableFileError) as error:
        raise ConfigError(f"{path} cannot be read: name a file of your own") from error


def _not_a_key(path: Path, kind: str) -> str:
    make = "openssl genpkey -algorithm ed25519 -out key.pem"
    if kind == "public":
        make = "openssl pkey -in key.pem -pubout -out public.pem"
    return f"{path} holds no {kind} Ed25519 key in PEM without a password: make one with `{make}`"
