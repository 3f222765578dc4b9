"""Files of screened rows that every reader reads in place of those that are named.

Rows keep their numbers: one that is left out stays as a line with its reason. What is written holds nothing that was to
be redacted, in any field, and is made once for the same files under the same settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from itertools import islice
from pathlib import Path
from types import MappingProxyType
from typing import Any

from cache.disk.durable import replace_file
from configs import DataError
from configs.data import SplitConfig
from configs.experiments import AnyExperiment
from configs.regular_files import JSON_BYTES, UnreadableFileError, parse_json, read_regular
from configs.screening import ContentConfig, PrivacyConfig
from evaluation.tasks.templates import UnfitRowError
from orchestration.inputs.exchanges import ExchangeOf, whole_row
from orchestration.inputs.made_once import make_once
from orchestration.inputs.placeholders import Placeholders
from orchestration.inputs.rows import SET_ASIDE, Row, split_rows
from orchestration.inputs.screen import Look, Screen, Screened, count_looks
from orchestration.inputs.screened_row import RowForm, RowLooks, every_text
from orchestration.inputs.unwanted import Guard
from orchestration.outputs.artifacts import digest_of
from orchestration.outputs.kept import file_sha256

FORMAT = 1
"""Raised by hand when the same settings screen otherwise."""

COUNTS = "counts.json"
PARTS = ("presidio-analyzer", "detect-secrets", "alt-profanity-check")
"""Whose releases find other things."""

ROWS_AT_ONCE = 4_096
"""Rows that lie in memory together, and that a guard is asked about together."""

NOTHING_BESIDE: Mapping[str, str] = MappingProxyType({})

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class ScreenSettings:
    """What is looked for, and what becomes of what is found; `guard` is that of `content`."""

    privacy: PrivacyConfig | None
    content: ContentConfig | None
    guard: Guard | None = None


@dataclass(frozen=True, slots=True)
class ScreenedSource:
    """Rows that are screened, how each of them is looked at, and what of it is judged as a whole."""

    rows: SplitConfig
    form: RowForm = every_text
    exchange: ExchangeOf = whole_row


@dataclass(frozen=True, slots=True)
class ScreenedFiles:
    """A folder with a file for each source, and what was found in each."""

    folder: Path
    splits: Mapping[str, Screened]

    def of(self, name: str) -> SplitConfig:
        """The rows of a source once they were screened."""
        return SplitConfig(path=self.folder / file_of(name))


def screened_root(config: AnyExperiment) -> Path:
    """Where the screened data of runs lie."""
    return config.runtime.run_root / "screened"


def file_of(name: str) -> str:
    """What the file of a source is called."""
    return f"{name}.jsonl"


def screened_in_words(splits: Mapping[str, Screened]) -> tuple[str, ...]:
    """A line for each split."""
    return tuple(f"data.{name}: {found.in_words('rows')}" for name, found in splits.items())


def screen_files(
    sources: Mapping[str, ScreenedSource],
    settings: ScreenSettings,
    *,
    root: Path,
    say: Say,
    made: Path | None = None,
    beside: Mapping[str, str] = NOTHING_BESIDE,
) -> ScreenedFiles | None:
    """Screen sources, whose paths are real, below `root`; None where nobody asks for it, and nothing is read then.

    What is there below `made` already is taken from there. `beside` are texts of further files in the folder, by name.

    Raises:
        ConfigError: a part is not installed, or a blocklist cannot be read.
        DataError: a source cannot be read.
    """
    screen = Screen(settings.privacy, settings.content, answers=False, guard=settings.guard)
    Screen(settings.privacy, settings.content, answers=True)  # what answers need is missed before anything is paid
    if not screen.is_on:
        return None
    name = _digest(sources, settings, beside)[:16]
    there = (made or root) / name

    def fill(target: Path) -> None:
        for file, text in beside.items():
            replace_file(target / file, text.encode())
        _fill(target, sources, screen=screen, say=say)

    folder = make_once(there if there.is_dir() else root / name, fill)
    return ScreenedFiles(folder, _read_counts(folder / COUNTS))


def _digest(sources: Mapping[str, ScreenedSource], settings: ScreenSettings, beside: Mapping[str, str]) -> str:
    """Of everything that decides what the screened files hold."""
    privacy, content = settings.privacy, settings.content
    rows = {name: source.rows for name, source in sources.items()}
    try:
        files = {name: file_sha256(each.path) for name, each in rows.items() if each.path is not None}
        blocked = None if content is None or content.blocklist is None else file_sha256(content.blocklist)
    except (OSError, UnreadableFileError) as error:
        raise DataError(f"the data cannot be screened ({error}): name files that can be read") from error
    blocks = {
        "privacy": None if privacy is None else privacy.model_dump(mode="json"),
        "content": None if content is None else content.model_dump(mode="json", exclude={"blocklist", "guard"}),
    }
    named = {name: each.model_dump(mode="json", exclude={"path"}) for name, each in rows.items()}
    names = () if privacy is None or privacy.names is None else (privacy.names,)
    parts = {part: _version(part) for part in (*PARTS, *names)}
    more: dict[str, Any] = {"beside": dict(beside)} if beside else {}
    if settings.guard is not None:
        more["guard"] = settings.guard.digest
    return digest_of(
        screened=FORMAT, files=files, blocked=blocked, rows=named, parts=parts, order=list(sources), **blocks, **more
    )


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def _fill(folder: Path, sources: Mapping[str, ScreenedSource], *, screen: Screen, say: Say) -> None:
    """Write a file for each source, and what was found."""
    placeholders, found = Placeholders(), dict[str, Screened]()
    try:
        for name, source in sources.items():
            say(f"data.{name} is looked through for what is private or not wanted")
            counts = Counter[str]()
            rows = (row for _, row in split_rows(source.rows, split=name))
            with (folder / file_of(name)).open("w", encoding="utf-8") as file:
                while lot := list(islice(rows, ROWS_AT_ONCE)):
                    clean = _screened(lot, screen, placeholders, counts, source=source)
                    file.writelines(json.dumps(row, default=str) + "\n" for row in clean)
            found[name] = Screened.of(counts)
    finally:
        screen.rest()
    text = json.dumps({name: asdict(each) for name, each in found.items()}, indent=2)
    replace_file(folder / COUNTS, text.encode())


@dataclass(frozen=True, slots=True)
class _Seen:
    """A row as it is used, or why it cannot be; and what was found in it."""

    clean: Row
    lost: str | None = None
    looks: list[Look] = field(default_factory=list)


def _screened(
    rows: Iterable[Row | str],
    screen: Screen,
    placeholders: Placeholders,
    counts: Counter[str],
    *,
    source: ScreenedSource,
) -> Iterator[Row]:
    """Rows in their places, each as it is used or with the reason why it is not."""
    seen = [_Seen({}, row) if isinstance(row, str) else _looked_at(row, screen, placeholders, source) for row in rows]
    said = [(each.looks, None if each.lost is not None else source.exchange(each.clean)) for each in seen]
    for row, each, looks in zip(rows, seen, screen.judged(said), strict=True):
        reason = each.lost if isinstance(row, str) else screen.why_dropped(looks) or each.lost
        if not isinstance(row, str):
            count_looks(counts, looks, dropped=reason is not None)
        yield each.clean if reason is None else {SET_ASIDE: reason}


def _looked_at(row: Row, screen: Screen, placeholders: Placeholders, source: ScreenedSource) -> _Seen:
    looks = RowLooks(screen, placeholders)
    try:
        return _Seen(source.form(row, looks), looks=looks.looks)
    except UnfitRowError as error:
        return _Seen({}, str(error), looks.looks)


def _read_counts(path: Path) -> dict[str, Screened]:
    try:
        said: Any = parse_json(read_regular(path, at_most=JSON_BYTES), origin=str(path))
        return {name: Screened(**each) for name, each in said.items()}
    except (OSError, UnreadableFileError, TypeError, AttributeError) as error:
        raise DataError(f"{path.parent}: screened data cannot be used ({error}): delete it and run again") from error
