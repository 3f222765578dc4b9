"""Checkpoints that survive being killed at any moment.

A checkpoint is a directory `step-<n>`: DeepSpeed's shards, the best weights so far, one random state a process,
`state.json` and, written last, `manifest.json` with the size and SHA-256 of every other file. Training stands still
while each process takes hold of what it will write (`student_train.training.snapshots`). Then a thread beside the
training writes it into a staging directory, hashes it, syncs it and reads it back; the leader's waits for the digests
of the others, writes the manifest, renames the directory into its place and replaces the file `LATEST`; only then are
older ones removed. No two checkpoints are on their way at once. Reading takes the newest one of which every file still
matches the manifest, so a torn or damaged one costs only the time since the one before.

DeepSpeed's own files are pickles. They are read only after their digests matched a manifest, and only from the run
directory that this program wrote.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from cache.disk.durable import remove_leftovers, replace_file
from cache.disk.failpoints import failpoint
from configs.errors import ConfigError, TrainingError
from configs.places import STAGING
from configs.regular_files import UnreadableFileError, read_json
from student_train.files import commit_directory, new_staging, numbered
from student_train.job import StepMetrics
from student_train.training.commit import Commit, StopWaiting
from student_train.training.overfit import Sums
from student_train.training.random_state import random_state, set_random_state
from student_train.training.shares import Described, ShareFile, put_on_disk, sha256
from student_train.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 2
KEPT = 2
"""How many checkpoints stay: the newest, and one to fall back on should that be damaged later."""

CHECKPOINT_FAILPOINTS = (
    "checkpoint-before-share",  # this process has taken hold of what it will write, and its training goes on
    "checkpoint-before-best",  # its shards are written, the best weights are not yet
    "checkpoint-after-share",  # its share is on disk, nobody knows, and others are perhaps not as far
    "checkpoint-before-manifest",  # the shares of all are on disk, nothing says so yet
    "checkpoint-before-rename",  # the manifest is there, still in the staging directory
    "checkpoint-before-latest",  # the checkpoint is in its place and counts, `LATEST` names the one before
    "checkpoint-before-drop",  # `LATEST` names it, those that it makes superfluous are still there
)
"""Where a test may kill the process, in the order they are passed."""

TRAINING_FAILPOINT = "training-beside-commit"
"""The same, after an optimiser step that was taken while this process still wrote a checkpoint."""

_MANIFEST = "manifest.json"
_STATE = "state.json"
_LATEST = "LATEST"
_STEP = "step-"
_SHARE = ".share-"
_POLL_S = 0.05
_HASHING_THREADS = 8


@dataclass(frozen=True, slots=True)
class CheckpointState:
    """Where a stage stands after `step` optimiser steps.

    The next global batch is number `step`, counted over epochs. `measured` are the held-out metrics so far, from which
    the best step follows. `pending` are all metrics reported since the previous checkpoint: they may not have reached
    the tracker when the process died, so they are reported again. `learned` are the sums over the steps since the last
    measurement (`student_train.training.overfit`).
    """

    step: int
    tokens: int
    skipped: int
    skipped_in_a_row: int
    world_size: int
    zero_stage: int
    view_digest: str
    stage_digest: str
    measured: tuple[StepMetrics, ...]
    pending: tuple[StepMetrics, ...]
    learned: Sums = field(default_factory=dict)


class Checkpoints:
    """The checkpoints of one stage, below one directory. All processes of the worker group make every call."""

    def __init__(self, root: Path, *, group: WorkerGroup) -> None:
        self._root = root
        self._group = group
        self._commit: Commit | None = None

    @property
    def committing(self) -> bool:
        """Whether this process is still at work on a checkpoint; on the leader: whether any of them is."""
        return self._commit is not None and self._commit.running

    @property
    def failed(self) -> bool:
        """Whether this process failed to write the last one; `settle` raises why."""
        return self._commit is not None and self._commit.error is not None

    def save(self, state: CheckpointState, *, take: Callable[[Path], Iterable[ShareFile]]) -> Path:
        """Begin a checkpoint, once the one before has its place; training may go on when this returns.

        `take` is called on every process with the directory to write into, and gives what that process will write.

        Raises:
            TrainingError, OSError: see `settle`, about the one before.
        """
        self.settle()
        final = self._root / f"{_STEP}{state.step:09d}"
        name = self._group.from_leader(str(new_staging(final)) if self._group.leads else None)
        assert name is not None
        staging = Path(name)
        files = [*take(staging), _text_file(staging / f"random-{self._group.rank}.json", json.dumps(random_state()))]
        if self._group.leads:
            files.append(_text_file(staging / _STATE, _encode(state)))
        self._commit = Commit(lambda given_up: self._write(files, staging=staging, final=final, given_up=given_up))
        return final

    def settle(self) -> None:
        """Wait until the checkpoint that was begun last has its place.

        Raises:
            TrainingError: what was written does not read back as it was, or another process failed.
            OSError: the disk refuses, or is full. All earlier checkpoints are still there in any case.
        """
        commit, self._commit = self._commit, None
        if commit is None:
            return
        # Together, and not each for itself: the leader would wait for ever for the share of a process that has failed.
        while True:
            commit.wait(_POLL_S)
            mine = [float(commit.error is not None), float(commit.running)]
            failed, running = self._group.total(torch.tensor(mine)).tolist()
            if failed or not running:
                break
        if not failed:
            return
        commit.abandon()
        reasons = self._group.from_all(None if commit.error is None else str(commit.error))
        if commit.error is not None:
            raise commit.error
        rank, reason = next((rank, reason) for rank, reason in enumerate(reasons) if reason is not None)
        raise TrainingError(f"worker {rank} could not write its share of a checkpoint: {reason}")

    def abandon(self) -> None:
        """After an error of the training: give up what is on its way, unless nothing of it is missing."""
        commit, self._commit = self._commit, None
        if commit is not None:
            commit.abandon()

    def newest(self) -> tuple[Path, CheckpointState] | None:
        """The newest checkpoint of which every file is as it was written, or None."""
        found: Path | None = None
        if self._group.leads:
            for _, path in reversed(numbered(self._root, _STEP)):
                if (damage := damaged(path)) is None:
                    found = path
                    break
                logger.warning("checkpoint %s is ignored: %s", path, damage)
        name = self._group.from_leader(None if found is None else str(found))
        if name is None:
            return None
        return Path(name), _decode((Path(name) / _STATE).read_text(encoding="utf-8"))

    def restore_random(self, path: Path) -> None:
        """Set this process's random state to what it was when `path` was written."""
        set_random_state(json.loads((path / f"random-{self._group.rank}.json").read_text(encoding="utf-8")))

    def clean(self) -> None:
        """Remove what killed processes left unfinished. Only one worker group at a time trains into a directory."""
        if self._group.leads:
            for path in self._root.glob(f"{STAGING}*"):
                shutil.rmtree(path, ignore_errors=True)
            remove_leftovers(self._root, of=_LATEST, older_than_s=0.0)
        self._group.barrier()

    def _write(self, files: list[ShareFile], *, staging: Path, final: Path, given_up: StopWaiting) -> None:
        """This process's share of a checkpoint, and for the leader all that follows; beside the training."""
        failpoint("checkpoint-before-share")
        share = put_on_disk(files, staging=staging, final=final)
        failpoint("checkpoint-after-share")
        if not self._group.leads:
            self._tell(share, staging=staging)
        elif (others := self._told(staging, given_up=given_up)) is not None:
            self._publish(share | others, staging=staging, final=final)

    def _tell(self, share: Described, *, staging: Path) -> None:
        """Let the leader know the digests of what this process wrote."""
        # A file, not a collective: those belong to the training. Its name appears with all that is in it.
        beside = staging / f"{_SHARE}{self._group.rank}.tmp"
        beside.write_text(json.dumps(share), encoding="utf-8")
        beside.rename(staging / f"{_SHARE}{self._group.rank}")

    def _told(self, staging: Path, *, given_up: StopWaiting) -> Described | None:
        """The digests of all others, when all of them are done; None when that is not waited for any more."""
        paths = [staging / f"{_SHARE}{rank}" for rank in range(1, self._group.world_size)]
        while not all(path.exists() for path in paths):
            if given_up.wait(_POLL_S):
                return None
        described: Described = {}
        for path in paths:
            shares: Any = read_json(path)
            described |= {name: (size, digest) for name, (size, digest) in shares.items()}
            path.unlink()
        return described

    def _publish(self, described: Described, *, staging: Path, final: Path) -> None:
        # The order of the commit. Killed after any line, the newest checkpoint with a manifest that matches is whole:
        # 1. all shares, on disk and read back: nothing older is given up for what the disk did not keep;
        # 2. the manifest, last of all files: without it a directory is not a checkpoint;
        # 3. sync and rename: the name appears when the bytes are on disk;
        # 4. LATEST, for people and scripts; reading does not need it;
        # 5. the older ones go.
        # DeepSpeed has put a script beside its shards.
        more = [ShareFile(staging / name) for name in _files(staging) if name not in described]
        described |= put_on_disk(more, staging=staging, final=final)
        manifest = {"format": CHECKPOINT_FORMAT, "files": dict(sorted(described.items()))}
        failpoint("checkpoint-before-manifest")
        put_on_disk([_text_file(staging / _MANIFEST, json.dumps(manifest, indent=1))], staging=staging, final=final)
        failpoint("checkpoint-before-rename")
        commit_directory(staging, final)
        failpoint("checkpoint-before-latest")
        replace_file(self._root / _LATEST, f"{final.name}\n".encode())
        failpoint("checkpoint-before-drop")
        self._drop_all_but(int(final.name.removeprefix(_STEP)))

    def _drop_all_but(self, newest: int) -> None:
        """Remove checkpoints that are superfluous now that the one of step `newest` was read back.

        One older one stays. Those of later steps were damaged, or this step would not have been trained again.
        """
        steps = numbered(self._root, _STEP)
        kept = [path for step, path in steps if step <= newest][-KEPT:]
        for _, path in steps:
            if path not in kept:
                # The manifest goes first: what is left if the process is killed here is not a checkpoint.
                (path / _MANIFEST).unlink(missing_ok=True)
                shutil.rmtree(path, ignore_errors=True)


