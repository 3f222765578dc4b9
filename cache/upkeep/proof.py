"""Does a segment hold what it says? Everything in it is decoded once, and every key is computed anew.

A digest tells that bytes are those that somebody wrote, not that they are right: whoever signs a manifest may sign
anything. What comes from elsewhere (`cache.upkeep.archives`) is therefore proved before it counts, by the very rules
that a writer obeys, and `distill cache verify --deep` does the same to what is there. The one thing that a segment does
not tell is which request a generation key stands for: that is compared when somebody asks (`cache.answers`).

Shapes: R sequences, N scored rows, G generations.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.blocks import read_records
from cache.disk.columns import IDS_BY_RANK, NO_VERSION, ORIGINS, ROW_ID, TABLE, SegmentSize, layouts
from cache.disk.key_objects import FINISHES, KeyTables, Table
from cache.disk.manifests import DamagedObject, Manifest
from cache.disk.segments import Segment
from cache.disk.shards import ChunkCache
from cache.disk.storage import NOTE_BYTES, Objects
from cache.disk.verified import read_verified
from cache.index import SEQUENCE_ROW
from cache.records import validate_record
from cache.sampling import check_key
from cache.signal_blocks import read_signals
from cache.signals import validate_signal
from cache.upkeep.raw_columns import AS_STORED, RawSegment
from configs.errors import RecordError
from configs.regular_files import UnreadableFileError, parse_json

PROVED_AT_ONCE = 8192
"""Scored rows that are decoded together."""

PROOF_CACHE_BYTES = 2**28

_PER_SEQUENCE = ("finish", "k", ROW_ID, *AS_STORED)

Rules = dict[str, Any]
"""Whether each rule holds (one truth, or one for each element), by what is said where it does not."""


def prove_segment(objects: Objects, manifest: Manifest, *, identity: str) -> None:
    """Decode all of a segment of the teacher of this digest.

    Raises:
        DamagedObject: naming the first thing that no writer could have written.
        OSError: an object cannot be read.
    """
    _check_names(objects, manifest)
    raw = RawSegment(objects, manifest)
    tables = raw.tables()
    _check_columns(raw, tables)
    _check_generations(manifest, tables)
    segment = Segment(objects, manifest, chunks=ChunkCache(PROOF_CACHE_BYTES))
    for entries in _batches(tables):
        try:
            if manifest.signals:
                for signal in read_signals({0: segment}, entries, with_tokens=True).records():
                    validate_signal(signal, identity_digest=identity)
                continue
            for record in read_records({0: segment}, entries, k=None):
                validate_record(record, vocab=manifest.vocab)
                check_key(record, identity_digest=identity)
        except RecordError as error:
            raise DamagedObject(manifest.uuid, "records", str(error)) from error


def _check_names(objects: Objects, manifest: Manifest) -> None:
    """A segment has exactly the objects of its arrays, and their descriptions say what the manifest says."""
    arrays = layouts(SegmentSize.of(manifest))
    shards = {f"{name}/c" + "/0" * len(layout.shape) for name, layout in arrays.items()}
    described = {"zarr.json", *(f"{name}/zarr.json" for name in arrays)}
    odd = sorted(manifest.objects.keys() ^ (shards | described))
    if odd:
        raise DamagedObject(manifest.uuid, odd[0], "an object that no such segment has, or a missing one")
    counts = {name: _count(manifest, name) for name in arrays}
    for name in sorted(described):
        path, info = f"segments/{manifest.uuid}/{name}", manifest.objects[name]
        if info.size > NOTE_BYTES:
            raise DamagedObject(manifest.uuid, name, "longer than a description can be")
        data = read_verified(objects, path, info, segment=manifest.uuid)
        try:
            found: Any = parse_json(data, origin=name)
        except UnreadableFileError as error:
            raise DamagedObject(manifest.uuid, name, str(error)) from error
        array, of = name.rpartition("/")[0], found if isinstance(found, dict) else {}
        shape = None if not array else [counts[array], *arrays[array].shape[1:]]
        kind = None if not array else np.dtype(arrays[array].dtype).name
        if (of.get("zarr_format"), of.get("shape"), of.get("data_type")) != (3, shape, kind):
            raise DamagedObject(manifest.uuid, name, "does not describe this segment")


def _count(manifest: Manifest, name: str) -> int:
    """How many elements an array has along its first axis."""
    if name in ("token_offsets", "row_offsets"):
        return manifest.rows + 1
    if name == "token_ids":
        return manifest.tokens
    if name == IDS_BY_RANK:
        return TABLE
    return manifest.rows if name in _PER_SEQUENCE else manifest.scored_rows


def _check_columns(segment: RawSegment, tables: KeyTables) -> None:
    """What an index entry says of a row is what the row is."""
    entries, manifest = tables.entries, segment.manifest
    rows = entries["row"].astype(np.int64)
    tokens, scored = np.diff(segment.column("token_offsets")), np.diff(segment.column("row_offsets"))
    finish = segment.column("finish")
    rules: Rules = {
        "a row stands in the keys twice or not at all": np.sort(rows) == np.arange(manifest.rows),
        "the number of tokens is not what the keys say": tokens[rows] == entries["length"],
        "the length of a prompt is not what the keys say": segment.column("prompt_len")[rows] == entries["prompt_len"],
        "k is not what the keys say": segment.column("k")[rows] == entries["k"],
        "finish is not what the keys say": finish[rows] == entries["finish"],
        "a key stands twice": tables.keys[1:] != tables.keys[:-1],
        "the widest draws are narrower than k": entries["k"].max(initial=0) == manifest.k,
    }
    if manifest.signals:
        # What was asked, and how many rows that takes, is checked when the signals are read.
        _check(manifest, "columns", rules)
        return
    responses, version = tokens[rows] - entries["prompt_len"], segment.column("policy_version")
    rules |= {
        "scored rows are fewer or more than response tokens": scored[rows] == np.where(entries["k"] > 0, responses, 0),
        "origin is not a known kind": segment.column("origin") < len(ORIGINS),
        "policy_version is below -1": version >= NO_VERSION,
        "text stands among draws": (entries["k"] > 0) | (manifest.encoding != "sampled"),
    }
    if manifest.rollout is not None:
        rules["a rollout does not say which weights wrote it"] = version > NO_VERSION
        rules["a rollout answers a request"] = finish == FINISHES.index("given")
    _check(manifest, "columns", rules)


def _check_generations(manifest: Manifest, tables: KeyTables) -> None:
    """A generation leads to a sequence of the same segment that is as long as it says."""
    generations, entries = tables.generations, tables.entries
    at = np.minimum(np.searchsorted(tables.keys, generations["sequence"]), max(manifest.rows - 1, 0))
    there = tables.keys[at] == generations["sequence"] if len(generations) else np.ones(0, dtype=bool)
    responses = (entries["length"] - entries["prompt_len"])[at] if len(generations) else np.ones(0, dtype="<u4")
    rules: Rules = {
        "a generation leads to a sequence that is not there": there,
        "a generation is not as long as its sequence": generations["response_len"] == responses,
        "draws answer a request": len(generations) == 0 or manifest.encoding != "sampled",
    }
    _check(manifest, "generations", rules)


def _check(manifest: Manifest, name: str, rules: Rules) -> None:
    for broken, holds in rules.items():
        if not np.all(holds):
            raise DamagedObject(manifest.uuid, name, broken)


def _batches(tables: KeyTables) -> Iterator[Table]:
    """All rows [SEQUENCE_ROW] in the order in which they are stored, some at a time."""
    order = np.argsort(tables.entries["row"], kind="stable")
    entries = np.zeros(len(order), dtype=SEQUENCE_ROW)
    entries["key"] = tables.keys[order]
    for name in ("row", "k", "length", "prompt_len", "finish"):
        entries[name] = tables.entries[name][order]
    weight: NDArray[np.int64] = np.cumsum(entries["length"])
    cuts = np.flatnonzero(np.diff(weight // PROVED_AT_ONCE)) + 1
    yield from (part for part in np.split(entries, cuts) if len(part))
