"""The binary body of the door: what a teacher answered as flat arrays, as compact as they are in memory.

Numbers in JSON take 4.6 kB and 276 us a token with 64 log-probabilities; here they take 8 bytes an entry and the time
of a copy. A body is

    8 bytes     b"STILLRM1", the magic with the version of the format
    4 bytes     length of the header, little-endian
    header      JSON (UTF-8): what it is, the teacher, and name, type and shape of every array, in their order
    arrays      each as little-endian numbers in C order, padded with zeros to a multiple of 8 bytes
    4 bytes     CRC-32C of all that stands before, little-endian

so that any program reads it with a JSON parser and a cast. Records are `kind: "records"`; their arrays, of B rows with
T tokens in all of which S are response tokens:

    failed [B] u1           1 where the teacher could not answer: the reason stands in the header's `failures`
    cached [B] u1           1 where nobody was asked for it
    finish, origin [B] u1   positions in `FINISHES` and `ORIGINS`
    prompt_len [B] i4
    offsets [B+1] i8        where the tokens of each row begin in `token_ids`; a failed row has none
    token_ids [T] i4
    topk_ids [S, K] i4, topk_logprobs [S, K] f4, target_logprobs [S] f4, target_ranks [S] i4, tail_logmass [S] f4:
                            as in `TeacherRecord`, the rows of one sequence after the other; absent where K = 0

Keys are not sent: who reads a body knows the teacher (`identity`), and computes them from the tokens.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar, get_args

import google_crc32c
import numpy as np
from numpy.typing import NDArray

from cache.keys import sequence_key
from cache.protocols import Failure
from cache.records import Finish, Origin, TeacherRecord, validate_record
from configs.errors import RecordError

MEDIA_TYPE = "application/vnd.stillroom.arrays"
"""The content type of a binary body; a client that accepts it gets one."""

MAGIC = b"STILLRM1"

FINISHES: tuple[Finish, ...] = get_args(Finish)
"""Sent as their position."""

ORIGINS: tuple[Origin, ...] = get_args(Origin)
"""Sent as their position."""

ENGINES_DIED = "engines died while they were asked this"
"""Stands in the reason of a row that the door refuses because its engines die: it says nothing of the teacher."""

_LENGTH = struct.Struct("<I")
_ALIGNMENT = 8
_TYPES: dict[str, np.dtype[Any]] = {"u1": np.dtype("u1")} | {name: np.dtype("<" + name) for name in ("i4", "i8", "f4")}
_MOST_ARRAYS = 32
_MOST_DIMENSIONS = 2
_LONGEST = 2**31 - 1

_PER_RESPONSE = ("topk_ids", "topk_logprobs", "target_logprobs", "target_ranks", "tail_logmass")

Array = NDArray[Any]


class WireError(RecordError):
    """A body is not what it should be: cut short, of another format, or its parts contradict each other."""


Record = TypeVar("Record")


@dataclass(frozen=True, slots=True, eq=False)
class Answered(Generic[Record]):
    """One row of an answer: the record, or why there is none, and whether the cache had it."""

    outcome: Record | Failure
    cached: bool = False


def encode_records(answers: Sequence[Answered[TeacherRecord]], *, identity: str) -> bytes:
    """The body of these rows, all with the same k, or as text alone; `identity` is the teacher's digest."""
    records = [each.outcome for each in answers if isinstance(each.outcome, TeacherRecord)]
    lengths = [0 if isinstance(each.outcome, Failure) else len(each.outcome.token_ids) for each in answers]
    arrays: dict[str, Array] = {
        "failed": np.array([isinstance(each.outcome, Failure) for each in answers], dtype="u1"),
        "cached": np.array([each.cached for each in answers], dtype="u1"),
        "finish": _facts(answers, lambda record: FINISHES.index(record.finish), dtype="u1"),
        "origin": _facts(answers, lambda record: ORIGINS.index(record.origin), dtype="u1"),
        "prompt_len": _facts(answers, lambda record: record.prompt_len, dtype="<i4"),
        "offsets": np.concatenate([[0], np.cumsum(lengths, dtype="<i8")]).astype("<i8"),
        "token_ids": _joined([record.token_ids for record in records], dtype="<i4"),
    }
    if any(record.k for record in records):
        for name in _PER_RESPONSE:
            arrays[name] = _joined([getattr(record, name) for record in records])
    failures = {at: each.outcome.reason for at, each in enumerate(answers) if isinstance(each.outcome, Failure)}
    return pack({"kind": "records", "identity": identity, "failures": failures}, arrays)


