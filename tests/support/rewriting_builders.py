"""Caches to be rewritten, and all that a cache answers, for comparison before and after."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from store_builders import TEACHER, VOCAB, answer, make_record, make_request, open_cache, teacher_dir

from cache.disk.failpoints import VARIABLE
from cache.disk.local_storage import LocalStorage
from cache.records import GenerateRequest, TeacherRecord
from cache.store import TeacherCache
from cache.upkeep.garbage import collect_garbage
from cache.upkeep.rewriting import RewriteReport, compact

DIGEST = TEACHER.digest()
KS = (0, 2, 8)


class StoppingStorage(LocalStorage):
    """A place that fails after so many deletes."""

    def __init__(self, root: Path, *, after: int) -> None:
        super().__init__(root)
        self._left = after

    def _spend(self) -> None:
        if self._left == 0:
            raise OSError(5, "Input/output error")
        self._left -= 1

    def delete(self, name: str) -> None:
        self._spend()
        super().delete(name)

    def delete_folder(self, name: str) -> None:
        self._spend()
        super().delete_folder(name)


def storage_of(root: Path) -> LocalStorage:
    return LocalStorage(teacher_dir(root))


def names(root: Path, folder: str, *, suffix: str = "") -> list[str]:
    return [name.removesuffix(suffix) for name in storage_of(root).names(folder) if name.endswith(suffix)]


def put_each(root: Path, prompts: Sequence[int], *, encoding: str = "topk-u8", k: int = 8) -> list[TeacherRecord]:
    """One segment an answer to each prompt."""
    return [put_answer(root, prompt, encoding=encoding, k=k) for prompt in prompts]


def put_answer(
    root: Path, prompt: int, *, length: int = 5, stop: bool = True, limit: int = 8, k: int = 8, **terms: Any
) -> TeacherRecord:
    """The answer to a prompt, cut after `length` tokens unless it stops there, as a segment of its own."""
    request = make_request([3, 4, prompt], limit=limit)
    record, _ = answer(request, length=length, finish="stop" if stop else "length", k=k)
    open_cache(root).put([(record, request)], vocab=VOCAB, **terms)
    return record


def requests_of(prompts: Sequence[int], *, limits: Sequence[int] = (2, 3, 5, 8, 40)) -> list[GenerateRequest]:
    return [make_request([3, 4, prompt], limit=limit) for prompt in prompts for limit in limits]


def everything(cache: TeacherCache, requests: list[GenerateRequest], keys: list[bytes]) -> dict[str, Any]:
    """All that the cache says about these requests and keys, bit for bit."""
    cache.refresh()
    found = cache.lookup(requests)
    asked = [*dict.fromkeys([*keys, *(key for key in found if key)])]
    records = [_bits(record) for k in (None, *KS) for record in cache.get_many(asked, k=k)]
    held = [key for key, record in zip(asked, cache.get_many(asked, k=2), strict=True) if record is not None]
    view = cache.view(held, dataset="d", k=2)
    return {
        "missing": [cache.missing(requests, k=k) for k in KS],
        "lookup": found,
        "records": records,
        "count": cache.stats().records,
        "view": view.digest,
        "rows": [_bits(row) for block in cache.iter_blocks(view, [np.arange(len(view))]) for row in block],
    }


def _bits(record: TeacherRecord | None) -> tuple[Any, ...] | None:
    if record is None:
        return None
    parts = [getattr(record, name) for name in TeacherRecord.__dataclass_fields__]
    return tuple((part.dtype, part.shape, part.tobytes()) if isinstance(part, np.ndarray) else part for part in parts)


def forked(work: Callable[[], object], *, failpoint: str = "") -> int:
    """Do the work in a process of its own, killed at a failpoint if one is named; its process id."""
    sys.stdout.flush()
    with warnings.catch_warnings():
        # From Python 3.12 on it warns that the threads of this process stay behind; the work needs none of them.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        os.environ[VARIABLE] = failpoint
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return pid


def wait_for(pids: Sequence[int], *, code: int = 0) -> None:
    """Wait for processes that have to end like this."""
    assert [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids] == [code] * len(pids)


def killed_at(failpoint: str, work: Callable[[], object]) -> None:
    """Do the work in a process that is killed at this place."""
    wait_for([forked(work, failpoint=failpoint)], code=-signal.SIGKILL)


def scored_again(record: TeacherRecord, *, k: int) -> TeacherRecord:
    """The same sequence, scored anew with other log-probabilities."""
    return make_record(record.token_ids.tolist(), prompt_len=record.prompt_len, k=k, finish="given", seed=k + 100)


def merge(root: Path, *, max_rows: int = 131_072) -> RewriteReport:
    return compact(storage_of(root), identity=DIGEST, max_rows=max_rows)


def sweep(root: Path) -> None:
    """Remove all that no longer counts, with all pins."""
    shutil.rmtree(teacher_dir(root) / "pins", ignore_errors=True)
    collect_garbage(storage_of(root), identity=DIGEST, dry_run=False, grace_s=-1.0, silent_s=-1.0)
