"""The sets of examples that the stages of a task experiment learn from: gold, unlabelled, and made from others.

What is gold may be a part of the train split, drawn label by label. Texts to transfer on lose whatever label they had;
those that stand twice, that are gold already, or that stand in dev or test are left out, and counted: a student that
has seen a test text says nothing about texts that it has not seen. Texts that only a model takes for the same, since it
reads no further than they agree, go in a second step (`apart_from_held_out`).
"""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from transformers import PreTrainedTokenizerBase

from configs import ConfigError, DataError
from configs.schema import SplitConfig
from configs.task import TaskConfig
from configs.task_experiment import Augmentation, GoldConfig, TaskDataConfig, TaskTeacherConfig
from configs.task_stages import GOLD, TRANSFER
from configs.teacher_context import TeacherContext
from configs.teachers import TeacherRoute
from configs.visible_text import visible
from evaluation.tasks.contamination import same_text
from evaluation.tasks.examples import Example, read_examples, row_field
from evaluation.tasks.surroundings import Surroundings, WideExample, around_of
from evaluation.tasks.templates import UnfitRowError, row_template
from orchestration.inputs.augment import Changed, Texts
from orchestration.inputs.rows import Row
from orchestration.inputs.task_context import rows_in_context, shows_text, task_in_context
from orchestration.inputs.task_texts import decision_labels, read_with
from orchestration.inputs.tasks import LoadedTask, load_task, task_rows

Change = Callable[[Augmentation, Sequence[Row], Texts], Changed]
"""Makes rows from others as an augmentation says."""

VALUE_CHARACTERS = 40
"""Of a row's value that a message shows."""
NOTHING_ANEW: Mapping[str, int] = MappingProxyType({})

Read = Callable[[Sequence[Example]], Sequence[Hashable]]
"""Examples as a model reads them: equal where it cannot tell them apart."""


Place = tuple[str, int]
"""Of an example: the name of its set, and the number of its row there."""


@dataclass(frozen=True, slots=True)
class Copies:
    """What was made of one text: where it stands itself, and each of its copies in their order (None: an empty one)."""

    source: Place
    places: tuple[Place | None, ...]


@dataclass(frozen=True, slots=True)
class TaskSets:
    """Examples by the name of their set, and what there is to say about them, a line each.

    `routed` has the teacher of each example, those of dev and test too, where rows are routed to several.
    `copies` says of every augmented set what its texts were made of. Rows that cannot be used, or that are left out,
    are named there all the same.
    """

    sets: Mapping[str, tuple[Example, ...]]
    notes: tuple[str, ...]
    copies: Mapping[str, tuple[Copies, ...]] = field(default_factory=dict)
    routed: Mapping[Example, str] = field(default_factory=dict)

    def only(self, names: Collection[str]) -> dict[str, tuple[Example, ...]]:
        """The sets of these names, in their order here."""
        return {name: examples for name, examples in self.sets.items() if name in names}

    def of_teacher(self, name: str) -> TaskSets:
        """What is routed to a teacher; everything where nothing is routed."""
        return replace(self, sets={each: self.part_of(name, examples) for each, examples in self.sets.items()})

    def part_of(self, name: str, examples: tuple[Example, ...]) -> tuple[Example, ...]:
        """Those of some examples that are routed to a teacher; all where nothing is routed."""
        if not self.routed:
            return examples
        return tuple(example for example in examples if self.routed[example] == name)

    def of(self, names: Iterable[str]) -> tuple[Example, ...]:
        """The examples of several sets, one set after the other."""
        return tuple(example for name in names for example in self.sets[name])


@dataclass(frozen=True, slots=True)
class _Set:
    """Examples, and the rows that they were read from by their numbers."""

    examples: tuple[Example, ...]
    rows: Mapping[int, Row]


