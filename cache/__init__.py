"""The teacher cache: identity, keys, records, views, and the seams between the folders. numpy and zarr only.

What opens a store is loaded when it is first asked for: records, keys and views alone need no Zarr.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cache.batches import global_batches, rank_shares
from cache.fingerprint import ModelFingerprint, fingerprint_model
from cache.identity import Identity, RemoteTeacherIdentity, TeacherIdentity
from cache.keys import GenerationKey, SequenceKey, engine_seed, generation_key, sequence_key
from cache.protocols import Failure, SequenceSource, SignalSource
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord, tail_logmass, validate_record
from cache.sampling import sample_rows
from cache.signals import Signal, SignalKey, SignalRecord, SignalRequest, signal_key
from cache.views import CacheView

if TYPE_CHECKING:
    from cache.answers import Missing
    from cache.blocks import RecordBlock
    from cache.committing import CommitReport
    from cache.library import Damage
    from cache.signal_blocks import SignalBlock
    from cache.signal_store import SignalStore
    from cache.signal_writer import SignalWriter
    from cache.store import CacheStats, TeacherCache
    from cache.writer import SegmentWriter

__all__ = [
    "CacheStats",
    "CacheView",
    "CommitReport",
    "Damage",
    "Failure",
    "GenerateRequest",
    "GenerationKey",
    "Identity",
    "Missing",
    "ModelFingerprint",
    "RecordBlock",
    "RemoteTeacherIdentity",
    "ScoreRequest",
    "SegmentWriter",
    "SequenceKey",
    "SequenceSource",
    "Signal",
    "SignalBlock",
    "SignalKey",
    "SignalRecord",
    "SignalRequest",
    "SignalSource",
    "SignalStore",
    "SignalWriter",
    "TeacherCache",
    "TeacherIdentity",
    "TeacherRecord",
    "engine_seed",
    "fingerprint_model",
    "generation_key",
    "global_batches",
    "rank_shares",
    "sample_rows",
    "sequence_key",
    "signal_key",
    "tail_logmass",
    "validate_record",
]

_LATER = {
    "Missing": "cache.answers",
    "RecordBlock": "cache.blocks",
    "Damage": "cache.library",
    "CacheStats": "cache.store",
    "TeacherCache": "cache.store",
    "CommitReport": "cache.committing",
    "SegmentWriter": "cache.writer",
    "SignalBlock": "cache.signal_blocks",
    "SignalStore": "cache.signal_store",
    "SignalWriter": "cache.signal_writer",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_LATER[name]), name)
