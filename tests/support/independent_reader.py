"""A second reader of the cache, written from docs/cache-format.md alone: nothing of the product is imported here.

It stands for a program of somebody else. Slow and simple: everything is read and checked.
"""

from __future__ import annotations

import hashlib
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zarr

FINISHES = ("stop", "length", "given")
ORIGINS = ("decode", "prefill")
SIGNALS = ("class_logits", "tag_logits", "span_logits", "state")
POSITIONS = ("first", "last", "mean")


@dataclass(frozen=True)
class Row:
    """A stored sequence; the arrays are `None` for text alone."""

    token_ids: list[int]
    prompt_len: int
    finish: str
    origin: str
    policy_version: int | None
    k: int
    segment: str
    created: tuple[int, str]
    arrays: dict[str, np.ndarray]


def canonical(*values: object) -> bytes:
    """Canonical bytes, as the page says."""
    parts = []
    for value in values:
        if value is None:
            tag, payload = b"n", b""
        elif isinstance(value, str):
            tag, payload = b"s", value.encode()
        elif isinstance(value, bytes):
            tag, payload = b"b", value
        elif isinstance(value, float):
            tag, payload = b"f", struct.pack("<d", value if value else 0.0)
        elif isinstance(value, int):
            tag, payload = b"i", value.to_bytes(16, "little", signed=True)
        else:
            raise TypeError(type(value))
        parts.append(tag + struct.pack("<Q", len(payload)) + payload)
    return b"".join(parts)


def sequence_key(identity: str, token_ids: list[int], prompt_len: int) -> bytes:
    """The key of a sequence."""
    tokens = np.array(token_ids, dtype="<i4").tobytes()
    return hashlib.sha256(canonical("stillroom/sequence/1", identity, prompt_len, tokens)).digest()


def read_cache(directory: Path) -> tuple[dict[bytes, list[Row]], dict[bytes, list[tuple[int, bytes, int, str]]]]:
    """All rows by sequence key, and all generations by generation key as (created, sequence, response_len, finish)."""
    described = json.loads((directory / "identity.json").read_text())
    assert described["format"] == 1
    assert described["digest"] == directory.name == identity_digest(described["identity"])
    rows: dict[bytes, list[Row]] = {}
    generations: dict[bytes, list[tuple[int, bytes, int, str]]] = {}
    for manifest in _manifests(directory):
        if not str(manifest["encoding"]).startswith("signal-"):
            _read_segment(directory, manifest, rows, generations)
    return rows, generations


def read_signals(directory: Path) -> dict[bytes, list[dict[str, Any]]]:
    """All signals by their keys."""
    found: dict[bytes, list[dict[str, Any]]] = {}
    for manifest in _manifests(directory):
        if not str(manifest["encoding"]).startswith("signal-"):
            continue
        columns, keys = _columns(directory, manifest)
        assert (manifest["vocab"], manifest["generations"]) == (0, 0)
        count = manifest["rows"]
        for at in range(count):
            key, start = keys[32 * at : 32 * at + 32], 32 * count + 20 * at
            row, width, length, split, finish = struct.unpack("<IIIIBxxx", keys[start : start + 20])
            signal = _signal(columns, row, manifest)
            asked = (signal["signal"], -1 if signal["layer"] is None else signal["layer"], signal["position"] or "")
            tokens = np.array(signal["token_ids"], dtype="<i4").tobytes()
            said = canonical("stillroom/signal/1", manifest["identity"], *asked, signal["split"], tokens)
            assert key == hashlib.sha256(said).digest()
            assert (width, length, split) == (manifest["k"], len(signal["token_ids"]), signal["split"])
            assert FINISHES[finish] == "given"
            found.setdefault(key, []).append(signal)
    return found


def _signal(columns: dict[str, np.ndarray], row: int, manifest: dict[str, Any]) -> dict[str, Any]:
    tokens = slice(columns["token_offsets"][row], columns["token_offsets"][row + 1])
    rows = slice(columns["row_offsets"][row], columns["row_offsets"][row + 1])
    layer, place = int(columns["layer"][row]), int(columns["place"][row])
    if manifest["encoding"] == "signal-u8":
        step, minimum = (columns[name][rows].astype(np.float64)[:, None] for name in ("signal_step", "signal_minimum"))
        values = minimum + step * columns["signal_u8"][rows]
    else:
        values = columns[manifest["encoding"].replace("-", "_")][rows].astype(np.float64)
    return {
        "token_ids": columns["token_ids"][tokens].tolist(),
        "split": int(columns["prompt_len"][row]),
        "signal": SIGNALS[columns["signal"][row]],
        "layer": None if layer == -1 else layer,
        "position": None if place == 255 else POSITIONS[place],
        "values": values,
    }


def _manifests(directory: Path) -> list[dict[str, Any]]:
    """Those of segments that have no marker."""
    found = []
    for path in sorted((directory / "manifests").glob("*.json")):
        if not any((directory / folder / path.name).exists() for folder in ("quarantine", "tombstones")):
            found.append(read_manifest(path, identity=directory.name))
    return found