def decode_records(body: bytes, *, identity: str, vocab: int | None = None) -> list[Answered[TeacherRecord]]:
    """The rows of a body, each checked as a record is before it is kept; `vocab` is V where it is known.

    Raises:
        WireError: the body is damaged or of another format, or another teacher answered than `identity`.
    """
    header, arrays = unpack(body)
    require_kind(header, "records", identity=identity)
    try:
        return list(_rows(arrays, failures=header["failures"], identity=identity, vocab=vocab))
    except (KeyError, IndexError, TypeError, ValueError, AttributeError) as error:
        raise WireError(f"an answer whose parts do not fit together: {error}") from error


def require_kind(header: Mapping[str, Any], kind: str, *, identity: str) -> None:
    """Refuse a body of another kind, or of another teacher than the one of this digest.

    Raises:
        WireError: naming both.
    """
    if header.get("kind") != kind:
        raise WireError(f"an answer of kind {header.get('kind')!r} where {kind} were due")
    if header.get("identity") != identity:
        raise WireError(
            f"the teacher {str(header.get('identity'))[:12]} answered and not {identity[:12]}: the door serves another "
            "one now"
        )


def pack(header: Mapping[str, Any], arrays: Mapping[str, Array]) -> bytes:
    """A body of named arrays, of the types of this format, after what the header says."""
    described = [[name, array.dtype.str[1:], list(array.shape)] for name, array in arrays.items()]
    head = json.dumps({**header, "arrays": described}, ensure_ascii=False).encode()
    parts = [MAGIC, _LENGTH.pack(len(head)), head]
    parts.append(bytes(-(len(MAGIC) + _LENGTH.size + len(head)) % _ALIGNMENT))
    for array in arrays.values():
        parts += [np.ascontiguousarray(array).tobytes(), bytes(-array.nbytes % _ALIGNMENT)]
    body = b"".join(parts)
    return body + _LENGTH.pack(google_crc32c.value(body))


