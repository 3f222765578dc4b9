"""Rows of data: files (JSONL, CSV, Parquet, CoNLL) read by name, by content and in place, and datasets of the hub.

A name is never a pattern, and no copy of a file is kept that could go stale. What is wrong with one row costs that row,
and the reason stands in its place; what is wrong with a file (another format than its name says, UTF-16, an array
where lines are due) is said once.
"""

from __future__ import annotations

import csv
import json
import re
import shutil
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.parquet as pq

from configs import DataError
from configs.regular_files import UnreadableFileError, open_regular
from configs.schema import SplitConfig
from configs.visible_text import first_line

FORMATS = ".jsonl, .parquet, .csv or .conll"
LINE_BYTES = 64 * 2**20
"""No row is longer: a file without line ends must not fill the memory."""

ROWS_AT_ONCE = 256
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
LONE_RETURN = re.compile(r"(?<=\r)(?!\n)")

PARQUET = b"PAR1"
PACKED = {
    b"\x1f\x8b": "gzip",
    b"\x28\xb5\x2f\xfd": "zstd",
    b"PK\x03\x04": "zip",
    b"BZh": "bzip2",
    b"\xfd7zXZ": "xz",
}
WIDE = (b"\xff\xfe", b"\xfe\xff")
"""How UTF-16 and UTF-32 begin when they say so; ASCII in them is every second byte a zero."""

SET_ASIDE = "stillroom: set aside"
"""The only field of a row that was left out when the data were screened; its value is the reason."""

Row = Mapping[str, Any]


def split_rows(source: SplitConfig, *, split: str) -> Iterator[tuple[int, Row | str]]:
    """Yield (row number, row) of a split, or a reason in place of a row that cannot be decoded.

    Raises:
        DataError: it cannot be read at all.
    """
    key = f"data.{split}"
    rows = _hub_rows(source, key) if source.path is None else file_rows(source.path, key=f"{key}.path")
    return enumerate(islice(rows, source.limit))


def file_rows(path: Path, *, key: str) -> Iterator[Row | str]:
    """The rows of a file, or reasons in their places; `key` is where the configuration names it.

    Raises:
        DataError: it is not a regular file, cannot be read, or does not hold what its name says.
    """
    readers = {".jsonl": _json_rows, ".csv": _csv_rows, ".parquet": _parquet_rows, ".conll": _conll_rows}
    kind = _kind_of(path)
    if kind not in readers:
        raise DataError(f"{key}={path}: name a {FORMATS} file")
    with _readable(path, key=key), open_regular(path, links="follow") as stream:
        head = stream.read(4096)
        stream.seek(0)
        wrong = _not_what_it_says(head, kind=kind)
        if wrong is not None:
            raise DataError(f"{key}={path} {wrong}")
        yield from readers[kind](stream)


def _kind_of(path: Path) -> str:
    """What the name of a file says that it holds; `.conll.txt` is as common as `.conll`."""
    endings = [ending.lower() for ending in path.suffixes[-2:]]
    return ".conll" if endings == [".conll", ".txt"] else (endings or [""])[-1]


@contextmanager
def _readable(path: Path, *, key: str) -> Iterator[None]:
    """Errors of the disk and of pyarrow in one line."""
    try:
        yield
    except DataError:
        raise
    except UnreadableFileError as error:
        raise DataError(f"{key}={error}: name a {FORMATS} file") from error
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise DataError(f"{key}={path} cannot be read ({reason}): check the file and its permissions") from error
    except (pa.ArrowException, ValueError) as error:
        reason = first_line(error)
        raise DataError(f"{key}={path} cannot be read ({reason}): write the file again") from error


