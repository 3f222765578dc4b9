"""Checkpoints that survive being killed at any moment.

A checkpoint is a directory `step-<n>`: DeepSpeed's shards, the best weights so far, one random state a process,
`state.json` and, written last, `manifest.json` with the size and SHA-256 of every other file. All processes write into
a staging directory; after a barrier the leader hashes and syncs it, renames it into place, reads it back and replaces
the file `LATEST`; only then are older ones removed. Reading takes the newest one of which every file still matches the
manifest, so a torn or damaged one costs only the time since the one before.

DeepSpeed's own files are pickles. They are read only after their digests matched a manifest, and only from the run
directory that this program wrote.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cache.disk.durable import remove_leftovers, replace_file
from cache.disk.failpoints import failpoint
from configs.errors import ConfigError, TrainingError
from configs.places import STAGING
from configs.regular_files import UnreadableFileError, open_regular, read_json
from student_train.files import commit_directory, new_staging, numbered
from student_train.job import StepMetrics
from student_train.training.overfit import Sums
from student_train.training.random_state import random_state, set_random_state
from student_train.worker_group import WorkerGroup

logger = logging.getLogger(__name__)

CHECKPOINT_FORMAT = 2
KEPT = 2
"""How many checkpoints stay: the newest, and one to fall back on should that be damaged later."""

CHECKPOINT_FAILPOINTS = (
    "checkpoint-after-shards",  # this process has written its share into the staging directory, others perhaps not
    "checkpoint-after-best",  # the best weights stand beside it
    "checkpoint-before-manifest",  # everything is written, nothing says so yet
    "checkpoint-before-rename",  # the manifest is there, still in the staging directory
    "checkpoint-before-latest",  # the checkpoint is in its place and counts, `LATEST` names the one before
    "checkpoint-before-drop",  # `LATEST` names it, those that it makes superfluous are still there
)
"""Where a test may kill the process, in the order they are passed."""

_MANIFEST = "manifest.json"
_STATE = "state.json"
_LATEST = "LATEST"
_STEP = "step-"
_BLOCK = 2**22


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

    def save(self, state: CheckpointState, *, write_shards: Callable[[Path], None]) -> Path:
        """Write a checkpoint; `write_shards` is called on every process with the directory to write into.

        Raises:
            TrainingError: what was written does not read back as it was; all earlier checkpoints are still there.
        """
        # The order of the commit. Killed after any line, the newest checkpoint with a manifest that matches is whole:
        # 1. all shares, then a barrier: no manifest is written while a process still writes what it would describe;
        # 2. the manifest, last of all files: without it a directory is not a checkpoint;
        # 3. sync and rename: the name appears when the bytes are on disk;
        # 4. read back: nothing older is given up for what the disk did not keep;
        # 5. LATEST, for people and scripts; reading does not need it;
        # 6. the older ones go.
        final = self._root / f"{_STEP}{state.step:09d}"
        name = self._group.from_leader(str(new_staging(final)) if self._group.leads else None)
        assert name is not None
        staging = Path(name)
        write_shards(staging)
        (staging / f"random-{self._group.rank}.json").write_text(json.dumps(random_state()), encoding="utf-8")
        self._group.barrier()
        if self._group.leads:
            (staging / _STATE).write_text(_encode(state), encoding="utf-8")
            failpoint("checkpoint-before-manifest")
            (staging / _MANIFEST).write_text(json.dumps(_describe(staging), indent=1), encoding="utf-8")
            failpoint("checkpoint-before-rename")
            commit_directory(staging, final)
            if (damage := damaged(final)) is not None:
                raise TrainingError(f"checkpoint {final} was damaged while it was written ({damage}): check the disk")
            failpoint("checkpoint-before-latest")
            replace_file(self._root / _LATEST, f"{final.name}\n".encode())
            failpoint("checkpoint-before-drop")
            self._drop_all_but(state.step)
        self._group.barrier()
        return final

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
        for name, (size, digest) in manifest["files"].items():
            if (path / name).stat().st_size != size:
                return f"{name} does not have the size that its manifest says"
            if _sha256(path / name) != digest:
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


def _describe(folder: Path) -> dict[str, object]:
    listed = {name: ((folder / name).stat().st_size, _sha256(folder / name)) for name in _files(folder)}
    return {"format": CHECKPOINT_FORMAT, "files": listed}


def _files(folder: Path) -> list[str]:
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_symlink() or not path.is_dir())


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with open_regular(path) as stream:
        # Drop the file's cached pages, so that what is read is what the disk holds.
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        # In blocks, until `read` returns nothing at the end of the file: shards are larger than memory may be.
        while block := stream.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()


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
