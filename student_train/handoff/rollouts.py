"""The exchange between a student and the engines that sample from it: weights one way, rollouts the other.

Both are directories beside the checkpoints of a stage, and each appears whole or not at all:

    policies/policy-003/       a plain transformers directory: the weights after the third rollout was learned from
    policies/behaviour-003.npz what those weights gave the tokens of rollout 3, written before they change
    rollouts/rollout-003/      view.npz (a pinned view of the cache, where the teacher's scores are), rollout.npz
    rollouts/meeting-003/2-*/  where two processes of engines wait for weights that are sent and not written

The worker group writes below `policies`, its driver below `rollouts`. Each side waits until the other's directory
exists; after a kill it finds all that was committed. Version 0 is the model that the stage starts from; it needs no
directory.
"""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int64
from numpy.lib.npyio import NpzFile

from cache.arrays import stored_arrays, vector
from cache.batches import permutation
from cache.canonical import canonical
from cache.disk.durable import remove_leftovers, replace_file
from cache.views import CacheView
from configs.errors import TrainingError
from configs.places import STAGING
from configs.regular_files import UnreadableFileError
from student_train.files import numbered, staged_directory

_VIEW = "view.npz"
_SAMPLES = "rollout.npz"
_WITHDRAWN = "withdrawn"
_POLICY = "policy-"


@dataclass(frozen=True, slots=True, eq=False)
class Rollout:
    """Sequences that were sampled from one version of a student, and what was measured of them.

    R sequences are named by their row in `view`; equal ones share a row. `version` is that of the weights that wrote
    them. For each of the N response tokens of the view, row after row, `drawn_by_teacher` says whether the teacher drew
    it while the two were mixed, and `engine_logprobs` is the sampling engine's log-probability of it if the student did
    (else NaN). `behaviour_logprobs` is there only for a rollout of another training: the log-probability of every token
    under the weights that wrote it, which cannot be computed here. `metrics` have their tracking names.
    """

    number: int
    version: int
    view: CacheView
    samples: Int64[np.ndarray, " R"]
    drawn_by_teacher: Bool[np.ndarray, " N"]
    engine_logprobs: Float32[np.ndarray, " N"]
    metrics: Mapping[str, float]
    behaviour_logprobs: Float32[np.ndarray, " N"] | None = None


