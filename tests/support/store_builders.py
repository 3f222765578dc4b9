"""Teachers, records and requests for the tests of the store."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from cache.identity import TeacherIdentity
from cache.keys import sequence_key
from cache.records import Finish, GenerateRequest, Origin, TeacherRecord, tail_logmass
from cache.store import TeacherCache

VOCAB = 50
STOP = 1
TEACHER = TeacherIdentity(weights_sha256="a" * 64, config_sha256="b" * 64)
OTHER_TEACHER = dataclasses.replace(TEACHER, dtype="float32")


def random_logprobs(rng: np.random.Generator, *, rows: int, k: int, vocab: int, scale: float = 2.0) -> np.ndarray:
    """Top-k log-probabilities [rows, k] of random distributions over `vocab` tokens."""
    logits = rng.normal(scale=scale, size=(rows, vocab))
    logprobs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return -np.sort(-logprobs, axis=1)[:, :k].astype(np.float32)


def make_record(
    tokens: Sequence[int],
    *,
    prompt_len: int,
    k: int = 8,
    finish: Finish = "stop",
    identity: TeacherIdentity = TEACHER,
    vocab: int = VOCAB,
    seed: int = 0,
    version: int | None = None,
) -> TeacherRecord:
    """A record of these tokens with random rows; k = 0 keeps the text alone."""
    ids = np.asarray(tokens, dtype=np.int32)
    key = sequence_key(identity.digest(), ids, prompt_len)
    origin: Origin = "prefill" if finish == "given" else "decode"
    if k == 0:
        return TeacherRecord(
            key=key, token_ids=ids, prompt_len=prompt_len, finish=finish, origin=origin, policy_version=version
        )
    rng = np.random.default_rng([seed, *ids.tolist()])
    rows = len(ids) - prompt_len
    logprobs = random_logprobs(rng, rows=rows, k=k, vocab=vocab)
    topk_ids = np.stack([rng.permutation(vocab)[:k] for _ in range(rows)]) if rows else np.empty((0, k))
    return TeacherRecord(
        key=key,
        token_ids=ids,
        prompt_len=prompt_len,
        finish=finish,
        origin=origin,
        policy_version=version,
        topk_ids=topk_ids.astype(np.int32),
        topk_logprobs=logprobs,
        target_logprobs=rng.uniform(-9, -0.1, size=rows).astype(np.float32),
        target_ranks=rng.integers(1, vocab + 1, size=rows).astype(np.int32),
        tail_logmass=tail_logmass(logprobs, vocab=vocab),
    )


def make_request(prompt: Sequence[int], *, limit: int = 8, temperature: float = 0.0, seed: int = 0) -> GenerateRequest:
    """A request with the usual stop set."""
    return GenerateRequest(
        prompt_ids=tuple(prompt),
        stop_ids=(STOP,),
        max_new_tokens=limit,
        temperature=temperature,
        sampling_seed=seed,
    )


def answer(
    request: GenerateRequest,
    *,
    length: int = 5,
    finish: Finish = "stop",
    k: int = 8,
    identity: TeacherIdentity = TEACHER,
    seed: int = 0,
) -> tuple[TeacherRecord, GenerateRequest]:
    """A random completion of a request, with the request, as `put` takes it."""
    rng = np.random.default_rng([seed, *request.prompt_ids])
    response = rng.integers(2, VOCAB, size=length).tolist()
    if finish == "stop":
        response[-1] = STOP
    tokens = [*request.prompt_ids, *response]
    record = make_record(tokens, prompt_len=len(request.prompt_ids), k=k, finish=finish, identity=identity, seed=seed)
    return record, request


def open_cache(root: Path, *, identity: TeacherIdentity = TEACHER) -> TeacherCache:
    """A fresh window on the cache below `root`."""
    return TeacherCache.open(root, identity)


def teacher_dir(root: Path, *, identity: TeacherIdentity = TEACHER) -> Path:
    """The directory of the teacher."""
    return root / identity.digest()


def flip_bit(path: Path, *, at: float = 0.5, bit: int = 3) -> None:
    """Flip one bit at this fraction of the file, keeping its size and times."""
    status = path.stat()
    data = bytearray(path.read_bytes())
    data[min(int(len(data) * at), len(data) - 1)] ^= 1 << bit
    path.write_bytes(data)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def damage(path: Path, how: str) -> None:
    """Cut, empty or delete a file, or flip a bit at this fraction of it; what is linked to it stays as it was."""
    data = path.read_bytes()
    path.unlink()
    if how == "deleted":
        return
    path.write_bytes({"cut": data[:-1], "emptied": b""}.get(how, data))
    if how not in ("cut", "emptied"):
        flip_bit(path, at=float(how))


def assert_same_text(stored: TeacherRecord | None, original: TeacherRecord) -> None:
    """The parts that every encoding keeps bit for bit."""
    assert stored is not None
    assert stored.key == original.key
    np.testing.assert_array_equal(stored.token_ids, original.token_ids)
    assert (stored.prompt_len, stored.finish, stored.origin) == (
        original.prompt_len,
        original.finish,
        original.origin,
    )
    assert stored.policy_version == original.policy_version
    assert (stored.topk_ids is None) == (original.topk_ids is None)
    if stored.topk_ids is not None and original.topk_ids is not None:
        np.testing.assert_array_equal(stored.topk_ids, original.topk_ids)
        np.testing.assert_array_equal(stored.target_logprobs, original.target_logprobs)
        np.testing.assert_array_equal(stored.target_ranks, original.target_ranks)
        np.testing.assert_array_equal(stored.tail_logmass, original.tail_logmass)
