"""Erasure: remove every cached sequence that holds a text, and say where else the same text lies.

What is cached is token ids, so the teacher's own tokenizer turns them into text before they are searched. Run
directories and MLflow's files are not changed here: they are listed, and whoever asked for the erasure decides.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from cache.disk.storage import open_storage
from cache.upkeep.rewriting import ForgetReport, find_keys, forget
from configs import DistillConfig
from orchestration.context import open_teacher
from orchestration.preflight import resolve_paths

LARGEST_FILE = 2**28
"""Larger files of a run are weights."""

WEIGHTS = frozenset({".safetensors", ".pt", ".bin", ".npz"})
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "merges.txt"})
"""Every common word stands in them."""


@dataclass(frozen=True, slots=True)
class Forgotten:
    """What holds a text: cached sequences, by key, and files of runs and of MLflow.

    With `removed` the sequences are gone, except for the views in `kept_for_views`, which runs still read.
    """

    identity: str
    sequences: tuple[str, ...]
    removed: bool
    kept_for_views: tuple[str, ...]
    files: tuple[str, ...]
    report: ForgetReport | None


def forget_text(
    config: DistillConfig, *, config_dir: Path, pattern: re.Pattern[str], remove: bool, break_pins: bool
) -> Forgotten:
    """Find what holds a match of `pattern` in the cache of the teacher of `config`, and remove it when told to.

    Raises:
        DistillError: the teacher cannot be opened, or the cache not be read or changed.
    """
    config = resolve_paths(config, config_dir=config_dir)
    teacher = open_teacher(config)
    digest = teacher.identity.digest()
    storage = open_storage(config.runtime.cache_root, digest, create=False)
    tokenizer = teacher.files.tokenizer

    def matches(token_ids: NDArray[np.int32]) -> bool:
        return pattern.search(tokenizer.decode(token_ids.tolist())) is not None

    keys = find_keys(storage, identity=digest, match=matches)
    report = forget(storage, identity=digest, keys=keys, break_pins=break_pins) if remove and keys else None
    return Forgotten(
        identity=digest,
        sequences=tuple(key.hex() for key in keys),
        removed=report is not None,
        kept_for_views=report.pinned_by if report is not None and report.kept else (),
        files=tuple(str(path) for path in files_with(pattern, root=config.runtime.run_root)),
        report=report,
    )


def files_with(pattern: re.Pattern[str], *, root: Path) -> list[Path]:
    """Files below a run root (MLflow's own among them) that hold a match, in plain text or as a JSON string."""
    return [path for path in sorted(root.rglob("*")) if _is_text(path) and _holds(pattern, path)]


def _is_text(path: Path) -> bool:
    named = path.suffix not in WEIGHTS and path.name not in VOCABULARIES
    return named and path.is_file() and path.stat().st_size <= LARGEST_FILE


def _holds(pattern: re.Pattern[str], path: Path) -> bool:
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except OSError:
        return False  # it went away while we looked
    return pattern.search(text) is not None or any(pattern.search(found) for found in _json_strings(path, text))


def _json_strings(path: Path, text: str) -> Iterator[str]:
    """The strings of a JSON or JSON-lines file, where quotes and other scripts may stand escaped."""
    if path.suffix not in (".json", ".jsonl"):
        return
    for line in text.splitlines() if path.suffix == ".jsonl" else [text]:
        try:
            yield from _strings(json.loads(line))
        except ValueError:
            continue


def _strings(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, list):
        for item in value:
            yield from _strings(item)
    elif isinstance(value, dict):
        yield from _strings(list(value.values()))
