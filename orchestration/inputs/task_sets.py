"""The sets of examples that the stages of a task experiment learn from: gold, unlabelled, and made from others.

What is gold may be a part of the train split, drawn label by label. Texts to transfer on lose whatever label they had;
those that stand twice, that are gold already, or that stand in dev or test are left out, and counted: a student that
has seen a test text says nothing about texts that it has not seen. Texts that only a model takes for the same, since it
reads no further than they agree, go in a second step (`apart_from_held_out`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from types import MappingProxyType
from typing import Literal

from configs import ConfigError, DataError
from configs.schema import SplitConfig
from configs.task import TaskConfig
from configs.task_data import Augmentation, TaskDataConfig
from configs.task_stages import GOLD, TRANSFER
from configs.teacher_context import TeacherContext
from configs.teachers import TeacherRoute
from evaluation.tasks.contamination import same_text
from evaluation.tasks.examples import Example, read_examples
from evaluation.tasks.surroundings import Surroundings, WideExample, around_of
from evaluation.tasks.templates import row_template
from orchestration.inputs.augment import Changed, Texts
from orchestration.inputs.drawn_gold import drawn_gold
from orchestration.inputs.example_sets import Copies, Place, RowSet, TaskSets
from orchestration.inputs.routed_examples import routed_examples
from orchestration.inputs.rows import Row
from orchestration.inputs.task_context import rows_in_context, shows_text, task_in_context
from orchestration.inputs.task_texts import decision_labels
from orchestration.inputs.tasks import LoadedTask, load_task, task_rows

Change = Callable[[Augmentation, Sequence[Row], Texts], Changed]
"""Makes rows from others as an augmentation says."""

NOTHING_ANEW: Mapping[str, int] = MappingProxyType({})


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
    gold, rest = drawn_gold(task.train, data.gold, notes=notes)
    notes += _about_gold(gold, task.config)
    sets = {GOLD: RowSet(gold, train)}
    if data.has_transfer:
        sets[TRANSFER] = _transfer_set(task, data, rest=rest, sets=sets, config_dir=config_dir, notes=notes)
    copies: dict[str, tuple[Copies, ...]] = {}
    again = {name_anew(name): _of_epochs(data.augment[name], epochs) for name, epochs in anew.items()}
    for name, made in {**data.augment, **again}.items():
        sets[name], copies[name] = _made_set(name, made, task=task, of=sets, change=change, notes=notes)
    routed = {}
    if route is not None:
        held_out = {"dev": _held_out(task, "dev", folder=folder), "test": _held_out(task, "test", folder=folder)}
        routed = routed_examples(sets | held_out, route)
    return TaskSets({name: found.examples for name, found in sets.items()}, tuple(notes), copies, routed)


def _about_gold(gold: Sequence[Example], task: TaskConfig) -> Iterator[str]:
    """What gold labels alone cannot teach."""
    if task.kind == "classification":
        seen = {example.gold[0] for example in gold if example.gold}
        never = [label for label in task.verbalisers if label not in seen]
        if never:
            yield f"train has no example of {', '.join(never)}: gold labels alone cannot teach it"
    lost = _without_span(gold) if task.kind == "extractive_qa" else 0
    if lost:
        yield f"train: {lost:,} of {len(gold):,} answers do not stand in their passage: no span is learned"


def _transfer_set(
    task: LoadedTask,
    data: TaskDataConfig,
    *,
    rest: Sequence[Example],
    sets: Mapping[str, RowSet],
    config_dir: Path,
    notes: list[str],
) -> RowSet:
    """Texts without labels: the `rest` of train, where it goes there, and rows of the files that are named."""
    gold = sets[GOLD]
    around = around_of if shows_text(task.context) else lambda _: None
    drawn = rest if data.gold and data.gold.rest == "transfer" else ()
    left = ((gold.rows[example.row], around(example)) for example in drawn)
    names = {f"transfer.{at}": source for at, source in enumerate(data.transfer)}
    files = (
        rows_in_context(task_rows(source, split=name, folder=config_dir), task=task, name=name)
        for name, source in names.items()
    )
    known = (*gold.examples, *task.dev, *task.test)
    return _transferred(chain(left, *files), task=task.config, known=known, notes=notes)


def _made_set(
    name: str,
    made: Augmentation,
    *,
    task: LoadedTask,
    of: Mapping[str, RowSet],
    change: Change,
    notes: list[str],
) -> tuple[RowSet, tuple[Copies, ...]]:
    """What an augmentation makes of the sets that it names, and which text became which."""
    sources = [(each, example.row) for each in made.of for example in of[each].examples]
    rows = [of[each].rows[number] for each, number in sources]
    changed = change(made, rows, _texts(task.config))
    found = _augmented(name, made, changed, of=len(rows), task=task.config, notes=notes)
    places: list[Place] = [*sources, *((name, number) for number in range(len(changed.rows)))]
    copies = tuple(
        Copies(source, tuple(None if at is None else places[at] for at in each))
        for source, each in zip(sources, changed.copies, strict=True)
    )
    if shows_text(task.context):
        found = _as_wide_as_sources(found, copies, of={**of, name: found}, name=name)
    return found, copies


def name_anew(name: str) -> str:
    """What an augmented set is called whose texts are drawn anew for every epoch; no set of a file has such a name."""
    return f"{name} (anew)"


def _of_epochs(made: Augmentation, epochs: int) -> Augmentation:
    return made.model_copy(update={"copies": epochs})


def _held_out(task: LoadedTask, split: Literal["dev", "test"], *, folder: Path) -> RowSet:
    """The examples of a split with the rows that they were read from."""
    source: SplitConfig | None = getattr(task.config.data, split)
    rows = () if source is None else task_rows(source, split=split, folder=folder)
    return RowSet(getattr(task, split), {number: row for number, row in rows if not isinstance(row, str)})


def _without_span(examples: Sequence[Example]) -> int:
    """How many examples of a task with spans have no answer that stands in the passage."""
    return sum(not any(answer and answer in example.context for answer in example.gold) for example in examples)


def _train_rows(task: LoadedTask, *, folder: Path) -> dict[int, Row]:
    source = task.config.data.train
    if source is None:
        return {}
    rows = task_rows(source, split=GOLD, folder=folder)
    return {number: row for number, row in rows if not isinstance(row, str)}


def _transferred(
    rows: Iterable[tuple[Row | str, Surroundings | None]],
    *,
    task: TaskConfig,
    known: Sequence[Example],
    notes: list[str],
) -> RowSet:
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
    return RowSet(tuple(examples), {number: row for number, row in numbered if not isinstance(row, str)})


def _augmented(
    name: str, made: Augmentation, changed: Changed, *, of: int, task: TaskConfig, notes: list[str]
) -> RowSet:
    """Examples of changed rows; gold where those `of` rows are and a changed text keeps its label."""
    numbered = list(enumerate(changed.rows))
    read = read_examples(task, numbered, labelled=made.keeps_label and tuple(made.of) == (GOLD,))
    dropped = changed.twice + changed.empty + len(read.set_aside)
    notes.append(f"{name}: {len(read.usable):,} texts made of {of:,}, {dropped:,} dropped as copies or as empty")
    if not read.usable:
        raise DataError(f"data.augment.{name} makes no text that is not there already: change its settings")
    return RowSet(read.usable, dict(numbered))


def _as_wide_as_sources(made: RowSet, copies: Sequence[Copies], *, of: Mapping[str, RowSet], name: str) -> RowSet:
    """Changed texts with what stands around those that they were made of."""
    known = {(each, example.row): around_of(example) for each, held in of.items() for example in held.examples}
    around: dict[Place, Surroundings] = {}
    for one in copies:
        for place in one.places:
            if place is not None:
                around.setdefault(place, known[one.source])
    return RowSet(tuple(WideExample.of(each, around[name, each.row]) for each in made.examples), made.rows)


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
