"""What the stages of task students learn from, as files: examples by tokenizer, by sets of data, by what they need.

A stage that needs gold alone gets examples without the teacher's logits, so that what it makes does not depend on the
teacher. Files are named by their content; a worker group reads them (`student_train.feed.examples`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import numpy as np
from jaxtyping import Float32

from configs import ConfigError, DataError
from configs.task import TaskConfig
from configs.task_data import AgreementFilter
from configs.task_features import StateName
from configs.task_stages import TaskStageConfig
from evaluation.tasks.examples import Example
from orchestration.inputs.example_sets import TaskSets
from orchestration.inputs.task_examples import Beliefs, Said, States, make_examples
from orchestration.inputs.task_mixture import Together
from orchestration.inputs.task_sets import name_anew
from orchestration.inputs.task_texts import ReadExample, decision_labels, read_with
from orchestration.inputs.wide_texts import read_wide
from student_train.feed.examples import UNKNOWN, ExampleSet
from student_train.feed.turns import Turns, take_turns

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

DEV = "dev"
"""What the file of the held-out examples is called after."""

TEST = "test"
"""What the examples that everybody is compared on are called in a plan."""


Belief = Beliefs | Said | Together | None
"""What is believed about an example: logits by units, what a teacher said, or what several believe; None where one of
them did not answer."""


class TeacherStates(Protocol):
    """Whoever knows what is inside a teacher."""

    def states(
        self, examples: Sequence[Example], names: Sequence[StateName]
    ) -> Sequence[Float32[np.ndarray, "S H"] | None]:
        """These hidden states of it about each example; None where one of them is not known."""
        ...


class StageLessons(Protocol):
    """Whoever makes what stages learn from."""

    def of(self, stage: TaskStageConfig, reader: Reader, *, states: tuple[StateName, ...] = ()) -> TaskLesson:
        """The lesson of a stage for a student that reads in this way, with these states of the teacher."""
        ...


class TeacherBeliefs(Protocol):
    """Whoever knows what a teacher believes."""

    def about(self, examples: Sequence[Example]) -> Sequence[Belief]:
        """The belief about each example, in their order."""
        ...


@dataclass(frozen=True, slots=True)
class Reader:
    """How a student reads texts: its tokenizer, a name for it that its content decides, and its longest text.

    A teacher that is prepared reads them `wide`, as it is asked about them later.
    """

    tokenizer: PreTrainedTokenizerBase
    name: str
    max_tokens: int
    wide: bool = False


@dataclass(frozen=True, slots=True)
class TaskLesson:
    """Files of examples with their digests, and what is to be said about them, a line each.

    `rows` examples are learned from; `counts` says how many each set has, before any is left out.
    """

    train: Path
    dev: Path
    train_digest: str
    dev_digest: str
    rows: int
    counts: Mapping[str, int]
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Learned:
    """What a stage learns from: sets by their names, answers of the teacher, states of it, and whether labels count.

    What several teachers believe is mixed at a `temperature`. With `turns` an epoch reads one of so many copies of each
    text that is made from another.
    """

    data: tuple[str, ...]
    answers: bool
    states: tuple[StateName, ...]
    labelled: bool
    temperature: float
    turns: int | None


class Lessons:
    """Makes the lessons of an experiment below `folder`, each once."""

    def __init__(
        self,
        sets: TaskSets,
        dev: Sequence[Example],
        *,
        task: TaskConfig,
        beliefs: TeacherBeliefs | None,
        inside: TeacherStates | None = None,
        agreement: AgreementFilter | None,
        folder: Path,
    ) -> None:
        self._sets, self._dev, self._task = sets, tuple(dev), task
        self._beliefs, self._inside, self._agreement, self._folder = beliefs, inside, agreement, folder
        self._labels = decision_labels(task)
        if agreement is not None and task.kind != "classification":
            raise ConfigError(
                f"data.agreement compares one label a text, and task {task.name} is of kind={task.kind}: remove it"
            )
        self._made: dict[tuple[str, int, bool, _Learned], TaskLesson] = {}
        self._believed: dict[str, Sequence[Belief]] = {}

    def of(self, stage: TaskStageConfig, reader: Reader, *, states: tuple[StateName, ...] = ()) -> TaskLesson:
        """The lesson of a stage for a student that reads in this way, with these states of the teacher.

        Raises:
            DataError: nothing is left to learn from, or to select by.
            ConfigError: the tokenizer cannot read these examples.
        """
        made = self._sets.copies
        live = stage.teacher == "live"
        data = tuple(name_anew(name) if live and name in made else name for name in stage.data)
        learned = _Learned(
            data,
            stage.needs_answers,
            states,
            labelled=stage.needs != "nothing",
            temperature=self._mixed_at(stage),
            turns=stage.turns if made.keys() & set(data) else None,
        )
        key = (reader.name, reader.max_tokens, reader.wide, learned)
        if key not in self._made:
            self._made[key] = self._make(learned, reader)
        return self._made[key]

    def _mixed_at(self, stage: TaskStageConfig) -> float:
        """The temperature that changes what a stage is given; the logits of one teacher are the same at any."""
        several = stage.needs_answers and any(
            isinstance(belief, Together) for name in stage.data for belief in self._about(name)
        )
        return stage.temperature if several else 1.0

    def _make(self, learned: _Learned, reader: Reader) -> TaskLesson:
        notes: list[str] = []
        names = learned.data
        title = "-".join(name.replace(" ", "-") for name in names)
        train = self._written(title, self._read_sets(learned), learned, reader, notes=notes)
        dev = self._written(DEV, (DEV,), learned, reader, notes=notes)
        counts = {name: len(self._sets.sets[name]) for name in names}
        return TaskLesson(train[0], dev[0], train[1].digest, dev[1].digest, len(train[1]), counts, tuple(notes))

    def _read_sets(self, learned: _Learned) -> tuple[str, ...]:
        """The sets of a stage, and with turns those whose texts stand for their own copies."""
        copies = [] if learned.turns is None else [self._sets.copies.get(name, ()) for name in learned.data]
        return tuple(dict.fromkeys((*learned.data, *(one.source[0] for each in copies for one in each))))

    def _examples(self, name: str) -> Sequence[Example]:
        return self._dev if name == DEV else self._sets.sets[name]

    def _about(self, name: str) -> Sequence[Belief]:
        """What the teacher believes about a set; asked once however many stages learn from it."""
        assert self._beliefs is not None, "a stage that needs a teacher has none"
        if name not in self._believed:
            self._believed[name] = self._beliefs.about(self._examples(name))
        return self._believed[name]

    def _written(
        self, name: str, sets: tuple[str, ...], learned: _Learned, reader: Reader, *, notes: list[str]
    ) -> tuple[Path, ExampleSet]:
        examples = [example for each in sets for example in self._examples(each)]
        read = self._read(examples, reader)
        beliefs = None
        if learned.answers:
            believed = [belief for each in sets for belief in self._about(each)]
            beliefs = self._by_units(believed, examples, reader, temperature=learned.temperature)
        cut = sum(one.cut for one in read)
        if cut:
            notes.append(f"{name}: {cut:,} of {len(read):,} texts are cut to {reader.max_tokens} tokens of the student")
        keep = list(range(len(read)))
        if beliefs is not None:
            # Whether a teacher agrees with gold is asked of what it believes, not of what is softened.
            plain = beliefs if learned.temperature == 1.0 else self._by_units(believed, examples, reader)
            keep = self._answered(name, read, plain, notes=notes)
        states = self._states(name, examples, learned, keep=keep, notes=notes)
        keep = [at for at in keep if states is None or states[at] is not None]
        if name == DEV and learned.labelled:
            # What is selected by needs a right answer in all that is measured.
            known = [at for at in keep if UNKNOWN not in read[at].gold]
            if len(known) < len(keep):
                lost = len(keep) - len(known)
                notes.append(f"{name}: {lost:,} examples are left out, whose right answer is cut off or not known")
            keep = known
        turns = None
        if name != DEV and learned.turns is not None:
            keep, turns = self._turns(sets, learned, keep)
        if not keep:
            raise DataError(f"{name}: no example of task {self._task.name} is left to learn from or to select by")
        made = make_examples(
            self._task.kind,
            self._labels,
            [read[at] for at in keep],
            None if beliefs is None else [belief for at in keep if (belief := beliefs[at]) is not None],
            states=None if states is None else States.of(learned.states, [states[at] for at in keep]),
        )
        if made.unseen:
            notes.append(f"{name}: {made.unseen:,} words or tokens are left out, which the teacher does not see")
        found = made.examples if turns is None else replace(made.examples, turns=turns.rows)
        path = self._folder / f"{name}-{found.digest[:16]}.safetensors"
        found.save(path)
        return path, found

    def _turns(self, sets: tuple[str, ...], learned: _Learned, keep: Sequence[int]) -> tuple[list[int], Turns]:
        """Which of the examples to keep any epoch reads, and the turns that these take.

        A copy that is not kept is stood for by the next one, and a text without any by itself.
        """
        assert learned.turns is not None
        places = [(name, example.row) for name in sets for example in self._examples(name)]
        kept = {places[at]: at for at in keep}
        found: list[list[int | None]] = []
        for name in learned.data:
            if name not in self._sets.copies:
                found += [[kept.get((name, example.row))] for example in self._examples(name)]
            for one in self._sets.copies.get(name, ()):
                copies = [None if place is None else kept.get(place) for place in one.places]
                found.append([kept.get(one.source)] if all(at is None for at in copies) else copies)
        rows = take_turns(found, views=learned.turns).rows
        used = np.unique(rows)
        return used.tolist(), Turns(np.searchsorted(used, rows).astype(np.int32))

    def _read(self, examples: Sequence[Example], reader: Reader) -> list[ReadExample]:
        read = read_wide if reader.wide else read_with
        return read(reader.tokenizer, examples, task=self._task, max_tokens=reader.max_tokens)

    def _by_units(
        self, believed: Sequence[Belief], examples: Sequence[Example], reader: Reader, *, temperature: float = 1.0
    ) -> list[Beliefs | None]:
        """The beliefs in logits; what was said becomes certainty about the units that this reader sees.

        What several believe is their mixture at a temperature.
        """
        said = {at: belief.of(examples[at]) for at, belief in enumerate(believed) if isinstance(belief, Said)}
        certain = {
            at: Beliefs.certain(one, kind=self._task.kind, labels=len(self._labels))
            for at, one in zip(said, self._read(list(said.values()), reader), strict=True)
        }
        mixed = (belief.at(temperature) if isinstance(belief, Together) else belief for belief in believed)
        return [certain[at] if isinstance(belief, Said) else belief for at, belief in enumerate(mixed)]

    def _states(
        self, name: str, examples: Sequence[Example], learned: _Learned, *, keep: Sequence[int], notes: list[str]
    ) -> Sequence[Float32[np.ndarray, "S H"] | None] | None:
        """The states of every example that the stage needs; what lacks one is said."""
        if not learned.states:
            return None
        assert self._inside is not None, "a stage with features has no teacher that shows its inside"
        found = self._inside.states(examples, learned.states)
        lost = sum(found[at] is None for at in keep)
        if lost:
            notes.append(f"{name}: {lost:,} examples are left out: the cache lacks states of the teacher")
        return found

    def _answered(
        self, name: str, read: Sequence[ReadExample], beliefs: Sequence[Beliefs | None], *, notes: list[str]
    ) -> list[int]:
        """The places of the examples that the teacher answered, and of those that it answered as gold enough says."""
        answered = [at for at in range(len(read)) if beliefs[at] is not None]
        if len(answered) < len(read):
            notes.append(f"{name}: {len(read) - len(answered):,} examples are left out: the teacher did not answer")
        if name == DEV or self._agreement is None:
            return answered
        agreed = [at for at in answered if self._agrees(read[at], beliefs[at])]
        if len(agreed) < len(answered):
            lost = len(answered) - len(agreed)
            notes.append(f"{name}: {lost:,} examples are left out: teacher and gold disagree (data.agreement)")
        return agreed

    def _agrees(self, read: ReadExample, beliefs: Beliefs | None) -> bool:
        """Whether the teacher gives gold enough, in an example where gold is known."""
        assert self._agreement is not None and beliefs is not None
        (gold,) = read.gold
        if gold < 0:
            return True
        logits = beliefs.logits[0].astype(np.float64)
        return float(np.exp(logits[gold] - np.logaddexp.reduce(logits))) >= self._agreement.min_probability