def load_learned_task(path: Path, context: TeacherContext | None = None) -> LoadedTask:
    """The task of a file, which students learn; its examples with the `context` that the teacher sees.

    Raises:
        ConfigError: it is not a task, not one for a head, without rows to learn from or to choose by, or it has worked
            examples beside those of the context.
        DataError: its rows cannot be used, lack a field of the context, or no answer of a split stands in its passage.
    """
    task = load_task(path)
    decision_labels(task.config)
    for split, rows in (("train", task.train), ("dev", task.dev)):
        if not rows:
            raise ConfigError(
                f"task {task.config.name} has no {split} rows, and students are trained and chosen by them: set "
                f"data.{split} in {path}"
            )
        if task.config.kind == "extractive_qa" and _without_span(rows) == len(rows):
            raise DataError(
                f"{path}: task {task.config.name}: no {split} row has an answer that stands in its passage, and spans "
                "are what is learned: write answers as the passage has them"
            )
    return task_in_context(task, context, folder=path.parent)


def load_task_sets(
    task: LoadedTask,
    data: TaskDataConfig,
    *,
    folder: Path,
    config_dir: Path,
    change: Change,
    route: TeacherRoute | None = None,
    anew: Mapping[str, int] = NOTHING_ANEW,
) -> TaskSets:
    """Read, draw and make the sets of an experiment.

    `folder` is that of the task's own file, `config_dir` that of the experiment, beside which unlabelled texts lie.
    Augmented sets in `anew` are made a second time, with a copy for each of so many epochs (`name_anew`).

    Raises:
        ConfigError: a file is not there, or a row says nothing by which `route` sends it to a teacher.
        DataError: one cannot be read, a set has no example, or an example of this kind cannot be changed.
    """
    if data.gold is not None and task.config.kind != "classification":
        raise DataError(
            f"data.gold.per_class={data.gold.per_class} draws by label, and task {task.config.name} is of "
            f"kind={task.config.kind}: set data.train.limit in the task"
        )
    notes: list[str] = []
    train = _train_rows(task, folder=folder)
    gold, rest = _drawn(task.train, data.gold, notes=notes)
    if task.config.kind == "classification":
        seen = {example.gold[0] for example in gold if example.gold}
        never = [label for label in task.config.verbalisers if label not in seen]
        if never:
            notes.append(f"train has no example of {', '.join(never)}: gold labels alone cannot teach it")
    lost = _without_span(gold) if task.config.kind == "extractive_qa" else 0
    if lost:
        notes.append(f"train: {lost:,} of {len(gold):,} answers do not stand in their passage: no span is learned")
    sets = {GOLD: _Set(gold, train)}
    if data.has_transfer:
        around = around_of if shows_text(task.context) else lambda _: None
        drawn = rest if data.gold and data.gold.rest == "transfer" else ()
        left = ((train[example.row], around(example)) for example in drawn)
        names = {f"transfer.{at}": source for at, source in enumerate(data.transfer)}
        files = (
            rows_in_context(task_rows(source, split=name, folder=config_dir), task=task, name=name)
            for name, source in names.items()
        )
        known = (*gold, *task.dev, *task.test)
        sets[TRANSFER] = _transferred(chain(left, *files), task=task.config, known=known, notes=notes)
    copies: dict[str, tuple[Copies, ...]] = {}
    again = {name_anew(name): _of_epochs(data.augment[name], epochs) for name, epochs in anew.items()}
    for name, made in {**data.augment, **again}.items():
        sources = [(each, example.row) for each in made.of for example in sets[each].examples]
        rows = [sets[each].rows[number] for each, number in sources]
        changed = change(made, rows, _texts(task.config))
        sets[name] = _augmented(name, made, changed, of=len(rows), task=task.config, notes=notes)
        places: list[Place] = [*sources, *((name, number) for number in range(len(changed.rows)))]
        copies[name] = tuple(
            Copies(source, tuple(None if at is None else places[at] for at in found))
            for source, found in zip(sources, changed.copies, strict=True)
        )
        if shows_text(task.context):
            sets[name] = _as_wide_as_sources(sets[name], copies[name], of=sets, name=name)
    routed = {}
    if route is not None:
        held_out = {"dev": _held_out(task, "dev", folder=folder), "test": _held_out(task, "test", folder=folder)}
        routed = _routed(sets | held_out, route)
    return TaskSets({name: found.examples for name, found in sets.items()}, tuple(notes), copies, routed)


