"""Erasure: remove every cached sequence that holds a text, and say where else the same text lies.

What is cached is token ids, so the teacher's own tokenizer turns them into text before they are searched. Run
directories and MLflow's files are not changed here: they are listed, and whoever asked for the erasure decides.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from cache.disk.manifests import DamagedObject, read_manifest
from cache.disk.roots import list_teachers, open_storage
from cache.upkeep.garbage import place_errors
from cache.upkeep.raw_columns import listed
from cache.upkeep.rewriting import ForgetReport, find_keys, forget
from configs import CacheError, DistillConfig
from configs.regular_files import UnreadableFileError, parse_json, read_regular, texts_within
from orchestration.cache_tools.text_patterns import TextPattern
from orchestration.inputs.preflight import resolve_paths
from orchestration.inputs.teachers import open_teacher

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

    `searched` are the caches that were looked through: the teacher's (`identity`) first, then those of assistants.
    With `removed` the sequences are gone, except for the views in `kept_for_views`, which runs still read.
    """

    identity: str
    searched: tuple[str, ...]
    unsearched: tuple[Unsearched, ...]
    sequences: tuple[str, ...]
    removed: bool
    kept_for_views: tuple[str, ...]
    files: tuple[str, ...]
    reports: tuple[ForgetReport, ...]


def forget_text(
    config: DistillConfig, *, config_dir: Path, pattern: TextPattern, remove: bool, break_pins: bool
) -> Forgotten:
    """Find what holds a match of `pattern` in the caches of the teacher of `config` and of its assistants.

    With `remove` what is found is removed. Rollouts lie in the cache of whoever scored them and are searched with it.

    Raises:
        DistillError: the teacher cannot be opened, or a cache not be read or changed.
    """
    config = resolve_paths(config, config_dir=config_dir)
    teacher = open_teacher(config)
    digest, tokenizer = teacher.identity.digest(), teacher.files.tokenizer

    def matches(token_ids: NDArray[np.int32]) -> bool:
        return pattern.found_in(tokenizer.decode(token_ids.tolist()))

    root = config.runtime.cache_root
    also, unsearched = _others(root, digest, assistants=config.students.keys(), tokenizer=type(tokenizer).__name__)
    sequences, reports = list[bytes](), list[ForgetReport]()
    for identity in (digest, *also):
        storage = open_storage(root, identity, create=False)
        keys = find_keys(storage, identity=identity, match=matches)
        sequences += keys
        if remove and keys:
            reports.append(forget(storage, identity=identity, keys=keys, break_pins=break_pins))
    return Forgotten(
        identity=digest,
        searched=(digest, *also),
        unsearched=tuple(unsearched),
        sequences=tuple(key.hex() for key in sequences),
        removed=bool(reports),
        kept_for_views=tuple(sorted({view for report in reports if report.kept for view in report.pinned_by})),
        files=tuple(str(path) for path in files_with(pattern, root=config.runtime.run_root)),
        reports=tuple(reports),
    )


def _others(
    root: Path | str, digest: str, *, assistants: Collection[str], tokenizer: str
) -> tuple[list[str], list[Unsearched]]:
    """The caches of assistants of this experiment, and all others below the root.

    An assistant is a student of the config, which has the tokenizer of its teacher: its token ids can be read with it.
    """
    also, unsearched = list[str](), list[Unsearched]()
    try:
        found = list_teachers(root)
    except OSError as error:
        raise CacheError(f"{root}: cannot be read ({error.strerror or error}): check runtime.cache_root") from error
    for identity in found:
        if identity == digest:
            continue
        try:
            provenances = _provenances(root, identity)
        except CacheError as error:
            unsearched.append(Unsearched(identity, (), str(error)))
            continue
        models = tuple(sorted({model for model, _ in provenances}))
        if provenances and set(models) <= set(assistants) and {name for _, name in provenances} == {tokenizer}:
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
