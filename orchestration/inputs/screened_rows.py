"""The data of an experiment once it was screened: files that every reader reads in place of those that are named.

Rows keep their numbers: one that is left out stays as a line with its reason. What is written holds nothing that was to
be redacted, in any field, and is made once for the same files under the same settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from cache.disk.durable import replace_file
from configs import DataError
from configs.data import DataConfig, SplitConfig
from configs.regular_files import JSON_BYTES, UnreadableFileError, parse_json, read_regular
from configs.schema import DistillConfig
from orchestration.inputs.made_once import make_once
from orchestration.inputs.placeholders import Placeholders
from orchestration.inputs.rows import SET_ASIDE, Row, split_rows
from orchestration.inputs.screen import Look, Screen, Screened, count_looks
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.kept import file_sha256

FORMAT = 1
"""Raised by hand when the same settings screen otherwise."""

COUNTS = "counts.json"
PARTS = ("presidio-analyzer", "detect-secrets", "alt-profanity-check")
"""Whose releases find other things."""

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ScreenedData:
    """An experiment that reads screened files, and what was found in each split."""

    config: DistillConfig
    splits: Mapping[str, Screened]


def screened_root(config: DistillConfig) -> Path:
    """Where the screened data of runs lie."""
    return config.runtime.run_root / "screened"


def screened_in_words(splits: Mapping[str, Screened]) -> tuple[str, ...]:
    """A line for each split."""
    return tuple(f"data.{name}: {found.in_words('rows')}" for name, found in splits.items())


def screened_data(config: DistillConfig, *, root: Path, say: Say, made: Path | None = None) -> ScreenedData:
    """Screen the data of an experiment, whose paths are real, below `root`; nothing is read where nobody asks for it.

    What is there below `made` already is taken from there.

    Raises:
        ConfigError: a part is not installed, or a blocklist cannot be read.
        DataError: a split cannot be read.
    """
    screen = Screen.of(config, answers=False)
    Screen.of(config, answers=True)  # what is missing for answers is said before anything is paid
    if not screen.is_on:
        return ScreenedData(config, {})
    sources = _sources(config.data)
    name = _digest(config, sources)[:16]
    there = (made or root) / name
    folder = make_once(
        there if there.is_dir() else root / name, lambda target: _fill(target, sources, screen=screen, say=say)
    )
    return ScreenedData(_reading(config, sources, folder=folder), _read_counts(folder / COUNTS))


def _sources(data: DataConfig) -> dict[str, SplitConfig]:
    """The splits of prompts and of plain text, by their names."""
    plain = {} if data.plain is None else {"plain.train": data.plain.train, "plain.dev": data.plain.dev}
    return {**data.splits, **plain}


def _digest(config: DistillConfig, sources: Mapping[str, SplitConfig]) -> str:
    """Of everything that decides what the screened files hold."""
    content = config.content
    try:
        files = {name: file_sha256(source.path) for name, source in sources.items() if source.path is not None}
        blocked = None if content is None or content.blocklist is None else file_sha256(content.blocklist)
    except (OSError, UnreadableFileError) as error:
        raise DataError(f"the data cannot be screened ({error}): name files that can be read") from error
    blocks = {
        "privacy": None if config.privacy is None else config.privacy.model_dump(mode="json"),
        "content": None if content is None else content.model_dump(mode="json", exclude={"blocklist"}),
    }
    named = {name: source.model_dump(mode="json", exclude={"path"}) for name, source in sources.items()}
    names = () if config.privacy is None or config.privacy.names is None else (config.privacy.names,)
    parts = {part: _version(part) for part in (*PARTS, *names)}
    return digest_of(
        screened=FORMAT, files=files, blocked=blocked, rows=named, parts=parts, order=list(sources), **blocks
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fill(folder: Path, sources: Mapping[str, SplitConfig], *, screen: Screen, say: Say) -> None:
    """Write a file for each split, and what was found."""
    placeholders, found = Placeholders(), dict[str, Screened]()
    for name, source in sources.items():
        say(f"data.{name} is looked through for what is private or not wanted")
        counts = Counter[str]()
        rows = (row for _, row in split_rows(source, split=name))
        lines = (json.dumps(row, default=str) + "\n" for row in _screened(rows, screen, placeholders, counts))
        with (folder / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(lines)
        found[name] = Screened.of(counts)
    text = json.dumps({name: asdict(each) for name, each in found.items()}, indent=2)
    replace_file(folder / COUNTS, text.encode())


def _screened(
    rows: Iterable[Row | str], screen: Screen, placeholders: Placeholders, counts: Counter[str]
) -> Iterator[Row]:
    for row in rows:
        if isinstance(row, str):
            yield {SET_ASIDE: row}
            continue
        looks: list[Look] = []

        def changed(text: str, looks: list[Look] = looks) -> str:
            look = screen.look(text)
            looks.append(look)
            return placeholders.put(text, look.spans) if screen.private == "redact" and look.spans else text

        clean = _mapped(row, changed)
        reason = screen.why_dropped(looks)
        count_looks(counts, looks, dropped=reason is not None)
        yield clean if reason is None else {SET_ASIDE: reason}


def _mapped(value: Any, change: Callable[[str], str]) -> Any:
    """A JSON value with every text in it changed; the names of fields stay."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, Mapping):
        return {name: _mapped(each, change) for name, each in value.items()}
    return [_mapped(each, change) for each in value] if isinstance(value, list | tuple) else value


def _reading(config: DistillConfig, sources: Mapping[str, SplitConfig], *, folder: Path) -> DistillConfig:
    """The experiment with the screened files in place of its data."""
    splits = {name: SplitConfig(path=folder / f"{name}.jsonl") for name in sources}
    changed: dict[str, Any] = {name: splits[name] for name in config.data.splits}
    if config.data.plain is not None:
        plain = {"train": splits["plain.train"], "dev": splits["plain.dev"]}
        changed["plain"] = config.data.plain.model_copy(update=plain)
    return config.model_copy(update={"data": config.data.model_copy(update=changed)})


def _read_counts(path: Path) -> dict[str, Screened]:
    try:
        said: Any = parse_json(read_regular(path, at_most=JSON_BYTES), origin=str(path))
        return {name: Screened(**each) for name, each in said.items()}
    except (OSError, UnreadableFileError, TypeError, AttributeError) as error:
        raise DataError(f"{path.parent}: screened data cannot be used ({error}): delete it and run again") from error