def name_anew(name: str) -> str:
    """What an augmented set is called whose texts are drawn anew for every epoch; no set of a file has such a name."""
    return f"{name} (anew)"


def _of_epochs(made: Augmentation, epochs: int) -> Augmentation:
    return made.model_copy(update={"copies": epochs})


def _held_out(task: LoadedTask, split: Literal["dev", "test"], *, folder: Path) -> _Set:
    """The examples of a split with the rows that they were read from."""
    source: SplitConfig | None = getattr(task.config.data, split)
    rows = () if source is None else task_rows(source, split=split, folder=folder)
    return _Set(getattr(task, split), {number: row for number, row in rows if not isinstance(row, str)})


def _routed(sets: Mapping[str, _Set], route: TeacherRoute) -> dict[Example, str]:
    """The teacher of every example; one that stands in two sets has that of the first.

    Raises:
        ConfigError: a row lacks the field, or has a value that is not routed.
    """
    found: dict[Example, str] = {}
    for name, held in sets.items():
        for example in held.examples:
            try:
                value = str(row_field(held.rows[example.row], route.field))
            except UnfitRowError as error:
                raise ConfigError(
                    f"combine.field={route.field}: row {example.row} of {name} has none ({error}): give every row one, "
                    "or combine by kind: mixture"
                ) from error
            if value not in route.to:
                raise ConfigError(
                    f"combine.to has no teacher for {route.field}={visible(value, at_most=VALUE_CHARACTERS)!r}, which "
                    f"row {example.row} of {name} has; it knows {', '.join(route.to)}: add it"
                )
            found.setdefault(example, route.to[value])
    return found


def _without_span(examples: Sequence[Example]) -> int:
    """How many examples of a task with spans have no answer that stands in the passage."""
    return sum(not any(answer and answer in example.context for answer in example.gold) for example in examples)


def apart_from_held_out(sets: TaskSets, task: LoadedTask, *, read: Read) -> TaskSets:
    """The sets without texts that a model reads as it reads one of dev, or, where they are not gold, one of test.

    Gold examples that stand in test too are counted with the task: published results have learned from them.

    Raises:
        DataError: nothing is left of a set.
    """
    dev = set(read(task.dev))
    held_out = dev | set(read(task.test))
    kept, notes = {}, list(sets.notes)
    for name, examples in sets.sets.items():
        unseen = dev if name == GOLD else held_out
        apart = [one not in unseen for one in read(examples)]
        kept[name] = tuple(example for example, is_apart in zip(examples, apart, strict=True) if is_apart)
        if not kept[name]:
            raise DataError(f"{name}: every text is read as one of dev or test is: name others, or raise max_tokens")
        if not all(apart):
            notes.append(f"{name}: {apart.count(False)} texts left out that are read as others of dev or test are")
    return replace(sets, sets=kept, notes=tuple(notes))


def as_read_by(teacher: TaskTeacherConfig, tokenizer: PreTrainedTokenizerBase, *, task: TaskConfig) -> Read:
    """How a teacher with this tokenizer reads examples: one with a head no further than `max_tokens`, others whole."""

    def read(examples: Sequence[Example]) -> Sequence[Hashable]:
        if teacher.answers != "head":
            return [example.question for example in examples]
        found = read_with(tokenizer, examples, task=task, max_tokens=teacher.max_tokens)
        return [(one.token_ids, one.split) for one in found]

    return read


def _train_rows(task: LoadedTask, *, folder: Path) -> dict[int, Row]:
    source = task.config.data.train
    if source is None:
        return {}
    rows = task_rows(source, split=GOLD, folder=folder)
    return {number: row for number, row in rows if not isinstance(row, str)}