def _not_what_it_says(head: bytes, *, kind: str) -> str | None:
    """What a file is that its name does not say, with the cure."""
    if not head:
        return "is empty: put rows in it or name another file"
    if kind == ".parquet":
        return None if head.startswith(PARQUET) else f"does not hold Parquet: write it again, or name a {FORMATS} file"
    if head.startswith(PARQUET):
        return f"holds Parquet, not {kind[1:].upper()}: name it *.parquet"
    packed = next((name for magic, name in PACKED.items() if head.startswith(magic)), None)
    if packed is not None:
        return f"is compressed with {packed}: unpack it"
    if head.startswith(WIDE) or 0 in head[:4]:
        return "is not UTF-8 but UTF-16 or UTF-32: save it as UTF-8 text"
    text = head.removeprefix(BYTE_ORDER_MARK).lstrip()
    if kind == ".jsonl" and text.startswith(b"["):
        return "holds a JSON array: write one object a line, e.g. with `jq -c '.[]'`"
    if kind == ".jsonl" and text.splitlines()[:1] in ([b"{"], [b"{ "]):
        return "holds JSON over several lines: write one object a line, e.g. with `jq -c .`"
    return None


def _json_rows(stream: BinaryIO) -> Iterator[Row | str]:
    """JSONL is read line by line, so that one broken line costs one row and not the file."""
    while line := stream.readline(LINE_BYTES):
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            while (rest := stream.readline(LINE_BYTES)) and not rest.endswith(b"\n"):
                pass
            yield f"longer than {LINE_BYTES:,} bytes"
            continue
        line = line.removeprefix(BYTE_ORDER_MARK)
        if line.strip():
            yield _json_row(line)


def _json_row(line: bytes) -> Row | str:
    try:
        row = json.loads(line.decode("utf-8"))
    except UnicodeDecodeError:
        return "invalid UTF-8"
    except json.JSONDecodeError as error:
        return f"invalid JSON: {error.msg}"
    except (ValueError, RecursionError) as error:
        # A number of thousands of digits, or lists in lists in lists.
        return f"invalid JSON: {error}"
    if not isinstance(row, dict):
        return "not a JSON object"
    return str(row[SET_ASIDE]) if row.keys() == {SET_ASIDE} else row


def _csv_rows(stream: BinaryIO) -> Iterator[Row | str]:
    """CSV is read as text: "12" stays "12" and "NA" stays "NA"."""
    csv.field_size_limit(LINE_BYTES)
    # `strict` finds a quote that is never closed, which would otherwise swallow the rest of the file.
    rows = csv.reader(_csv_lines(stream), strict=True)
    header: list[str] | None = None
    while True:
        try:
            row = next(rows, None)
        except csv.Error as error:
            if header is None:
                raise ValueError(f"its header is not CSV: {error}") from error
            yield f"invalid CSV: {error}"
            continue
        if row is None:
            return
        if not row:  # a blank line
            continue
        if header is None:
            header = row
            _require_distinct(header)
        elif len(row) > len(header):
            yield "more cells than the header"
        else:
            yield dict(zip(header, row + [None] * (len(header) - len(row)), strict=True))


def _csv_lines(stream: BinaryIO) -> Iterator[str]:
    first = True
    while line := stream.readline(LINE_BYTES):
        if len(line) == LINE_BYTES and not line.endswith(b"\n"):
            raise ValueError(f"a line is longer than {LINE_BYTES:,} bytes")
        text = (line.removeprefix(BYTE_ORDER_MARK) if first else line).decode(errors="replace")
        first = False
        # Some spreadsheets end a line with a carriage return alone.
        yield from LONE_RETURN.split(text) if "\r" in text else (text,)


