"""The fingerprint of a model directory: its weights and its configuration, whatever files they were saved in.

The weights are hashed as sorted (tensor name, dtype, shape, SHA-256 of the bytes), so re-sharding or re-saving
changes nothing; the configuration without the keys that saving rewrites. Only the safetensors files that loaders read
count (`configs.model_files`): their header tells where each tensor lies, and nothing in them can run.

Hashing a large model takes minutes, so a memo remembers what each file hashed to as long as nothing touched it. Size
and modification time do not show that: `tar x`, `rsync -t` and layers of images restore both. The inode and the time
of its last change (ctime), which nobody can set, do.
"""

from __future__ import annotations

import hashlib
import json
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from cache.canonical import canonical
from cache.disk.durable import replace_file
from cache.protocols import Progress
from configs.errors import ModelError
from configs.model_files import read_config, weight_files
from configs.regular_files import UnreadableFileError, open_regular, read_json

VOLATILE_CONFIG_KEYS = frozenset(
    {
        "_attn_implementation",
        "_attn_implementation_autoset",
        "_commit_hash",
        "_name_or_path",
        "attn_implementation",
        "dtype",  # part of the identity: what the engine runs in, not what the file was saved in
        "torch_dtype",
        "transformers_version",
        "use_cache",
    }
)
KEPT_WHOLE = frozenset({"quantization_config"})
"""Blocks whose keys all count, even those named like a volatile one."""

LARGEST_HEADER = 100 * 2**20
READ_BYTES = 8 * 2**20
MEMO_FORMAT = 2
MEMO_BYTES = 256 * 2**20
MOST_REMEMBERED = 2000
"""Files in a memo; of more, those that were hashed longest ago are forgotten."""

SETTLED_NS = 20_000_000
"""File systems stamp changes by a clock that ticks every 1 to 10 ms: two changes within a tick leave one stamp."""


@dataclass(frozen=True, slots=True)
class ModelFingerprint:
    """SHA-256 (hex) of a model's weights and of what counts in its configuration."""

    weights_sha256: str
    config_sha256: str


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    dtype: str
    shape: tuple[int, ...]
    start: int
    end: int


def fingerprint_model(
    model_dir: Path, *, memo: Path | None = None, reread: bool = False, progress: Progress | None = None
) -> ModelFingerprint:
    """Fingerprint a model directory.

    `memo` names a JSON file that remembers what each weight file hashed to, by its path and `file_stamp`; with
    `reread` it is only written, never believed. `progress` is called with (bytes hashed, bytes in all) while files
    are read that the memo does not know.

    Raises:
        ModelError: when there are no safetensors or no config.json, or they are not sound.
    """
    files = weight_files(model_dir)
    config = config_sha256(model_dir)
    remembered = _read_memo(memo)
    known = {} if reread else remembered
    digests: dict[str, str] = {}
    seen: dict[str, Any] = {}
    meter = _Meter(files, known=known, progress=progress)
    for path in files:
        tensors = _file_digests(path, known=known, seen=seen, meter=meter)
        for name in tensors.keys() & digests.keys():
            raise ModelError(f"{path}: tensor {name} stands in two files: remove the copy that is not used")
        digests |= tensors
    if memo is not None and remembered | seen != remembered:
        _write_memo(memo, {path: entry for path, entry in remembered.items() if path not in seen} | seen)
    return ModelFingerprint(weights_sha256(digests), config)


