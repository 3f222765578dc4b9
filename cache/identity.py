"""Who a teacher is: everything that changes its numbers, and nothing else.

Speed settings (engines, tensor parallelism, batch sizes) and provenance (tokenizer, template, licence, versions) are
not part of an identity: the same weights at the same precision are the same teacher wherever they run.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any, ClassVar

from cache.canonical import canonical

NUMERICS_EPOCH = 1
"""Raised by hand when a release changes what the same weights say by more than rounding."""


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Everything that changes what a teacher says. Digests are SHA-256 in hex."""

    verifiable: ClassVar[bool] = True

    weights_sha256: str
    config_sha256: str
    adapter_sha256: str | None = None
    hf_overrides: str = ""
    dtype: str = "bfloat16"
    quantization: str | None = None
    kv_cache_dtype: str = "auto"
    logprobs_mode: str = "raw_logprobs"
    numerics_epoch: int = NUMERICS_EPOCH

    def digest(self) -> str:
        """SHA-256 (hex) over the named fields, each tagged and length-prefixed; names the teacher's cache."""
        return _digest("stillroom/identity/1", asdict(self))


@dataclass(frozen=True, slots=True)
class RemoteTeacherIdentity:
    """A teacher behind somebody else's API, whose weights nobody can hash.

    It is who the provider says it is. Raise `epoch` when the same name and revision begin to answer differently:
    rows of another epoch are never reused.
    """

    verifiable: ClassVar[bool] = False
    dtype: ClassVar[str] = "unknown"

    provider: str
    model: str
    revision: str
    epoch: int = 1

    def digest(self) -> str:
        """SHA-256 (hex) over the named fields; never equal to that of a teacher whose weights were hashed."""
        return _digest("stillroom/remote-identity/1", asdict(self))


Identity = TeacherIdentity | RemoteTeacherIdentity


def parse_identity(fields: Mapping[str, Any]) -> Identity:
    """The identity of these fields, as `identity.json` holds them.

    Raises:
        TypeError: when they are not those of any identity.
    """
    identity: Identity = (TeacherIdentity if "weights_sha256" in fields else RemoteTeacherIdentity)(**fields)
    for item in dataclass_fields(identity):
        value = getattr(identity, item.name)
        # Annotations are text here: "str", "str | None" or "int".
        kinds = {"str": (str,), "int": (int,)}.get(str(item.type), (str, type(None)))
        if type(value) not in kinds or (isinstance(value, int) and not 0 <= value < 2**63):
            raise TypeError(f"{item.name} is not {item.type}")
    return identity


def _digest(name: str, fields: Mapping[str, Any]) -> str:
    named = [part for pair in sorted(fields.items()) for part in pair]
    return hashlib.sha256(canonical(name, *named)).hexdigest()