def _conll_rows(stream: BinaryIO) -> Iterator[Row | str]:
    """Sentences of a tagged corpus (CoNLL 2003): a word a line with its tag last, an empty line behind a sentence.

    Each has the number of its `document`: `-DOCSTART-` stands between two, and may stand before the first.
    """
    tokens: list[str] = []
    tags: list[str] = []
    reason: str | None = None
    document, found = 0, False
    while line := stream.readline(LINE_BYTES):
        cells = line.removeprefix(BYTE_ORDER_MARK).decode(errors="replace").split()
        if cells[:1] == ["-DOCSTART-"]:
            document, found = document + found, False
            continue
        if cells:
            tokens.append(cells[0])
            tags.append(cells[-1])
            if len(cells) == 1:
                reason = f"the word {cells[0]!r} has no tag"
        elif tokens:
            yield reason or {"tokens": tokens, "tags": tags, "document": document}
            tokens, tags, reason, found = [], [], None, True
    if tokens:
        yield reason or {"tokens": tokens, "tags": tags, "document": document}


def _parquet_rows(stream: BinaryIO) -> Iterator[Row | str]:
    file = pq.ParquetFile(stream)
    _require_distinct(file.schema_arrow.names)
    for batch in file.iter_batches(batch_size=ROWS_AT_ONCE):
        yield from _batch_rows(batch)


def _batch_rows(batch: pa.RecordBatch) -> Iterator[Row | str]:
    try:
        rows = batch.to_pylist()
    except UnicodeDecodeError:
        # Arrow does not check that what is declared as text is UTF-8.
        for at in range(batch.num_rows):
            try:
                (row,) = batch.slice(at, 1).to_pylist()
            except UnicodeDecodeError:
                yield "invalid UTF-8"
            else:
                yield _with_what_is_there(row)
    else:
        yield from map(_with_what_is_there, rows)


def _require_distinct(names: Iterable[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"two columns have the name {twice[0]!r}")


def _with_what_is_there(row: Row) -> Row:
    """Arrow gives every structure all the fields that any of its rows has; what is null in one is not in it."""
    return {name: _pruned(value) for name, value in row.items()}


def _pruned(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _pruned(each) for name, each in value.items() if each is not None}
    return [_pruned(each) for each in value] if isinstance(value, list) else value


def _hub_rows(source: SplitConfig, key: str) -> Iterator[Row]:
    """Rows of a hub dataset, or of a local directory that is laid out as one."""
    # It takes a second to load with all of pandas, and files are read without it.
    from datasets import load_dataset
    from datasets.exceptions import DatasetGenerationError, DatasetNotFoundError

    assert source.hub is not None
    with TemporaryDirectory(prefix="stillroom-dataset-") as scratch:
        name, options = source.hub, {}
        try:
            if Path(source.hub).is_dir():
                # `datasets` takes a path for a pattern, and keeps a copy for the next time that the path and the times
                # of its files look the same: it gets links in a folder of plain name, and a cache that ends with this.
                name, options = str(Path(scratch, "data")), {"cache_dir": str(Path(scratch, "cache"))}
                shutil.copytree(source.hub, name, copy_function=_link)
            data = load_dataset(
                name,
                source.subset,
                split=source.split or key.removeprefix("data."),
                revision=source.revision,
                **options,
            )
        except (DatasetNotFoundError, DatasetGenerationError, OSError, ValueError, RuntimeError) as error:
            raise DataError(
                f"{key}: {source.hub} cannot be read: {first_line(error.__cause__ or error)}; correct its name or "
                "the file"
            ) from error
        for row in data:
            yield _with_what_is_there(_named(row, data.features))


def _named(value: Any, feature: Any) -> Any:
    """Classes by the names that a dataset gives them; it holds their numbers. What has no name (-1) stays a number."""
    from datasets import ClassLabel

    if isinstance(feature, ClassLabel):
        return feature.names[value] if isinstance(value, int) and 0 <= value < len(feature.names) else value
    if isinstance(value, dict) and isinstance(feature, Mapping):
        return {name: _named(each, feature.get(name)) for name, each in value.items()}
    return [_named(each, getattr(feature, "feature", None)) for each in value] if isinstance(value, list) else value


def _link(source: str, target: str) -> None:
    # A named pipe among the files would be waited for.
    if Path(source).is_file():
        Path(target).symlink_to(Path(source).resolve())