class RolloutExchange:
    """The two directories of one stage, seen from either side."""

    def __init__(self, work_dir: Path) -> None:
        self._policies, self._rollouts = work_dir / "policies", work_dir / "rollouts"
        self._swept = False

    @property
    def rollouts(self) -> Path:
        """Where the rollouts are."""
        return self._rollouts

    def policy(self, version: int) -> Path:
        """The directory of some weights, written or not."""
        return self._policies / f"{_POLICY}{version:03d}"

    def has_policy(self, version: int) -> bool:
        """Whether these weights can be sampled from; those that the stage starts from always can."""
        return version == 0 or self.policy(version).exists()

    def publish(self, version: int, *, write: Callable[[Path], None]) -> None:
        """Let `write` fill a directory, then publish it as the weights `version`; older ones, no longer needed, go."""
        with staged_directory(self.policy(version)) as staging:
            write(staging)
        # The previous version may be loading just now. What an earlier process left is looked for once, and not each
        # time: the directory grows with every rollout.
        older = [version - 2] if self._swept else [number for number, _ in numbered(self._policies, _POLICY)]
        for number in older:
            if number < version - 1:
                shutil.rmtree(self.policy(number), ignore_errors=True)
        self._swept = True

    def withdraw_policies(self) -> None:
        """Remove all published weights: the worker group that published them is gone."""
        for _, path in numbered(self._policies, _POLICY):
            shutil.rmtree(path)

    @contextmanager
    def meeting(self, version: int, *, receivers: int) -> Iterator[Path]:
        """A place where `receivers` processes wait for the leader to send them the weights `version`.

        The directory stays: a process that was there releases its store a moment later, when torch checks for the file
        and then opens it; if it vanished in between, the process would hang and then abort. After an error the meeting
        is marked as withdrawn, and the leader no longer comes.
        """
        place = self._meetings(version) / f"{receivers}-{uuid.uuid4().hex[:12]}"
        place.mkdir(parents=True)
        try:
            yield place
        except BaseException:
            (place / _WITHDRAWN).touch()
            raise

    def meetings(self, version: int) -> list[tuple[Path, int]]:
        """Where processes wait or waited for the weights `version`, and how many of them."""
        places = self._meetings(version).glob("*-*")
        return [(place, int(place.name.split("-")[0])) for place in places if not (place / _WITHDRAWN).exists()]

    def has_rollout(self, number: int) -> bool:
        """Whether a rollout was committed."""
        return self._rollout(number).exists()

    def commit(self, rollout: Rollout) -> None:
        """Make a rollout visible to the worker group."""
        with staged_directory(self._rollout(rollout.number)) as staging:
            rollout.view.save(staging / _VIEW)
            facts = {"version": rollout.version, "metrics": dict(rollout.metrics)}
            arrays = {
                "samples": rollout.samples,
                "drawn_by_teacher": rollout.drawn_by_teacher,
                "engine_logprobs": rollout.engine_logprobs,
                "facts": np.array(json.dumps(facts)),
            }
            if rollout.behaviour_logprobs is not None:
                arrays["behaviour_logprobs"] = rollout.behaviour_logprobs
            np.savez(staging / _SAMPLES, allow_pickle=False, **arrays)

    def rollout(self, number: int) -> Rollout:
        """Read a committed rollout.

        Raises:
            TrainingError: its file is damaged.
            CacheError: its view is.
        """
        folder = self._rollout(number)
        with _stored(folder / _SAMPLES) as stored:
            facts = json.loads(str(stored["facts"]))
            return Rollout(
                number=number,
                version=int(facts["version"]),
                view=CacheView.load(folder / _VIEW),
                samples=vector(stored, "samples", np.int64),
                drawn_by_teacher=vector(stored, "drawn_by_teacher", np.bool_),
                engine_logprobs=vector(stored, "engine_logprobs", np.float32),
                metrics=facts["metrics"],
                behaviour_logprobs=(
                    vector(stored, "behaviour_logprobs", np.float32) if "behaviour_logprobs" in stored else None
                ),
            )

    def keep_behaviour(self, number: int, logprobs: Float32[np.ndarray, " N"]) -> None:
        """Keep the log-probabilities of a rollout's tokens under the weights from before its first step."""
        self._policies.mkdir(parents=True, exist_ok=True)
        content = io.BytesIO()
        np.savez(content, logprobs=logprobs)
        replace_file(self.behaviour(number), content.getvalue())

    def behaviour(self, number: int) -> Path:
        """The file of `keep_behaviour`."""
        return self._policies / f"behaviour-{number:03d}.npz"

    def read_behaviour(self, number: int) -> Float32[np.ndarray, " N"]:
        """What `keep_behaviour` wrote.

        Raises:
            TrainingError: it is not there, or damaged.
        """
        path = self.behaviour(number)
        if not path.exists():
            raise TrainingError(f"{path} is missing: rollout {number} cannot be learned from; start the stage again")
        with _stored(path) as stored:
            logprobs: Float32[np.ndarray, " N"] = vector(stored, "logprobs", np.float32)
            return logprobs

    def digest(self, count: int) -> str:
        """SHA-256 (hex) of all that a stage learns from the first `count` rollouts."""
        parts = hashlib.sha256()
        for number in range(count):
            rollout, behaviour = self.rollout(number), self.read_behaviour(number)
            arrays = (rollout.samples, rollout.drawn_by_teacher, behaviour)
            parts.update(canonical(rollout.view.digest, *(array.tobytes() for array in arrays)))
        return parts.hexdigest()

    def clean(self, *, side: str) -> None:
        """Remove what a killed process of one side, "policies" or "rollouts", left unfinished."""
        folder = self._policies if side == "policies" else self._rollouts
        for path in [*folder.glob(f"{STAGING}*"), *folder.glob("meeting-*")]:
            shutil.rmtree(path, ignore_errors=True)
        remove_leftovers(folder, older_than_s=0.0)

    def _meetings(self, version: int) -> Path:
        # A directory a version: whoever waits looks into it again and again, however many rollouts there are by then.
        return self._rollouts / f"meeting-{version:03d}"

    def _rollout(self, number: int) -> Path:
        return self._rollouts / f"rollout-{number:03d}"


@contextmanager
def _stored(path: Path) -> Iterator[NpzFile]:
    """The arrays in a file; whatever turns out to be wrong with it becomes one line."""
    try:
        with stored_arrays(path) as stored:
            yield stored
    except (OSError, UnreadableFileError) as error:
        raise TrainingError(
            f"{path} is damaged ({error}): remove {path.parent} and what learns from it, and start the stage again; "
            "rollouts of another training must be sampled by that training again"
        ) from error


def minibatches(rollout: Rollout, *, seed: int, epoch: int, parts: int) -> Sequence[Int64[np.ndarray, " M"]]:
    """The rows of each optimiser step of one pass over a rollout: every sequence once, in an order of its own."""
    order = permutation(len(rollout.samples), name=canonical("stillroom/rollout/1", seed, rollout.number, epoch))
    return [rollout.samples[part] for part in np.array_split(order, parts)]
