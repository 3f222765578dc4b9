"""What became of a process that Ray lost, in one line that tells what to do.

Ray has a dozen classes of errors for a process that is gone, and writes a page about each. For us there are three
cases: the process raised an error of ours; it is gone, most often because the memory of its machine ran out, and
another one may take its place; or the cluster itself is gone, and nothing can.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

from ray.exceptions import (
    AuthenticationError,
    LocalRayletDiedError,
    OutOfDiskError,
    OutOfMemoryError,
    RaySystemError,
    RayTaskError,
    WorkerCrashedError,
)

from configs import DistillError
from orchestration.cluster.daemons import raylet_is_gone
from orchestration.plan.hardware import GIB, read_host_memory
from orchestration.plan.memory import MemoryFit

CLUSTER_LOST = (LocalRayletDiedError, RaySystemError, AuthenticationError, OutOfDiskError)
"""Errors after which no process of this cluster can be reached or started."""

_NO_MEMORY = re.compile(
    r"out of memory|can't allocate memory|cannot allocate memory|bad_alloc|MemoryError|STATUS_ALLOC_FAILED", re.I
)
"""How torch, CUDA's libraries, C++'s and Python say inside a process that lives on that memory ran out."""

_WITHOUT_A_WORD = re.compile(r"SIGKILL|connection error code|unexpected(ly)? (system )?exit|OOM|was killed", re.I)
"""How Ray speaks of a process that ended without an error of its own."""


class WorkersFailedError(Exception):
    """Some workers of a group failed; `failures` says how, by the order of their start."""

    def __init__(self, failures: Mapping[int, Exception]) -> None:
        self.failures = failures
        # What a worker raised itself explains more than that another is gone.
        raised = [each for each in failures.values() if isinstance(each, RayTaskError)]
        told = str(raised[0]) if raised else str(next(iter(failures.values()))).strip().partition("\n")[0]
        super().__init__(f"workers failed:\n{told}")


def lost(
    error: BaseException, *, what: str, fit: MemoryFit | None, log: Path, kind: type[DistillError], kept: str = ""
) -> DistillError:
    """The one line about `error`, which ended `what`; `fit` is the memory that was planned for it.

    An error of ours comes back as it was raised in its process. For a cluster that is gone it is a plain
    `DistillError`, after which nothing is tried again; otherwise it is one of `kind`, with what is `kept`. A process
    that could not even import its work has no log: then the folder is named, which holds the driver's own.
    """
    log = log.parent if log.suffix == ".log" and not log.exists() else log
    causes = _causes(error)
    ours = next((each for each in causes if isinstance(each, DistillError)), None)
    if ours is not None:
        return ours
    raylet_gone = raylet_is_gone()
    if raylet_gone or any(isinstance(each, CLUSTER_LOST) for each in causes):
        reason = "its raylet process was killed or died" if raylet_gone else _first_sentence(error)
        return DistillError(
            f"the Ray cluster of this run is gone ({reason}): nothing that was committed is lost, run "
            f"the same command to go on; the log of {what} is in {log}"
        )
    reason = " ".join(str(each) for each in causes)
    if memory_ran_out(error):
        said = f"{what} ended because memory ran out{_planned(fit)}"
    elif any(isinstance(each, WorkerCrashedError) for each in causes) or _WITHOUT_A_WORD.search(reason):
        said = f"{what} was killed without an error of its own, most often because memory ran out{_planned(fit)}"
    else:
        said = f"{what} failed: {_first_sentence(error)}"
    return kind("; ".join(part for part in (said, kept, f"its log is in {log}") if part))


def memory_ran_out(error: BaseException) -> bool:
    """Whether what ended a process says that memory ran out.

    Seen at the driver: where an engine makes an error of ours of what it died of, the words of that are left ("it died
    of OutOfMemoryError: CUDA out of memory ..."). vLLM repeats the words of a rank of a group in the same way ("Worker
    failed with error 'CUDA out of memory ..."). What nobody caught keeps its class as well. Ray's own guard raises its
    `OutOfMemoryError`. Of what the kernel kills nothing is left but that it is gone, which may have other reasons.
    """
    causes = _causes(error)
    if any(isinstance(each, OutOfMemoryError | MemoryError) for each in causes):
        return True
    return any(_NO_MEMORY.search(str(each)) for each in causes)


def _planned(fit: MemoryFit | None) -> str:
    """What was needed, what there is, and which setting makes it smaller."""
    here = read_host_memory()
    there = "" if here is None else f", this machine has {here.total_gib:.1f} GiB, {here.free_gib:.1f} free now"
    if fit is None:
        return f"{there}: end other programs, or run fewer processes at a time"
    return f": each was planned with {fit.total_bytes / GIB:.1f} GiB{there}: {fit.cure}"


def _causes(error: BaseException) -> list[BaseException]:
    """An error, what it carries for single workers, and what caused it."""
    found: list[BaseException] = []
    waiting = [error]
    while waiting:
        each = waiting.pop(0)
        if any(each is known for known in found):
            continue
        found.append(each)
        if isinstance(each, WorkersFailedError):
            waiting += each.failures.values()
        inner = (getattr(each, name, None) for name in ("cause", "__cause__", "_base_exc"))
        waiting += [cause for cause in inner if isinstance(cause, BaseException)]
    return found


def _first_sentence(error: BaseException) -> str:
    """What an error says, without Ray's paragraphs about what may have been and what else it offers."""
    cause = getattr(error, "cause", None)
    task_failed = isinstance(error, RayTaskError)
    lines = str(cause or error).strip().splitlines() or [type(error).__name__]
    # "workers failed:" stands before a traceback, whose last line says which.
    text = lines[-1] if task_failed or lines[0].endswith(":") else lines[0]
    # A worker that lost another one begins with the place in the library's source where it noticed.
    text = re.sub(r"\[/[^]]*\] ", "", text)
    return text if task_failed else text.partition(". ")[0].rstrip(".")
