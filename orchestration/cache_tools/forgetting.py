"""Erasure: remove every cached sequence that holds a text, and say where else the same text lies.

What is cached is token ids, so the teacher's own tokenizer turns them into text before they are searched. Run
directories and MLflow's files are not changed here: they are listed, and whoever asked for the erasure decides.

What a teacher could not answer is kept by hashes alone (`cache.failures`), which nobody can search: with a text all of
it is forgotten. It can also be forgotten by itself, so that it is asked again.

The teacher of a task may be a model that was tuned first. Which tuning a run made depends on rows that may have been
deleted meanwhile, so every tuning of that model is searched: manifests name the model, and all have its tokenizer.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerBase

from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.roots import list_teachers, open_storage
from cache.disk.storage import Storage
from cache.failures import count_failures, drop_failures
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import listed
from cache.upkeep.rewriting import ForgetReport, find_keys, forget
from configs import CacheError, DistillConfig, load_task_file
from configs.loading import Experiment
from configs.regular_files import UnreadableFileError, parse_json, read_regular, texts_within
from configs.task_experiment import TaskDistillConfig
from orchestration.cache_tools.text_patterns import TextPattern
from orchestration.cache_tools.token_patterns import TokenPattern
from orchestration.inputs.generative_teachers import open_generative_teacher
from orchestration.inputs.preflight import resolve_paths, resolve_task_paths
from orchestration.inputs.task_teachers import open_task_teacher
from orchestration.inputs.teachers import open_teachers

LARGEST_FILE = 2**28
"""Larger files of a run are weights."""

WEIGHTS = frozenset({".safetensors", ".pt", ".bin", ".npz"})
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "merges.txt"})
"""Every common word stands in them."""


@dataclass(frozen=True, slots=True)
class Unsearched:
    """A cache below the same root that was not searched, the models that its manifests name, and why."""

    identity: str
    models: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What holds a text: cached sequences and signals of sequences, by key, and files of runs and of MLflow.

    `searched` are the caches that were looked through: the teacher's (`identity`) first, then those of assistants, of
    the teacher once it was tuned, and of further teachers.
    With `removed` the sequences are gone, except for the views in `kept_for_views`, which runs still read. `failures`
    counts requests that could not be answered, which are forgotten with `failures_removed`; where nobody looked for a
    text (`by_text`) there is nothing else.
    """

    identity: str
    searched: tuple[str, ...]
    unsearched: tuple[Unsearched, ...]
    sequences: tuple[str, ...]
    removed: bool
    kept_for_views: tuple[str, ...]
    files: tuple[str, ...]
    reports: tuple[ForgetReport, ...]
    failures: int
    failures_removed: bool
    by_text: bool


@dataclass(frozen=True, slots=True)
class _Asked:
    """Who is asked in an experiment: the teacher's identity and tokenizer, and what its relatives are called.

    `relatives` are the models that manifests name of caches whose token ids are read with the same tokenizer.
    """

    identity: str
    tokenizer: PreTrainedTokenizerBase
    relatives: frozenset[str]


def forget_text(
    config: Experiment, *, config_dir: Path, pattern: TextPattern | None, remove: bool, break_pins: bool
) -> Forgotten:
    """Find what holds a match of `pattern` in the caches of the teachers of `config`, and of those that go with them.

    These are assistants, or what the teacher of a task was tuned to. With `remove` what is found is removed, and with
    it what could not be answered there; without a pattern this alone.
    Rollouts lie in the cache of whoever scored them and are searched with it.

    Raises:
        DistillError: the teacher cannot be opened, or a cache not be read or changed.
    """
    root, every = config.runtime.cache_root, _every_asked(config, config_dir)
    searched, unsearched = dict[str, TokenPattern | None](), dict[str, Unsearched]()
    for asked in every:
        also, others = _others(root, asked)
        matching = None if pattern is None else TokenPattern.of(pattern, asked.tokenizer)
        searched |= dict.fromkeys((asked.identity, *also), matching)
        unsearched |= {other.identity: other for other in others}
    sequences, reports, failures = list[bytes](), list[ForgetReport](), 0
    for identity, matches in searched.items():
        storage = open_storage(root, identity, create=False)
        failures += _failures(storage, identity, remove=remove)
        if matches is None:
            continue
        keys = find_keys(storage, identity=identity, match=matches.found_in)
        sequences += keys
        if remove and keys:
            reports.append(forget(storage, identity=identity, keys=keys, break_pins=break_pins))
    return Forgotten(
        identity=every[0].identity,
        searched=tuple(searched),
        unsearched=tuple(other for identity, other in unsearched.items() if identity not in searched),
        sequences=tuple(key.hex() for key in sequences),
        removed=bool(reports),
        kept_for_views=tuple(sorted({view for report in reports if report.kept for view in report.pinned_by})),
        files=() if pattern is None else tuple(map(str, files_with(pattern, root=config.runtime.run_root))),
        reports=tuple(reports),
        failures=failures,
        failures_removed=remove and failures > 0,
        by_text=pattern is not None,
    )


