"""Tasks from their files: a YAML file and the rows that it names become examples, and what there is to know of them.

A row that cannot be used is set aside with its reason; a file that cannot be used is an error. Data files are looked
up beside the task's own file first. The digest of a task is over its settings and the rows that were used: a changed
row makes another task, and a file that was moved the same one.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

from configs import ConfigError, DataError, load_task_file, resolve_data_path
from configs.schema import SplitConfig
from configs.task import TaskConfig, TaskKind
from configs.teacher_context import TeacherContext
from configs.visible_text import REASON_CHARACTERS, visible
from evaluation.results import TaskExample, TaskFacts
from evaluation.tasks.contamination import duplicates
from evaluation.tasks.examples import Example, Examples, read_examples
from evaluation.tasks.few_shot import WorkedExamples
from evaluation.tasks.measuring import baseline
from orchestration.inputs.rows import Row, split_rows
from orchestration.outputs.fields import to_fields

SPLITS = ("train", "dev", "test")
LATER_KEYS = ("label_is_index",)


@dataclass(frozen=True, slots=True)
class LoadedTask:
    """A task with its examples. `shots` are the worked ones that stand before every question.

    `context` is what its teacher sees beside an example (`orchestration.inputs.task_context`); None of a task alone.
    """

    config: TaskConfig
    shots: WorkedExamples
    train: tuple[Example, ...]
    dev: tuple[Example, ...]
    test: tuple[Example, ...]
    facts: TaskFacts
    context: TeacherContext | None = None


def load_tasks(paths: Sequence[Path], *, config_dir: Path) -> tuple[LoadedTask, ...]:
    """The tasks that an experiment names; paths are looked up from `config_dir` first.

    Raises:
        ConfigError: there is no such file, it is not a task, or two tasks have one name.
        DataError: the rows of one cannot be used.
    """
    tasks = []
    for number, path in enumerate(paths):
        try:
            tasks.append(load_task(resolve_data_path(path, config_dir=config_dir)))
        except ConfigError as error:
            raise ConfigError(f"evaluation.tasks.{number}: {error}") from error
    twice = [name for name, count in Counter(task.config.name for task in tasks).items() if count > 1]
    if twice:
        raise ConfigError(f"evaluation.tasks: two tasks have the name {twice[0]}: give each its own")
    return tuple(tasks)


def load_task(path: Path) -> LoadedTask:
    """A task and its rows.

    Raises:
        ConfigError: the file is not a task, or a file that it names is not there.
        DataError: a split cannot be read, or has no row that can be used.
    """
    config = load_task_file(path)
    try:
        splits = {split: _examples(config, split, folder=path.parent) for split in SPLITS}
        shots = WorkedExamples(config, splits["train"].usable)
    except (ConfigError, DataError) as error:
        raise type(error)(f"{path}: {error}") from error
    examples = {split: found.usable for split, found in splits.items()}
    set_aside = [f"{split} {line}" for split, found in splits.items() for line in found.set_aside]
    facts = _facts(config, examples, set_aside)
    return LoadedTask(config, shots, examples["train"], examples["dev"], examples["test"], facts)


def with_splits(task: LoadedTask, splits: Mapping[str, tuple[Example, ...]], *, set_aside: Sequence[str]) -> LoadedTask:
    """The task with fewer examples in its splits, and facts about those; `set_aside` has a line for each that is gone.

    Its worked examples stay: whoever was shown one that is gone was asked nothing else.
    """
    plain = {split: tuple(map(_plain, examples)) for split, examples in splits.items()}
    facts = _facts(task.config, plain, (*task.facts.set_aside, *set_aside))
    return replace(task, train=splits["train"], dev=splits["dev"], test=splits["test"], facts=facts)


def _plain(example: Example) -> Example:
    """An example without what stands around it, which no digest of a task is over."""
    return Example(**{each.name: getattr(example, each.name) for each in fields(Example)})


def task_rows(source: SplitConfig, *, split: str, folder: Path) -> Iterator[tuple[int, Row | str]]:
    """The numbered rows of a split of a task whose file lies in `folder`, as `split_rows` gives them.

    Raises:
        ConfigError: there is no such file.
        DataError: it cannot be read.
    """
    if source.path is not None:
        source = source.model_copy(update={"path": resolve_data_path(source.path, config_dir=folder)})
    return split_rows(source, split=split)


def _examples(config: TaskConfig, split: str, *, folder: Path) -> Examples:
    """The examples of a split; none where the task does not have it."""
    source: SplitConfig | None = getattr(config.data, split)
    if source is None:
        return Examples((), ())
    found = read_examples(config, task_rows(source, split=split, folder=folder), worked=split == "train")
    if not found.usable:
        raise DataError(f"data.{split}: there are no rows in it: add some or name another")
    return replace(found, set_aside=tuple(visible(line, at_most=REASON_CHARACTERS) for line in found.set_aside))


def _facts(config: TaskConfig, splits: Mapping[str, tuple[Example, ...]], set_aside: Sequence[str]) -> TaskFacts:
    labels = tuple(config.verbalisers)
    test, known = ({each.row: each.text for each in splits[split]} for split in ("test", "train"))
    copies = duplicates(test, known, threshold=config.near_duplicate)
    train = [example.gold for example in splits["train"]]
    constant = baseline(
        config.kind, config.judged_by, list(map(_unanswered, splits["test"])), train_gold=train, labels=labels
    )
    return TaskFacts(
        name=config.name,
        digest=_digest(config, splits),
        kind=config.kind,
        labels=labels,
        metric=config.judged_by,
        few_shot=config.few_shot,
        train_rows=len(splits["train"]),
        dev_rows=len(splits["dev"]),
        test_rows=len(splits["test"]),
        baseline=constant,
        exact_copies=len(copies.exact),
        near_copies=len(copies.near),
        near_duplicate=config.near_duplicate,
        set_aside=tuple(set_aside),
        train_label_counts=_label_counts(config.kind, train) if labels else {},
        licence=config.licence,
    )


def _label_counts(kind: TaskKind, gold: Sequence[tuple[str, ...]]) -> Counter[str]:
    """How often each label stands in gold answers; of an entity ("7 8 LOC") its type."""
    said = (answer for answers in gold for answer in answers)
    return Counter(answer.rpartition(" ")[2] if kind == "tagging" else answer for answer in said)


def _digest(config: TaskConfig, splits: Mapping[str, tuple[Example, ...]]) -> str:
    """SHA-256 (hex) over the settings of a task, but not where its rows lie, and over the rows themselves."""
    task = config.model_dump(mode="json", exclude={"data"})
    for key in LATER_KEYS:
        # A task that does not set them keeps the digest that it had before there were any.
        if task[key] is None:
            del task[key]
    said = {"task": task, "rows": to_fields(splits)}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def _unanswered(example: Example) -> TaskExample:
    return TaskExample(example.row, 0, example.question, example.gold, "", None, math.nan, 0)
