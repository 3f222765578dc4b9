"""Erasure: remove what holds a text, wherever it lies below a cache root and a run root, and say what stays.

What is cached is token ids, so the tokenizers of whoever asked turn them into text before they are searched
(`asked_caches`). Nothing is removed before it is remembered by hashes (`cache.erasures`), so that no fill, door or
archive brings it back; then go files of runs and of MLflow (`searched_files`), what their students read (`taught`), and
last the rows themselves, by which all of this is found: an erasure that is killed is finished by the next.

Out of reach are students that learned from it, folders that were exported, archives, databases, and the data; what is
known of these is named.

What a teacher could not answer is kept by hashes alone (`cache.failures`), which nobody can search: with a text all of
it is forgotten. It can also be forgotten by itself, so that it is asked again.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from cache.disk.roots import open_storage
from cache.disk.storage import Storage
from cache.erasures import Erasures
from cache.failures import count_failures, drop_failures
from cache.upkeep.garbage import place_errors
from cache.upkeep.rewriting import ForgetReport, forget
from cache.upkeep.searching import find_matches
from configs import CacheError
from configs.loading import Experiment
from orchestration.cache_tools.asked_caches import AskedCaches, Unsearched, find_caches
from orchestration.cache_tools.searched_files import KeptFile, files_with, take_out, why_kept
from orchestration.cache_tools.taught import Taught, taught_by
from orchestration.cache_tools.text_patterns import TextPattern
from orchestration.cache_tools.token_patterns import TokenPattern


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What holds a text: cached sequences and signals of sequences, by key, and files of runs and of MLflow.

    `searched` are the caches that were looked through: the teacher's (`identity`) first.
    With `removed` the sequences are gone, except for the views in `kept_for_views`, which runs still read, and with
    them `files` and `lessons`; `names` counts the new hashes by which they are remembered. `kept_files` hold the text
    and stay; `students` learned from it. `failures` counts requests that could not be answered, which are forgotten
    with `failures_removed`; where nobody looked for a text (`by_text`) there is nothing else.
    """

    identity: str
    searched: tuple[str, ...]
    unsearched: tuple[Unsearched, ...]
    sequences: tuple[str, ...]
    removed: bool
    names: int
    kept_for_views: tuple[str, ...]
    files: tuple[str, ...]
    kept_files: tuple[KeptFile, ...]
    lessons: tuple[str, ...]
    students: tuple[str, ...]
    reports: tuple[ForgetReport, ...]
    failures: int
    failures_removed: bool
    by_text: bool


@dataclass(frozen=True, slots=True)
class _Held:
    """What holds the text: by identity the keys of rows with the names that an erasure gives them; and files."""

    rows: dict[str, dict[bytes, frozenset[str]]]
    files: tuple[Path, ...]
    kept_files: tuple[KeptFile, ...]
    taught: Taught

    @property
    def keys(self) -> list[bytes]:
        """Of all rows."""
        return [key for found in self.rows.values() for key in found]

    @property
    def names(self) -> frozenset[str]:
        """By which all rows are remembered."""
        return frozenset().union(*(names for found in self.rows.values() for names in found.values()))


def forget_text(
    config: Experiment, *, config_dir: Path, pattern: TextPattern | None, remove: bool, break_pins: bool
) -> Forgotten:
    """Find what holds a match of `pattern` in every cache below the cache root of `config` and below its run root.

    With `remove` what is found is removed, and with it what could not be answered there; without a pattern this alone,
    and of the teachers of `config` alone. Rollouts lie in the cache of whoever scored them and are searched with it.

    Raises:
        DistillError: a teacher of `config` cannot be opened, or a cache or file not be read or changed.
    """
    root, run_root = config.runtime.cache_root, config.runtime.run_root
    caches = find_caches(config, config_dir=config_dir, runs=pattern is not None)
    storages = {identity: open_storage(root, identity, create=False) for identity in caches.tokenizers}
    failures = sum(_failures(storage, identity, remove=remove) for identity, storage in storages.items())
    held = _Held({}, (), (), Taught((), (), ()))
    names, reports = 0, list[ForgetReport]()
    if pattern is not None:
        held = _held(pattern, caches, storages, run_root=run_root)
    if pattern is not None and remove:
        names = Erasures.read(root).add(held.names, root=root)
        for path in held.files:
            take_out(path, pattern)
        for path in (*held.taught.lessons, *(held.taught.views if break_pins else ())):
            _delete(path)
        reports = [
            forget(storages[identity], identity=identity, keys=list(found), break_pins=break_pins)
            for identity, found in held.rows.items()
        ]
    return Forgotten(
        identity=next(iter(caches.tokenizers)),
        searched=tuple(caches.tokenizers),
        unsearched=caches.unsearched,
        sequences=tuple(key.hex() for key in held.keys),
        removed=remove and bool(held.rows or held.files or held.taught.lessons),
        names=names,
        kept_for_views=tuple(sorted({view for report in reports if report.kept for view in report.pinned_by})),
        files=tuple(map(str, held.files)),
        kept_files=held.kept_files,
        lessons=tuple(map(str, (*held.taught.lessons, *held.taught.views))),
        students=tuple(map(str, held.taught.students)),
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


def _held(pattern: TextPattern, caches: AskedCaches, storages: dict[str, Storage], *, run_root: Path) -> _Held:
    rows = dict[str, dict[bytes, frozenset[str]]]()
    for identity, storage in storages.items():
        matching = TokenPattern.of(pattern, caches.tokenizers[identity])
        if found := find_matches(storage, identity=identity, match=matching.found_in):
            rows[identity] = found
    files, kept = _files(pattern, root=run_root)
    task_runs = {run for identity in rows for run in caches.task_runs.get(identity, ())}
    keys = [key for found in rows.values() for key in found]
    taught = taught_by(keys, storages=storages.values(), run_root=run_root, task_runs=task_runs)
    return _Held(rows, files, kept, taught)


def _files(pattern: TextPattern, *, root: Path) -> tuple[tuple[Path, ...], tuple[KeptFile, ...]]:
    """The files that hold the text: those it is taken out of, and those that stay, with the reason."""
    reasons = {path: why_kept(path, root=root) for path in files_with(pattern, root=root)}
    kept = tuple(KeptFile(str(path), reason) for path, reason in reasons.items() if reason is not None)
    return tuple(path for path, reason in reasons.items() if reason is None), kept


def _delete(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise CacheError(f"{path}: cannot be deleted ({error.strerror}): mend that and run again") from error
