"""Whose caches lie below a cache root, and with which tokenizer each is read: those of a config, and of runs.

A cache holds token ids and no tokenizer. Whoever asked has one: the teachers of a config, and of every run below its
run root, whose directory keeps the config with every path as it was found. What none of them asked is named, not read.

The teacher of a task may be a model that was tuned first. Which tuning a run made depends on rows that may have been
deleted meanwhile, so every tuning of that model is searched: manifests name the model, and all have its tokenizer.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.roots import list_teachers, open_storage
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import listed
from configs import CacheError, DistillConfig, DistillError, Experiment, load_experiment, load_task_file
from configs.places import RESOLVED, absolute_root
from configs.task_experiment import TaskDistillConfig
from orchestration.inputs.generative_teachers import door_of_writer, open_generative_teacher
from orchestration.inputs.models import is_at_hand
from orchestration.inputs.real_paths import resolve_paths, resolve_task_paths
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.teachers import open_teachers


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A cache below the same root that was not searched, the models that its manifests name, and why."""

    identity: str
    models: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class AskedCaches:
    """The caches below a root that can be read, each with its tokenizer, those of the config first; and the others.

    `task_runs` are the run directories of tasks that asked each of them; for language models views say it.
    """

    tokenizers: Mapping[str, PreTrainedTokenizerBase]
    unsearched: tuple[Unsearched, ...]
    task_runs: Mapping[str, frozenset[Path]]


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked in an experiment: the teacher's identity and tokenizer, and what its relatives are called.

    `relatives` are the models that manifests name of caches whose token ids are read with the same tokenizer.
    """

    identity: str
    tokenizer: PreTrainedTokenizerBase
    relatives: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Cache:
    """(model, tokenizer) of every manifest of a cache, or why they cannot be read."""

    provenances: frozenset[tuple[str, str]]
    reason: str | None = None

    @property
    def models(self) -> tuple[str, ...]:
        """Whose rows it holds, by the names that manifests have for them."""
        return tuple(sorted({model for model, _ in self.provenances}))

    def is_of_relative(self, asked: _Asked) -> bool:
        """Whether all its rows are of relatives, in the same tokenizer."""
        tokenizers = {name for _, name in self.provenances}
        return set(self.models) <= asked.relatives and tokenizers == {type(asked.tokenizer).__name__}


def find_caches(config: Experiment, *, config_dir: Path, runs: bool) -> AskedCaches:
    """Every cache below the cache root of `config`, by what its teachers say, and with `runs` those below its run root.

    Raises:
        DistillError: a teacher of the config cannot be opened, or the cache root not be read.
    """
    caches = _caches(config.runtime.cache_root)
    tokenizers, task_runs = dict[str, PreTrainedTokenizerBase](), defaultdict[str, set[Path]](set)
    first, *others = _every_asked(config, config_dir)
    _take([first, *(each for each in others if each.identity in caches)], caches, tokenizers)
    for theirs, directories in _configs_of_runs(config) if runs else ():
        try:
            asked = _every_asked(theirs, directories[0])
        except DistillError:
            continue  # what it asked is named as not searched, unless another one says how to read it
        found = _take([each for each in asked if each.identity in caches], caches, tokenizers)
        if isinstance(theirs, TaskDistillConfig):
            for identity in found:
                task_runs[identity].update(directories)
    missed = [(identity, each) for identity, each in caches.items() if identity not in tokenizers]
    return AskedCaches(
        tokenizers,
        tuple(
            Unsearched(identity, each.models, each.reason or "not of this config: name a config of its own")
            for identity, each in missed
            if each.provenances or each.reason
        ),
        {identity: frozenset(found) for identity, found in task_runs.items()},
    )


def _take(
    asked: Sequence[_Asked], caches: Mapping[str, _Cache], tokenizers: dict[str, PreTrainedTokenizerBase]
) -> list[str]:
    """Learn how the caches of these teachers and of their relatives are read; which caches that are."""
    found = []
    for each in asked:
        also = [identity for identity, held in caches.items() if held.provenances and held.is_of_relative(each)]
        found += [each.identity, *also]
        for identity in (each.identity, *also):
            tokenizers.setdefault(identity, each.tokenizer)
    return found


def _caches(root: Path | str) -> dict[str, _Cache]:
    try:
        identities = list_teachers(root)
    except OSError as error:
        raise CacheError(f"{root}: cannot be read ({error.strerror or error}): check runtime.cache_root") from error
    return {identity: _cache(root, identity) for identity in identities}


def _cache(root: Path | str, identity: str) -> _Cache:
    storage, found = open_storage(root, identity, create=False), set[tuple[str, str]]()
    try:
        with place_errors(storage):
            for uuid in listed(storage, "manifests"):
                with suppress(DamagedObject, FileNotFoundError):
                    provenance = read_manifest(storage, uuid, identity=identity).provenance
                    found.add((provenance.get("model", "?"), provenance.get("tokenizer", "?")))
    except CacheError as error:
        return _Cache(frozenset(), str(error))
    return _Cache(frozenset(found))


def _configs_of_runs(config: Experiment) -> Iterator[tuple[Experiment, list[Path]]]:
    """The configs of the runs below the run root that share the cache root, one for all runs that ask the same."""
    root, found = absolute_root(config.runtime.cache_root), dict[str, tuple[Experiment, list[Path]]]()
    for path in sorted(config.runtime.run_root.glob(f"*/{RESOLVED}")):
        try:
            theirs = load_experiment(path)
        except DistillError:
            continue  # of another version
        if absolute_root(theirs.runtime.cache_root) == root and _opens_alone(theirs):
            asked = theirs.model_dump_json(include={"teacher", "teachers", "task"}) + "".join(sorted(theirs.students))
            found.setdefault(asked, (theirs, []))[1].append(path.parent)
    yield from found.values()


def _opens_alone(config: Experiment) -> bool:
    """Whether its teachers can be opened without the network.

    A door or a server elsewhere would be asked who it is, and a model that is gone from this machine fetched again:
    that is done where its config is named.
    """
    teachers = config.every_teacher.values()
    if isinstance(config, TaskDistillConfig):
        asks_door = config.teacher.in_words_elsewhere
    else:
        asks_door = any(teacher.elsewhere is not None for teacher in config.every_teacher.values())
    return not asks_door and all(is_at_hand(teacher.model) for teacher in teachers)


def _every_asked(config: Experiment, config_dir: Path) -> list[_Asked]:
    """All teachers, the first one first."""
    if isinstance(config, TaskDistillConfig):
        return [_of_task(config.of_teacher(name), config_dir) for name in config.every_teacher]
    return _of_language_models(config, config_dir)


def _of_language_models(config: DistillConfig, config_dir: Path) -> list[_Asked]:
    """An assistant is a student of the config, which has the tokenizer of its teacher."""
    return [
        _Asked(teacher.identity.digest(), teacher.files.tokenizer, frozenset(config.students))
        for teacher in open_teachers(resolve_paths(config, config_dir=config_dir)).values()
    ]


def _of_task(config: TaskDistillConfig, config_dir: Path) -> _Asked:
    config = resolve_task_paths(config, config_dir=config_dir)
    task = load_task_file(config.task)
    if config.teacher.answers != "head":
        writer = open_generative_teacher(config, task, door=door_of_writer(config))
        return _Asked(writer.identity.digest(), writer.files.tokenizer, frozenset())
    teacher = open_task_teacher(config, task)
    tuned = frozenset({teacher.label}) if config.teacher.prepare else frozenset[str]()
    return _Asked(teacher.identity.digest(), teacher.tokenizer, tuned)
