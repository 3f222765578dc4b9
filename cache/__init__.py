"""The teacher cache: identity, keys, records, views, and the seams between the folders. numpy and zarr only.

What opens a store is loaded when it is first asked for: records, keys and views alone need no Zarr.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from cache.batches import global_batches, rank_shares
from cache.fingerprint import ModelFingerprint, fingerprint_model
from cache.identity import Identity, RemoteTeacherIdentity, TeacherIdentity
from cache.keys import GenerationKey, SequenceKey, engine_seed, generation_key, sequence_key
from cache.protocols import Failure, SequenceSource, SignalSource
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord, tail_logmass, validate_record
from cache.sampling import sample_rows
from cache.signals import Signal, SignalKey, SignalRecord, SignalRequest, signal_key
from cache.views import CacheView
from configs.later import names_found_later

_LATER = {
    "Missing": "answers",
    "RecordBlock": "blocks",
    "Damage": "library",
    "CacheStats": "store",
    "TeacherCache": "store",
    "CommitReport": "committing",
    "SegmentWriter": "writer",
    "SignalBlock": "signal_blocks",
    "SignalStore": "signal_store",
    "SignalWriter": "signal_writer",
}
"""Where each name is defined that is imported when it is first asked for."""

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
else:
    __getattr__ = names_found_later(__name__, _LATER)

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