def _failures(storage: Storage, identity: str, *, remove: bool) -> int:
    with place_errors(storage):
        found = sum(count_failures(storage, identity=identity).values())
        if remove:
            drop_failures(storage)
    return found


def _every_asked(config: Experiment, config_dir: Path) -> list[_Asked]:
    """The first teacher, and of the others those that were asked before."""
    if isinstance(config, TaskDistillConfig):
        asked = [_of_task(config.of_teacher(name), config_dir) for name in config.every_teacher]
    else:
        asked = _of_language_models(config, config_dir)
    first, *others = asked
    there = list_teachers(config.runtime.cache_root) if others else []
    return [first, *(other for other in others if other.identity in there)]


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
        writer = open_generative_teacher(config, task)
        return _Asked(writer.identity.digest(), writer.files.tokenizer, frozenset())
    teacher = open_task_teacher(config, task)
    tuned = frozenset({teacher.label}) if config.teacher.prepare else frozenset[str]()
    return _Asked(teacher.identity.digest(), teacher.tokenizer, tuned)


def _others(root: Path | str, asked: _Asked) -> tuple[list[str], list[Unsearched]]:
    """The caches of the teacher's relatives, and all others below the root."""
    tokenizer = type(asked.tokenizer).__name__
    also, unsearched = list[str](), list[Unsearched]()
    try:
        found = list_teachers(root)
    except OSError as error:
        raise CacheError(f"{root}: cannot be read ({error.strerror or error}): check runtime.cache_root") from error
    for identity in found:
        if identity == asked.identity:
            continue
        try:
            provenances = _provenances(root, identity)
        except CacheError as error:
            unsearched.append(Unsearched(identity, (), str(error)))
            continue
        models = tuple(sorted({model for model, _ in provenances}))
        if provenances and set(models) <= asked.relatives and {name for _, name in provenances} == {tokenizer}:
            also.append(identity)
        elif provenances:
            unsearched.append(Unsearched(identity, models, "not of this config: name a config of its own"))
    return also, unsearched


def _provenances(root: Path | str, identity: str) -> set[tuple[str, str]]:
    """(model, tokenizer) of every manifest in the cache of a teacher."""
    storage, found = open_storage(root, identity, create=False), set[tuple[str, str]]()
    with place_errors(storage):
        for uuid in listed(storage, "manifests"):
            with suppress(DamagedObject, FileNotFoundError):
                provenance = read_manifest(storage, uuid, identity=identity).provenance
                found.add((provenance.get("model", "?"), provenance.get("tokenizer", "?")))
    return found


def files_with(pattern: TextPattern, *, root: Path) -> list[Path]:
    """Files below a run root (MLflow's own among them) that hold a match, in plain text or as a JSON string."""
    return [path for path in sorted(root.rglob("*")) if _is_text(path) and _holds(pattern, path)]


def _is_text(path: Path) -> bool:
    named = path.suffix not in WEIGHTS and path.name not in VOCABULARIES
    return named and path.is_file() and path.stat().st_size <= LARGEST_FILE


def _holds(pattern: TextPattern, path: Path) -> bool:
    try:
        text = read_regular(path, at_most=LARGEST_FILE, links="follow").decode("utf-8", errors="replace")
    except (OSError, UnreadableFileError):
        return False  # it went away while we looked
    return pattern.found_in(text) or any(pattern.found_in(found) for found in _json_strings(path, text))


def _json_strings(path: Path, text: str) -> Iterator[str]:
    """The strings of a JSON or JSON-lines file, where quotes and other scripts may stand escaped."""
    if path.suffix not in (".json", ".jsonl"):
        return
    for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
        try:
            yield from texts_within(parse_json(line.encode("utf-8", errors="replace"), origin=str(path)))
        except UnreadableFileError:
            continue