def unpack(body: bytes) -> tuple[dict[str, Any], dict[str, Array]]:
    """The header and the arrays of a body, which share its memory; nothing is allocated that the body does not hold.

    Raises:
        WireError: it is damaged, cut short or of another format.
    """
    least = len(MAGIC) + 2 * _LENGTH.size
    if len(body) < least or body[: len(MAGIC)] != MAGIC:
        raise WireError(f"a body of {len(body)} bytes that does not begin with {MAGIC.decode()}: not an answer of ours")
    if _LENGTH.unpack(body[-_LENGTH.size :])[0] != google_crc32c.value(body[: -_LENGTH.size]):
        raise WireError("a body that was damaged on the way: its checksum differs")
    (length,) = _LENGTH.unpack_from(body, len(MAGIC))
    at = len(MAGIC) + _LENGTH.size + length
    try:
        header = json.loads(body[at - length : at].decode())
        described = header.pop("arrays")
        shapes = [(str(name), _TYPES[kind], _shape(shape)) for name, kind, shape in described]
    except (UnicodeDecodeError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise WireError(f"a body whose header cannot be read: {error}") from error
    if len(shapes) > _MOST_ARRAYS:
        raise WireError(f"a body of {len(shapes)} arrays, more than {_MOST_ARRAYS}")
    arrays: dict[str, Array] = {}
    for name, dtype, shape in shapes:
        at += -at % _ALIGNMENT
        count = math.prod(shape)
        if at + count * dtype.itemsize > len(body) - _LENGTH.size:
            raise WireError(f"a body that ends within its array {name}")
        arrays[name] = np.frombuffer(body, dtype=dtype, count=count, offset=at).reshape(shape)
        at += count * dtype.itemsize
    if at + -at % _ALIGNMENT != len(body) - _LENGTH.size:
        raise WireError("a body that goes on behind its last array")
    return header, arrays


def require_dimensions(arrays: Mapping[str, Array], *, matrices: Collection[str] = ()) -> None:
    """Refuse arrays that are not as the format has them: lists of numbers, but for the `matrices` by name.

    Rows of nothing take no bytes, so a body of a few could have more of them than anybody can count.

    Raises:
        ValueError: naming the first one.
    """
    for name, array in arrays.items():
        if array.ndim != (2 if name in matrices else 1):
            raise ValueError(f"{name} has {array.ndim} dimensions")


def said_failure(failures: Mapping[str, Any], at: int) -> Failure:
    """Why there is no answer at this place.

    Raises:
        KeyError: nothing is said of it.
        TypeError: it is not a text.
    """
    reason = failures[str(at)]
    if not isinstance(reason, str):
        raise TypeError(f"a reason that is a {type(reason).__name__}")
    return Failure(reason)


def _shape(said: Any) -> tuple[int, ...]:
    shape = tuple(said)
    sound = all(type(size) is int and 0 <= size <= _LONGEST for size in shape)
    if not 0 < len(shape) <= _MOST_DIMENSIONS or not sound:
        raise ValueError(f"no shape: {shape}")
    return shape


def _rows(
    arrays: Mapping[str, Array], *, failures: Mapping[str, str], identity: str, vocab: int | None
) -> Iterator[Answered[TeacherRecord]]:
    """Row by row; every array has to have as many entries as the others say."""
    require_dimensions(arrays, matrices=("topk_ids", "topk_logprobs"))
    failed, offsets, prompts = arrays["failed"], arrays["offsets"], arrays["prompt_len"]
    tokens, rows = arrays["token_ids"], len(failed)
    lengths = np.diff(offsets)
    responses = np.where(failed, 0, lengths - prompts)
    scored = "topk_ids" in arrays
    sizes = {len(arrays[name]) for name in ("cached", "finish", "origin", "prompt_len")} | {len(offsets) - 1}
    if sizes != {rows} or offsets[0] != 0 or offsets[-1] != len(tokens) or (lengths < 0).any():
        raise ValueError("its rows are counted differently")
    if (responses < 0).any() or (lengths[failed != 0] != 0).any():
        raise ValueError("a row has fewer tokens than its prompt, or a failed one has some")
    if scored and {len(arrays[name]) for name in _PER_RESPONSE} != {int(responses.sum())}:
        raise ValueError("its rows of log-probabilities are not those of its response tokens")
    ends = np.cumsum(responses)
    for at in range(rows):
        cached = bool(arrays["cached"][at])
        if failed[at]:
            yield Answered(said_failure(failures, at), cached)
            continue
        inside = slice(int(ends[at] - responses[at]), int(ends[at]))
        token_ids, prompt_len = tokens[offsets[at] : offsets[at + 1]], int(prompts[at])
        record = TeacherRecord(
            key=sequence_key(identity, token_ids, prompt_len),
            token_ids=token_ids,
            prompt_len=prompt_len,
            finish=FINISHES[arrays["finish"][at]],
            origin=ORIGINS[arrays["origin"][at]],
            topk_ids=arrays["topk_ids"][inside] if scored else None,
            topk_logprobs=arrays["topk_logprobs"][inside] if scored else None,
            target_logprobs=arrays["target_logprobs"][inside] if scored else None,
            target_ranks=arrays["target_ranks"][inside] if scored else None,
            tail_logmass=arrays["tail_logmass"][inside] if scored else None,
        )
        validate_record(record, vocab=vocab)
        yield Answered(record, cached)


def _facts(answers: Sequence[Answered[TeacherRecord]], fact: Any, *, dtype: str) -> Array:
    values = [0 if isinstance(each.outcome, Failure) else fact(each.outcome) for each in answers]
    return np.array(values, dtype=dtype)


def _joined(arrays: Sequence[Array], *, dtype: str | None = None) -> Array:
    return np.concatenate(arrays) if arrays else np.empty(0, dtype=dtype)