def check_resumable(state: CheckpointState, *, path: Path, view_digest: str, stage_digest: str) -> None:
    """Refuse to resume from a checkpoint of other data or another stage.

    Raises:
        ConfigError: naming both values and the cure.
    """
    cure = f"or remove {path.parent} to start the stage again"
    if state.view_digest != view_digest:
        raise ConfigError(
            f"checkpoint {path.name} was trained on view {state.view_digest[:12]}, this run reads "
            f"{view_digest[:12]}: restore the rows that changed {cure}"
        )
    if state.stage_digest != stage_digest:
        raise ConfigError(
            f"checkpoint {path.name} belongs to stage {state.stage_digest[:12]}, this is {stage_digest[:12]}: "
            f"undo the change {cure}"
        )


def damaged(path: Path) -> str | None:
    """What is wrong with a checkpoint directory, or None when every file matches the manifest."""
    try:
        manifest: Any = read_json(path / _MANIFEST)
        if manifest["format"] != CHECKPOINT_FORMAT:
            return f"format {manifest['format']} is not {CHECKPOINT_FORMAT}"
        if _STATE not in manifest["files"]:
            return f"{_MANIFEST} does not name {_STATE}"
        for name, (size, _) in manifest["files"].items():
            if (path / name).stat().st_size != size:
                return f"{name} does not have the size that its manifest says"
        # Hashing leaves Python's lock free: as many files at once as there are processors.
        with ThreadPoolExecutor(min(_HASHING_THREADS, os.cpu_count() or 1)) as pool:
            found = pool.map(lambda name: sha256(path / name, from_disk=True), manifest["files"])
            for (name, (_, digest)), is_now in zip(manifest["files"].items(), found, strict=True):
                if is_now != digest:
                    return f"{name} does not match its digest"
        # DeepSpeed finds its shards by pattern, and they are pickles: a file too many is as bad as a changed one.
        for unknown in (name for name in _files(path) if name != _MANIFEST and name not in manifest["files"]):
            return f"{unknown} is not named by {_MANIFEST}"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except OSError as error:
        return f"{error.filename} cannot be read: {error.strerror}"
    except UnreadableFileError as error:
        return str(error).removeprefix(f"{path}{os.sep}")
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        return f"{_MANIFEST} cannot be read: {error}"
    return None


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _text_file(path: Path, text: str) -> ShareFile:
    return ShareFile(path, lambda place: place.write_text(text, encoding="utf-8"))


def _encode(state: CheckpointState) -> str:
    return json.dumps(dataclasses.asdict(state))


def _decode(text: str) -> CheckpointState:
    fields = json.loads(text)
    measured, pending = (
        tuple(StepMetrics(entry["step"], entry["values"]) for entry in fields.pop(name))
        for name in ("measured", "pending")
    )
    learned = {name: (total, places) for name, (total, places) in fields.pop("learned", {}).items()}
    return CheckpointState(**fields, measured=measured, pending=pending, learned=learned)
