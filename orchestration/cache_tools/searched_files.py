"""Files of runs and of MLflow that hold a text, and taking it out of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from cache.disk.durable import replace_file
from configs import CacheError
from configs.places import RESOLVED, WRITTEN
from configs.regular_files import UnreadableFileError, parse_json, read_regular, texts_within
from orchestration.cache_tools.text_patterns import TextPattern

LARGEST_FILE = 2**28
"""Larger files of a run are weights."""

WEIGHTS = frozenset({".safetensors", ".pt", ".bin", ".npz"})
VOCABULARIES = frozenset({"tokenizer.json", "vocab.json", "merges.txt"})
"""Every common word stands in them."""

MODELS = frozenset({"students", "inits", "work"})
"""Folders of a run root that hold models: without one of its files a model is none."""

DATABASES = frozenset({".db", ".db-wal", ".db-shm", ".db-journal"})


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A file that holds the text and is not changed, and why."""

    path: str
    reason: str


def files_with(pattern: TextPattern, *, root: Path) -> list[Path]:
    """Files below a run root (MLflow's own among them) that hold a match, in plain text or as a JSON string."""
    return [path for path in sorted(root.rglob("*")) if _is_text(path) and _holds(pattern, path)]


def why_kept(path: Path, *, root: Path) -> str | None:
    """Why a file below a run root that holds the text is not changed; None where the text is taken out of it."""
    if path.suffix in DATABASES:
        return "a database: delete the run in MLflow's page, then `mlflow gc`"
    if path.relative_to(root).parts[0] in MODELS:
        return "part of a model: delete the model"
    if path.name in (WRITTEN, RESOLVED):
        return "the configuration itself holds it: delete the run, and mend the configuration"
    return None


def take_out(path: Path, pattern: TextPattern) -> None:
    """Remove a file that holds the text; of a JSON-lines file the lines that do.

    Raises:
        CacheError: the disk refuses.
    """
    try:
        if path.suffix != ".jsonl":
            path.unlink(missing_ok=True)
            return
        lines = read_regular(path, at_most=LARGEST_FILE, links="follow").splitlines(keepends=True)
        kept = [line for line in lines if not _text_holds(pattern, path, line.decode("utf-8", errors="replace"))]
        replace_file(path, b"".join(kept))
    except FileNotFoundError:
        return  # it went away while we looked
    except (OSError, UnreadableFileError) as error:
        raise CacheError(f"{path}: holds the text and cannot be changed ({error}): mend that and run again") from error


def _is_text(path: Path) -> bool:
    named = path.suffix not in WEIGHTS and path.name not in VOCABULARIES
    return named and path.is_file() and path.stat().st_size <= LARGEST_FILE


def _holds(pattern: TextPattern, path: Path) -> bool:
    try:
        text = read_regular(path, at_most=LARGEST_FILE, links="follow").decode("utf-8", errors="replace")
    except (OSError, UnreadableFileError):
        return False  # it went away while we looked
    return _text_holds(pattern, path, text)


def _text_holds(pattern: TextPattern, path: Path, text: str) -> bool:
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
