"""Who a teacher is: everything that changes its numbers, and nothing else.

Speed settings (engines, tensor parallelism, batch sizes) and provenance (tokenizer, template, licence, versions) are
not part of an identity: the same weights at the same precision are the same teacher wherever they run.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass

from cache.canonical import canonical

NUMERICS_EPOCH = 1
"""Raised by hand when a release changes what the same weights say by more than rounding."""


@dataclass(frozen=True, slots=True)
class TeacherIdentity:
    """Everything that changes what a teacher says. Digests are SHA-256 in hex."""

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
        pairs = sorted(asdict(self).items())
        named = [part for pair in pairs for part in pair]
        return hashlib.sha256(canonical("stillroom/identity/1", *named)).hexdigest()