def file_stamp(path: Path) -> list[int]:
    """What changes whenever a file's content is replaced or written, by whatever means: inode, size, mtime, ctime.

    A file that was changed just now is waited for (`SETTLED_NS`), so that a change after this call gets another stamp.
    Stamps are compared for one path; they mean nothing on another machine.

    Raises:
        OSError: there is no such file.
    """
    while 0 <= (age := time.time_ns() - path.stat().st_ctime_ns) < SETTLED_NS:
        time.sleep((SETTLED_NS - age) / 1e9)
    status = path.stat()
    return [status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def config_sha256(model_dir: Path) -> str:
    """SHA-256 (hex) of what counts in a model's `config.json`.

    Raises:
        ModelError: it is missing or not sound.
    """
    text = json.dumps(_stable(read_config(model_dir)), sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(canonical("stillroom/config/1", text)).hexdigest()


def weights_sha256(tensors: Mapping[str, str]) -> str:
    """SHA-256 (hex) of a model's weights from the `tensor_sha256` of each, by its name in a checkpoint."""
    parts = canonical("stillroom/weights/1", *(part for item in sorted(tensors.items()) for part in item))
    return hashlib.sha256(parts).hexdigest()


def tensor_sha256(dtype: str, shape: Sequence[int], content: bytes) -> str:
    """SHA-256 (hex) of a tensor: its dtype as safetensors calls it, its shape, and the SHA-256 of its bytes."""
    return hashlib.sha256(canonical(dtype, len(shape), *shape, content)).hexdigest()


class _Meter:
    """Counts the bytes that were hashed, over all files that have to be."""

    def __init__(self, files: Sequence[Path], *, known: Mapping[str, Any], progress: Progress | None) -> None:
        self._progress = progress
        self._total = sum(path.stat().st_size for path in files if _remembered(path, known=known) is None)
        self._done = 0
        self._lock = threading.Lock()

    def add(self, count: int) -> None:
        """So many bytes more."""
        with self._lock:
            self._done += count
            if self._progress is not None:
                self._progress(self._done, self._total)


def _file_digests(path: Path, *, known: Mapping[str, Any], seen: dict[str, Any], meter: _Meter) -> dict[str, str]:
    """One digest a tensor of (dtype, shape, bytes), from the memo when the file is unchanged."""
    try:
        stamp = file_stamp(path)
        tensors = _remembered(path, known=known)
        if tensors is None:
            tensors = _hash_tensors(path, meter=meter)
            if file_stamp(path) != stamp:
                raise ModelError(f"{path}: was changed while it was read: wait until it is written, then start again")
    except UnreadableFileError as error:
        raise ModelError(f"{error}: fetch the model again") from error
    except OSError as error:
        raise ModelError(f"{path}: cannot be read ({error.strerror}): check the model directory") from error
    seen[str(path.resolve())] = {"stamp": stamp, "tensors": tensors}
    return tensors


def _remembered(path: Path, *, known: Mapping[str, Any]) -> dict[str, str] | None:
    """What the memo knows of a file that did not change since."""
    entry = known.get(str(path.resolve()))
    if not isinstance(entry, dict) or not isinstance(entry.get("tensors"), dict):
        return None
    if entry.get("stamp") != file_stamp(path):
        return None
    return {str(key): str(value) for key, value in entry["tensors"].items()}


def _hash_tensors(path: Path, *, meter: _Meter) -> dict[str, str]:
    tensors = list(_tensors(path))
    # hashlib lets go of the interpreter lock, so threads hash on all cores.
    with ThreadPoolExecutor(max_workers=min(8, os.cpu_count() or 1)) as pool:
        digests = pool.map(lambda tensor: _tensor_digest(path, tensor, meter=meter), tensors)
        return {tensor.name: digest for tensor, digest in zip(tensors, digests, strict=True)}


def _tensor_digest(path: Path, tensor: _Tensor, *, meter: _Meter) -> str:
    content = hashlib.sha256()
    descriptor = os.open(path, os.O_RDONLY)
    try:
        at = tensor.start
        while at < tensor.end:
            piece = os.pread(descriptor, min(READ_BYTES, tensor.end - at), at)
            if not piece:
                raise ModelError(f"{path}: ends inside tensor {tensor.name}: fetch the file again")
            content.update(piece)
            at += len(piece)
            meter.add(len(piece))
    finally:
        os.close(descriptor)
    return tensor_sha256(tensor.dtype, tensor.shape, content.digest())


def _tensors(path: Path) -> Iterator[_Tensor]:
    """The tensors that the header of a safetensors file names."""
    with open_regular(path, links="follow") as file:
        size = os.fstat(file.fileno()).st_size
        length = int.from_bytes(file.read(8), "little")
        if not 0 < length <= min(LARGEST_HEADER, size - 8):
            raise ModelError(f"{path}: not a safetensors file: fetch it again")
        text = file.read(length)
    data = 8 + length
    try:
        for name, entry in json.loads(text).items():
            if name != "__metadata__":
                start, end = entry["data_offsets"]
                _require_whole(start, end, *entry["shape"])
                if not 0 <= start <= end <= size - data or min(entry["shape"], default=0) < 0:
                    raise ModelError(f"{path}: tensor {name} lies outside the file: fetch it again")
                if prod(entry["shape"]) > 0 and start == end:
                    raise ModelError(f"{path}: tensor {name} has a shape but no bytes: fetch it again")
                f"{name}{entry['dtype']}".encode()  # JSON may hold halves of characters, which no digest takes
                yield _Tensor(name, str(entry["dtype"]), tuple(entry["shape"]), data + start, data + end)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        if isinstance(error, ModelError):
            raise
        raise ModelError(f"{path}: its header is not that of a safetensors file: fetch it again") from error


def _require_whole(*numbers: object) -> None:
    """Only whole numbers of a size that files have can be offsets or lengths."""
    if not all(isinstance(number, int) and abs(number) < 2**63 for number in numbers):
        raise ValueError


def _stable(value: Any) -> Any:
    """The value without volatile keys at any depth."""
    if isinstance(value, list):
        return [_stable(item) for item in value]
    if not isinstance(value, dict):
        return value
    return {
        key: item if key in KEPT_WHOLE else _stable(item)
        for key, item in value.items()
        if key not in VOLATILE_CONFIG_KEYS
    }


def _read_memo(memo: Path | None) -> dict[str, Any]:
    """What the memo knows; one that cannot be read is worth nothing and is written anew."""
    if memo is None:
        return {}
    try:
        stored = read_json(memo, at_most=MEMO_BYTES)
    except (OSError, UnreadableFileError):
        return {}
    if not isinstance(stored, dict) or stored.get("format") != MEMO_FORMAT:
        return {}
    files = stored.get("files")
    return dict(files) if isinstance(files, dict) else {}


def _write_memo(memo: Path, files: Mapping[str, Any]) -> None:
    """Keep what was hashed last, of files that are still there."""
    kept = [(path, entry) for path, entry in files.items() if Path(path).is_file()][-MOST_REMEMBERED:]
    try:
        memo.parent.mkdir(parents=True, exist_ok=True)
        replace_file(memo, json.dumps({"format": MEMO_FORMAT, "files": dict(kept)}).encode())
    except OSError as error:
        raise ModelError(f"{memo}: cannot be written ({error.strerror}): name a writable memo file") from error
