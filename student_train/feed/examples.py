"""The examples that a task student learns from, as it reads them: tokens, units, gold labels, the teacher's logits.

Made once by whoever knows both tokenizers, and read by every process of a worker group. An example has units: the text
itself (classification), its words (tagging), the tokens of its passage (extractive question answering). A *decision* is
what has one right choice: the class of a text, the tag of a word, and of a passage which unit is the first and which
the last of the answer. What the teacher believes was taken from the cache by units, so that student and teacher may cut
words differently.

Shapes: E examples, T tokens, U units, D decisions (E, sum of U, or 2 E), C labels (2 for spans: first, last), S states
of an example, H their width.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Int64
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from cache.batches import Rows
from cache.canonical import canonical
from cache.disk.durable import replace_file
from configs.errors import DataError
from configs.task import TaskKind
from configs.task_features import StateName
from student_train.feed.turns import Turns

FORMAT = "stillroom/examples/1"

UNKNOWN = -1
"""A gold label that nobody gave."""

_ARRAYS = {
    "token_ids": "<i4",
    "token_offsets": "<i8",
    "split": "<i4",
    "unit_offsets": "<i8",
    "unit_tokens": "<i4",
    "gold": "<i4",
    "teacher": "<f4",
    "states": "<f4",
    "turns": "<i4",
}


@dataclass(frozen=True, slots=True, eq=False)
class ExampleSet:
    """Examples of one task for students of one tokenizer.

    Example e has the tokens `token_ids[token_offsets[e] : token_offsets[e + 1]]`, the second text of a pair beginning
    at `split[e]` (T for one text), and the units `unit_offsets[e]` to `unit_offsets[e + 1]`; `unit_tokens` is the
    token, counted from the first of its example, that speaks for a unit (0 in classification, where the model pools).
    `gold` has one entry a decision: a label, or the unit of an example that its answer begins and then ends with; -1
    where it is not known. `teacher` are the teacher's logits at every unit, None where it was not asked. `states` are
    its hidden states of every example, by their `state_names`; None where there are none. Where copies of texts take
    turns, epoch e reads the examples `turns[e mod V]` (`student_train.feed.turns`); None where each epoch reads all.
    """

    kind: TaskKind
    labels: tuple[str, ...]
    token_ids: Int32[np.ndarray, " sumT"]
    token_offsets: Int64[np.ndarray, " E1"]
    split: Int32[np.ndarray, " E"]
    unit_offsets: Int64[np.ndarray, " E1"]
    unit_tokens: Int32[np.ndarray, " sumU"]
    gold: Int32[np.ndarray, " D"]
    teacher: Float32[np.ndarray, "sumU C"] | None
    states: Float32[np.ndarray, "E S H"] | None = None
    state_names: tuple[StateName, ...] = ()
    turns: Int32[np.ndarray, "V R"] | None = None
    digest: str = field(init=False)

    def __post_init__(self) -> None:
        broken = self._broken()
        if broken is not None:
            raise DataError(f"examples of a {self.kind} task cannot be used: {broken}")
        parts = hashlib.sha256(canonical(FORMAT, self.kind, len(self.labels), *self.labels))
        for layer, place in self.state_names:
            parts.update(canonical(layer, place))
        for name, array in self._arrays().items():
            parts.update(canonical(name, hashlib.sha256(array.tobytes()).digest()))
        object.__setattr__(self, "digest", parts.hexdigest())

    def __len__(self) -> int:
        return len(self.split)

    @property
    def lengths(self) -> Int64[np.ndarray, " E"]:
        """T of each example."""
        return np.diff(self.token_offsets)

    @property
    def decision_offsets(self) -> Int64[np.ndarray, " E1"]:
        """Where the decisions of each example begin, and where those of the last end."""
        if self.kind == "extractive_qa":
            return 2 * np.arange(len(self) + 1, dtype=np.int64)
        return self.unit_offsets

    def of_epoch(self, epoch: int) -> Rows:
        """The examples that an epoch reads."""
        return np.arange(len(self)) if self.turns is None else Turns(self.turns).of(epoch)

    def save(self, path: Path) -> None:
        """Write the examples as safetensors; a reader sees all of it or nothing.

        Raises:
            OSError: it cannot be written.
        """
        header = {"format": FORMAT, "kind": self.kind, "labels": json.dumps(self.labels), "digest": self.digest}
        header["state_names"] = json.dumps(self.state_names)
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, save(self._arrays(), metadata=header))

    @classmethod
    def load(cls, path: Path) -> ExampleSet:
        """Read saved examples.

        Raises:
            DataError: there are none, or they are not what was saved.
        """
        try:
            with safe_open(path, framework="numpy") as stored:
                header = stored.metadata() or {}
                if header.get("format") != FORMAT:
                    raise DataError(f"{path}: not examples of this version: delete it and run again")
                arrays: dict[str, Any] = {
                    name: stored.get_tensor(name).astype(kind, copy=False)
                    for name, kind in _ARRAYS.items()
                    if name in stored.keys()  # noqa: SIM118 - it is no mapping
                }
            found = cls(
                kind=header["kind"],
                labels=tuple(json.loads(header["labels"])),
                state_names=tuple((layer, place) for layer, place in json.loads(header.get("state_names", "[]"))),
                **{"teacher": None} | arrays,
            )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError) as error:
            raise DataError(f"{path}: no examples can be read there ({error}): run the fill again") from error
        if found.digest != header["digest"]:
            raise DataError(f"{path}: the examples differ from their digest: delete it and run again")
        return found

    def _arrays(self) -> dict[str, NDArray[Any]]:
        arrays = {name: getattr(self, name) for name in _ARRAYS}
        known = {name: array for name, array in arrays.items() if array is not None}
        return {name: np.ascontiguousarray(array, dtype=_ARRAYS[name]) for name, array in known.items()}

    def _broken(self) -> str | None:
        """What no examples can be, `None` when there is nothing."""
        examples, units = len(self.split), len(self.unit_tokens)
        offsets = {"token_offsets": len(self.token_ids), "unit_offsets": units}
        for name, end in offsets.items():
            array = getattr(self, name)
            if len(array) != examples + 1 or array[0] != 0 or array[-1] != end or (np.diff(array) < 0).any():
                return f"{name} do not lead through {examples} examples to {end}"
        counts, lengths = np.diff(self.unit_offsets), np.diff(self.token_offsets)
        owners = np.repeat(np.arange(examples), counts)
        choices = counts.repeat(2) if self.kind == "extractive_qa" else np.full(units, len(self.labels))
        rules: dict[str, Any] = {
            "an example has no tokens": lengths > 0,
            "a split lies outside its tokens": (self.split > 0) & (self.split <= lengths),
            "a unit stands at no token": (self.unit_tokens >= 0) & (self.unit_tokens < lengths[owners]),
            "an example of classification has not one unit": self.kind != "classification" or bool((counts == 1).all()),
            f"{len(self.gold)} gold labels for {len(choices)} decisions": len(self.gold) == len(choices),
        }
        broken = next((rule for rule, holds in rules.items() if not np.all(holds)), None)
        if broken is not None:
            return broken
        if not ((self.gold >= UNKNOWN) & (self.gold < choices)).all():
            return "a gold label is not among the choices"
        if self.teacher is not None and self.teacher.shape != (units, len(self.labels)):
            return f"the teacher's logits {self.teacher.shape} are not {units} units of {len(self.labels)} labels"
        shape = None if self.states is None else self.states.shape[:2]
        if shape != ((examples, len(self.state_names)) if self.state_names else None):
            return f"states {shape} are not {len(self.state_names)} of each of {examples} examples"
        if self.turns is not None and not (self.turns.size and ((self.turns >= 0) & (self.turns < examples)).all()):
            return f"its turns read examples that are not among {examples}, or none"
        return None
