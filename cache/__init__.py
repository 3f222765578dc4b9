"""The teacher cache: identity, keys, records, views, and the seams between the folders. numpy and zarr only."""

from __future__ import annotations

from cache.answers import Missing
from cache.batches import global_batches, rank_rows
from cache.blocks import RecordBlock
from cache.fingerprint import ModelFingerprint, fingerprint_model
from cache.identity import Identity, RemoteTeacherIdentity, TeacherIdentity
from cache.keys import GenerationKey, SequenceKey, engine_seed, generation_key, sequence_key
from cache.library import Damage
from cache.protocols import Failure, SequenceSource, WeightSink
from cache.records import GenerateRequest, ScoreRequest, TeacherRecord, tail_logmass, validate_record
from cache.sampling import sample_rows
from cache.store import CacheStats, TeacherCache
from cache.views import CacheView
from cache.writer import CommitReport, SegmentWriter

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
    "TeacherCache",
    "TeacherIdentity",
    "TeacherRecord",
    "WeightSink",
    "engine_seed",
    "fingerprint_model",
    "generation_key",
    "global_batches",
    "rank_rows",
    "sample_rows",
    "sequence_key",
    "tail_logmass",
    "validate_record",
]