def _drawn(
    train: Sequence[Example], wanted: GoldConfig | None, *, notes: list[str]
) -> tuple[tuple[Example, ...], tuple[Example, ...]]:
    """The examples that are taken as gold, in their order, and the others.

    Drawn by what they say and not by their order: a file that was shuffled gives the same ones.
    """
    if wanted is None:
        return tuple(train), ()
    by_label: dict[tuple[str, ...], list[Example]] = defaultdict(list)
    for example in train:
        by_label[example.gold].append(example)
    chosen: set[int] = set()
    for label, examples in by_label.items():
        ranked = sorted(examples, key=lambda example: (_lot(example.text, seed=wanted.seed), example.row))
        chosen |= {example.row for example in ranked[: wanted.per_class]}
        if len(examples) < wanted.per_class:
            notes.append(
                f"data.gold.per_class={wanted.per_class}: train has {len(examples)} examples of {', '.join(label)}"
            )
    kept = tuple(example for example in train if example.row in chosen)
    return kept, tuple(example for example in train if example.row not in chosen)


def _transferred(
    rows: Iterable[tuple[Row | str, Surroundings | None]],
    *,
    task: TaskConfig,
    known: Sequence[Example],
    notes: list[str],
) -> _Set:
    """The unlabelled examples among these rows, each text once, with what stands around its row."""
    given = list(rows)
    numbered = list(enumerate(row for row, _ in given))
    try:
        read = read_examples(task, numbered, labelled=False)
    except DataError as error:
        raise DataError(f"data.transfer: {error}") from error
    seen = {same_text(example.text) for example in known}
    examples, left_out = [], 0
    for example in read.usable:
        key = same_text(example.text)
        left_out += key in seen
        if key not in seen:
            around = given[example.row][1]
            examples.append(example if around is None else WideExample.of(example, around))
        seen.add(key)
    if read.set_aside:
        notes.append(f"transfer: {len(read.set_aside)} rows set aside; the first: {read.set_aside[0]}")
    if left_out:
        notes.append(f"transfer: {left_out} texts left out that stand there twice, or among gold, dev or test examples")
    if not examples:
        raise DataError("data.transfer: no text is left that is not in the task already: name further ones")
    return _Set(tuple(examples), {number: row for number, row in numbered if not isinstance(row, str)})


def _augmented(name: str, made: Augmentation, changed: Changed, *, of: int, task: TaskConfig, notes: list[str]) -> _Set:
    """Examples of changed rows; gold where those `of` rows are and a changed text keeps its label."""
    numbered = list(enumerate(changed.rows))
    read = read_examples(task, numbered, labelled=made.keeps_label and tuple(made.of) == (GOLD,))
    dropped = changed.twice + changed.empty + len(read.set_aside)
    notes.append(f"{name}: {len(read.usable):,} texts made of {of:,}, {dropped:,} dropped as copies or as empty")
    if not read.usable:
        raise DataError(f"data.augment.{name} makes no text that is not there already: change its settings")
    return _Set(read.usable, dict(numbered))


def _as_wide_as_sources(made: _Set, copies: Sequence[Copies], *, of: Mapping[str, _Set], name: str) -> _Set:
    """Changed texts with what stands around those that they were made of."""
    known = {(each, example.row): around_of(example) for each, held in of.items() for example in held.examples}
    around: dict[Place, Surroundings] = {}
    for one in copies:
        for place in one.places:
            if place is not None:
                around.setdefault(place, known[one.source])
    return _Set(tuple(WideExample.of(each, around[name, each.row]) for each in made.examples), made.rows)


def _texts(task: TaskConfig) -> Texts:
    """Which fields of a row may be changed.

    Raises:
        DataError: none may be.
    """
    if task.kind == "tagging":
        return Texts((task.fields["tokens"],), tags=task.fields["tags"])
    if task.kind == "extractive_qa":
        raise DataError(
            f"data.augment: task {task.name} is of kind=extractive_qa, whose answers stand in the text that would be "
            "changed: remove data.augment"
        )
    read = row_template(task.template, task=task.name, key="template").reads
    return Texts(tuple(name for name in read if name not in ("labels", "row", task.fields.get("label"))))


def _lot(text: str, *, seed: int) -> bytes:
    return hashlib.sha256(json.dumps([seed, text]).encode()).digest()
