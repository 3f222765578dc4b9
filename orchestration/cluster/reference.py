"""The forward pass that engines are compared with: made once for all engines of a teacher, and kept.

It runs in a process of its own on all cores of its machine (an engine cannot use more threads than it was given), while
the engines wait. What it found is kept below the run root by the teacher's identity and the sequence, so engines that
are started again have nothing to wait for.
"""

from __future__ import annotations

import hashlib
import io
import json
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from cache.arrays import stored_arrays
from cache.disk.durable import replace_file
from configs import EngineError
from configs.regular_files import UnreadableFileError, read_json
from orchestration.cluster.task import Apart, run_apart
from orchestration.outputs.redirect import redirect_output
from orchestration.plan.hardware import GIB, read_host_memory
from teacher_server.reference import ReferenceRows

REFERENCE = "stillroom/reference/1"
"""The schema of a file. Earlier releases named none and wrote the same arrays."""

ROWS_BYTES = 2**24
"""No kept sequence is longer in bytes."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ReferenceJob:
    """Sequences that a model has to judge; `progress_file` says how far it is, as [layers done, layers]."""

    model_dir: Path
    dtype: str
    sequences: tuple[tuple[int, ...], ...]
    progress_file: Path
    log_file: Path


def kept_reference(
    sequences: Sequence[tuple[int, ...]],
    *,
    folder: Path,
    model_dir: Path,
    dtype: str,
    log_dir: Path,
    report: Callable[[int, int], None],
    compute: Callable[..., list[ReferenceRows]] | None = None,
) -> list[ReferenceRows]:
    """The rows of each sequence: read from `folder`, which belongs to one teacher, or computed and kept there.

    Raises:
        EngineError: the forward pass could not be made.
        ModelError: the model cannot be loaded by transformers.
        NoReferenceError: the machine cannot make the forward pass.
    """
    kept = {sequence: folder / f"{_name(sequence, dtype=dtype)}.npz" for sequence in sequences}
    found = {sequence: rows for sequence, path in kept.items() if (rows := _read(path, tokens=len(sequence)))}
    missing = tuple(sequence for sequence in kept if sequence not in found)
    if missing:
        job = ReferenceJob(model_dir, dtype, missing, log_dir / "reference-progress.json", log_dir / "reference.log")
        for sequence, rows in zip(missing, (compute or _compute_apart)(job, report=report), strict=True):
            found[sequence] = rows
            _keep(kept[sequence], rows)
    return [found[sequence] for sequence in sequences]


def _compute_apart(job: ReferenceJob, *, report: Callable[[int, int], None]) -> list[ReferenceRows]:
    def look() -> None:
        try:
            seen = read_json(job.progress_file, at_most=1024)
        except (OSError, UnreadableFileError):
            return
        if isinstance(seen, list) and len(seen) == 2 and all(isinstance(number, int) for number in seen):
            report(*seen)

    return run_apart(
        _compute,
        job,
        apart=Apart("the forward pass that engines are compared with", EngineError, "cpu", None, job.log_file),
        meanwhile=look,
    )


def _compute(job: ReferenceJob) -> list[ReferenceRows]:
    redirect_output(job.log_file)
    import torch

    from teacher_server.reference import reference_rows

    torch.set_num_threads(len(os.sched_getaffinity(0)))
    memory = read_host_memory()

    def report(done: int, total: int) -> None:
        replace_file(job.progress_file, json.dumps([done, total]).encode())

    free = {} if memory is None else {"memory_bytes": memory.free_gib * GIB}
    try:
        return reference_rows(job.model_dir, job.sequences, dtype=job.dtype, report=report, **free)
    finally:
        job.progress_file.unlink(missing_ok=True)


def _name(sequence: Sequence[int], *, dtype: str) -> str:
    return hashlib.sha256(json.dumps([dtype, list(sequence)]).encode()).hexdigest()[:32]


def _read(path: Path, *, tokens: int) -> ReferenceRows | None:
    """What was kept of a sequence, or None; what is damaged or of another version is computed anew."""
    try:
        with stored_arrays(path, at_most=ROWS_BYTES) as stored:
            schema = str(stored["schema"]) if "schema" in stored else REFERENCE
            rows = ReferenceRows(stored["target_logprobs"], stored["best_ids"])
    except (OSError, UnreadableFileError):
        return None
    if schema != REFERENCE:
        return None
    whole = rows.target_logprobs.shape == rows.best_ids.shape == (tokens - 1,)
    kinds = (rows.target_logprobs.dtype, rows.best_ids.dtype)
    if not whole or kinds != (np.dtype(np.float32), np.dtype(np.int32)):
        return None
    return rows


def _keep(path: Path, rows: ReferenceRows) -> None:
    content = io.BytesIO()
    np.savez(content, schema=np.array(REFERENCE), target_logprobs=rows.target_logprobs, best_ids=rows.best_ids)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, content.getvalue())
    except OSError as error:
        logger.warning("%s: the reference is not kept (%s)", path, error.strerror)