def identity_digest(fields: dict[str, Any]) -> str:
    """The digest of an identity whose weights were hashed."""
    named = [part for name in sorted(fields) for part in (name, fields[name])]
    return hashlib.sha256(canonical("stillroom/identity/1", *named)).hexdigest()


def read_manifest(path: Path, *, identity: str) -> dict[str, Any]:
    """A manifest, checked against its own digest."""
    outer = json.loads(path.read_text())
    body: dict[str, Any] = outer["body"]
    text = json.dumps(body, sort_keys=True, separators=(",", ":"))
    assert hashlib.sha256(text.encode()).hexdigest() == outer["sha256"]
    assert body["format"] in (1, 2)
    assert (body["identity"], body["uuid"]) == (identity, path.stem)
    return body


def _read_segment(
    directory: Path,
    manifest: dict[str, Any],
    rows: dict[bytes, list[Row]],
    generations: dict[bytes, list[tuple[int, bytes, int, str]]],
) -> None:
    columns, keys = _columns(directory, manifest)
    count = manifest["rows"]
    for at in range(count):
        key = keys[32 * at : 32 * at + 32]
        start = 32 * count + 20 * at
        row, k, length, prompt_len, finish = struct.unpack("<IIIIBxxx", keys[start : start + 20])
        found = _row(columns, row, manifest)
        assert (found.k, len(found.token_ids), found.prompt_len) == (k, length, prompt_len)
        assert found.finish == FINISHES[finish]
        if manifest["encoding"] != "sampled":
            assert key == sequence_key(manifest["identity"], found.token_ids, prompt_len)
        rows.setdefault(key, []).append(found)
    for at in range(manifest["generations"]):
        start = 52 * count + 76 * at
        key, sequence, response_len, limit, finish = struct.unpack("<32s32sIIBxxx", keys[start : start + 76])
        assert response_len <= limit
        entry = (manifest["created_ns"], sequence, response_len, FINISHES[finish])
        generations.setdefault(key, []).append(entry)


def _columns(directory: Path, manifest: dict[str, Any]) -> tuple[dict[str, np.ndarray], bytes]:
    """The arrays of a segment, and its keys."""
    folder = directory / "segments" / manifest["uuid"]
    for name, info in manifest["objects"].items():
        _check((folder / name).read_bytes(), info)
    keys = (directory / "manifests" / f"{manifest['uuid']}.keys").read_bytes()
    _check(keys, manifest["keys"])
    group = zarr.open_group(folder, mode="r")
    return {name: np.asarray(array[:]) for name, array in group.arrays()}, keys


def _check(data: bytes, info: dict[str, Any]) -> None:
    assert len(data) == info["size"]
    assert hashlib.sha256(data).hexdigest() == info["sha256"]


def _row(columns: dict[str, np.ndarray], row: int, manifest: dict[str, Any]) -> Row:
    tokens = slice(columns["token_offsets"][row], columns["token_offsets"][row + 1])
    scored = slice(columns["row_offsets"][row], columns["row_offsets"][row + 1])
    version = int(columns["policy_version"][row])
    return Row(
        token_ids=columns["token_ids"][tokens].tolist(),
        prompt_len=int(columns["prompt_len"][row]),
        finish=FINISHES[columns["finish"][row]],
        origin=ORIGINS[columns["origin"][row]],
        policy_version=None if version == -1 else version,
        k=int(columns["k"][row]),
        segment=manifest["uuid"],
        created=(manifest["created_ns"], manifest["uuid"]),
        arrays=_decoded(columns, scored, manifest["encoding"]) if columns["k"][row] else {},
    )


def _decoded(columns: dict[str, np.ndarray], scored: slice, encoding: str) -> dict[str, np.ndarray]:
    ids = (
        columns["ids_by_rank"][columns["topk_ranks"][scored]]
        if "topk_ranks" in columns
        else columns["topk_ids"][scored]
    )
    found = {"topk_ids": ids, "target_logprobs": columns["target_logprob"][scored]}
    found["target_ranks"] = columns["target_rank"][scored]
    if encoding == "sampled":
        return found | {"counts": columns["draw_count"][scored].astype(np.int32)}
    tail = columns["tail_logmass"][scored]
    found["tail_logmass"] = tail
    if encoding == "full":
        return found | {"topk_logprobs": columns["topk_logprob"][scored]}
    if encoding == "topk-f16":
        values = columns["topk_logprob_f16"][scored].astype(np.float64)
    else:
        values = -np.cumsum(columns["topk_dq"][scored].astype(np.int64), axis=1) / 16.0
    wanted = 1.0 - np.exp(tail.astype(np.float64))
    constant = np.log(wanted / np.exp(values).sum(axis=1))
    return found | {"topk_logprobs": values + constant[:, None]}
