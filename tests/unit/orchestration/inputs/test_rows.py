"""Data files are read by name, by content and in place, and say what they are when they are not what they should be."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import ClassLabel, Dataset, Features, Value
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from configs import ConfigError, DataError
from configs.schema import SplitConfig
from orchestration.inputs import rows
from orchestration.inputs.real_paths import _real_file
from orchestration.inputs.rows import file_rows, split_rows

Row = Mapping[str, Any]
ONE_FOLDER = settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)


def written(path: Path, *texts: str) -> Path:
    """A file of the kind that its name says, with one column."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"prompt": list(texts)}), path)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"prompt": text}) + "\n" for text in texts))
    else:
        with path.open("w", newline="") as stream:
            csv.writer(stream).writerows([("prompt",), *((text,) for text in texts)])
    return path


def read(path: Path) -> list[Row | str]:
    return list(file_rows(path, key="data.train.path"))


def texts(path: Path) -> list[str]:
    return [row["prompt"] for row in read(path) if isinstance(row, Mapping)]


KINDS = (".jsonl", ".parquet", ".csv")
NAMES = ("data[1]", "tr*", "a::b/x", "run[2024]/x", "question?", "{a,b}", "100%20", "hf:x", " two  words ", "данные")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_name_is_not_a_pattern(name: str, kind: str, tmp_path: Path) -> None:
    for other in ("data1", "train", "tr", "b/x", "run2/x", "questions", "a", "b"):
        written(tmp_path / f"{other}{kind}", "another file")
    path = written(tmp_path / f"{name}{kind}", "this one")
    assert texts(path) == ["this one"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_read_is_what_the_file_holds_now(kind: str, tmp_path: Path) -> None:
    path = written(tmp_path / f"train{kind}", "old")
    before = path.stat()
    assert texts(path) == ["old"]
    written(path, "new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert texts(path) == ["new"]


def test_nothing_is_written_beside_a_file_or_into_the_home_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for kind in KINDS:
        assert texts(written(tmp_path / "data" / f"train{kind}", "x")) == ["x"]
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["data", "train.csv", "train.jsonl", "train.parquet"]


def packed_array() -> bytes:
    return b'  [{"prompt": "x"},\n {"prompt": "y"}]\n'


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("t.jsonl", packed_array(), "holds a JSON array: write one object a line, e.g. with `jq -c '.[]'`"),
        ("t.jsonl", b"\xef\xbb\xbf" + packed_array(), "holds a JSON array"),
        ("t.jsonl", b'{\n  "prompt": "x"\n}\n', "holds JSON over several lines: write one object a line"),
        ("t.jsonl", '{"prompt": "x"}\n'.encode("utf-16"), "is not UTF-8 but UTF-16 or UTF-32: save it as UTF-8 text"),
        ("t.jsonl", '{"prompt": "x"}\n'.encode("utf-16-le"), "is not UTF-8 but UTF-16"),
        ("t.csv", "prompt\nx\n".encode("utf-16-be"), "is not UTF-8 but UTF-16"),
        ("t.csv", "prompt\nx\n".encode("utf-32"), "is not UTF-8 but UTF-16 or UTF-32"),
        ("t.csv", b"PAR1....", "holds Parquet, not CSV: name it *.parquet"),
        ("t.jsonl", b"\x1f\x8b\x08\x00", "is compressed with gzip: unpack it"),
        ("t.csv", b"PK\x03\x04\x00", "is compressed with zip: unpack it"),
        ("t.parquet", b'{"prompt": "x"}\n', "does not hold Parquet: write it again, or name a .jsonl, "),
        ("t.parquet", b"PAR1 and then nothing of it PAR1", "cannot be read ("),
        ("t.parquet", b"", "is empty: put rows in it or name another file"),
        ("t.csv", b"prompt,prompt\nx,y\n", "cannot be read (two columns have the name 'prompt')"),
        ("t.csv", b'"open\n', "cannot be read (its header is not CSV: unexpected end of data)"),
        ("t.json", b"{}", ": name a .jsonl, .parquet, .csv or .conll file"),
    ],
)
def test_a_file_that_is_not_what_its_name_says(name: str, content: bytes, reason: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(DataError) as refused:
        read(path)
    assert str(refused.value).startswith(f"data.train.path={path}")
    assert reason in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("types", [{"prompt": pa.string()}, {"prompt": pa.string(), "n": pa.int64()}])
def test_an_empty_parquet_file_has_no_rows(types: dict[str, pa.DataType], tmp_path: Path) -> None:
    pq.write_table(pa.schema(types).empty_table(), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == []


@pytest.mark.parametrize("kind", KINDS)
def test_only_a_regular_file_is_read(kind: str, tmp_path: Path) -> None:
    pipe, zero, gone, folder = (tmp_path / f"{name}{kind}" for name in ("pipe", "zero", "gone", "folder"))
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    gone.symlink_to(tmp_path / "nowhere")
    folder.mkdir()
    for path, reason in ((pipe, "a named pipe"), (zero, "a device"), (folder, "a directory"), (gone, "No such file")):
        with pytest.raises(DataError, match=reason) as refused:
            read(path)
        assert str(path) in str(refused.value) and "data.train.path=" in str(refused.value)
        with pytest.raises(ConfigError, match=r"^data\.train\.path[=:].*"):
            _real_file(path, key="data.train.path", config_dir=tmp_path, kinds="x", holds="prompts")
    real = written(tmp_path / f"real{kind}", "x")
    link = tmp_path / f"link{kind}"
    link.symlink_to(real)
    assert texts(link) == ["x"]


def test_a_name_that_cannot_be_looked_up_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^data\.train\.path=.*x\.csv cannot be read \(File name too long\)"):
        _real_file(Path("x" * 300 + "x.csv"), key="data.train.path", config_dir=tmp_path, kinds="x", holds="prompts")


def test_what_is_null_in_a_structure_of_parquet_is_not_there(tmp_path: Path) -> None:
    given = [
        {"m": [{"role": "user", "content": "q", "arguments": {"city": "Rome"}}], "id": None},
        {"m": [{"role": "tool", "content": "a", "arguments": {"unit": "C"}}], "id": 1},
    ]
    pq.write_table(pa.Table.from_pylist(given), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == given


def test_text_of_parquet_that_is_not_utf8_costs_its_row(tmp_path: Path) -> None:
    raw = pa.array([b"fine", b"\xff\xfe", b"fine too"], type=pa.binary())
    broken = pa.StringArray.from_buffers(3, raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"prompt": broken}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet") == [{"prompt": "fine"}, "invalid UTF-8", {"prompt": "fine too"}]


def test_a_line_without_an_end_does_not_fill_the_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rows, "LINE_BYTES", 64)
    path = tmp_path / "t.jsonl"
    path.write_bytes(b'{"prompt": "a"}\n' + b" " * 1000 + b'\n{"prompt": "b"}\n' + b"x" * 200)
    assert read(path) == [{"prompt": "a"}, "longer than 64 bytes", {"prompt": "b"}, "longer than 64 bytes"]
    path = tmp_path / "t.csv"
    path.write_bytes(b"prompt\n" + b"x" * 200)
    with pytest.raises(DataError, match="a line is longer than 64 bytes"):
        read(path)


def test_a_long_prompt_is_read_from_csv_as_from_json(tmp_path: Path) -> None:
    long = "word " * 50_000
    assert {text for kind in KINDS for text in texts(written(tmp_path / f"t{kind}", long))} == {long}


@pytest.mark.parametrize("name", ["t.conll", "T.CoNLL.txt"])
def test_a_tagged_corpus_is_a_row_a_sentence(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_text("-DOCSTART- -X- O\n\nAnna NNP I-PER\r\nlaughs VBZ O\n\n\nOslo NNP I-LOC\nfell\n\nRome NNP I-LOC")
    assert read(path) == [
        {"tokens": ["Anna", "laughs"], "tags": ["I-PER", "O"], "document": 0},
        "the word 'fell' has no tag",
        {"tokens": ["Rome"], "tags": ["I-LOC"], "document": 0},
    ]


def test_sentences_of_a_tagged_corpus_know_their_document(tmp_path: Path) -> None:
    path = tmp_path / "t.conll"
    between = "Bern I-LOC\n\n-DOCSTART- O\n\nOslo I-LOC\n\nRome I-LOC\n\n-DOCSTART- O\n\nPisa I-LOC\n"
    for text in (between, f"-DOCSTART- O\n\n{between}"):
        path.write_text(text)
        assert [row["document"] for row in read(path) if not isinstance(row, str)] == [0, 1, 1, 2]


def test_lines_of_csv_end_in_any_way(tmp_path: Path) -> None:
    for end in ("\n", "\r\n", "\r"):
        path = tmp_path / "t.csv"
        path.write_bytes(f'prompt{end}one{end}"a{end}b"{end}'.encode())
        assert texts(path) == ["one", f"a{end}b"]


@pytest.mark.parametrize("name", ["plain", "run[2024]", "a::b", "*"])
def test_a_directory_laid_out_as_a_dataset_is_read_in_place(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    source = SplitConfig(hub=str(folder))
    path = written(folder / "train.parquet", "old")
    before = path.stat()
    assert [row for _, row in split_rows(source, split="train")] == [{"prompt": "old"}]
    written(path, "new")
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert [row for _, row in split_rows(source, split="train")] == [{"prompt": "new"}]


def test_classes_of_a_dataset_come_by_their_names(tmp_path: Path) -> None:
    names = ClassLabel(names=["negative", "positive"])
    columns: dict[str, list[Any]] = {
        "text": ["a", "b", "c"],
        "label": [1, 0, -1],
        "tags": [[0, 1], [], [1]],
        "of": [{"kind": 1, "number": 1}] * 3,
    }
    features = {
        "text": Value("string"),
        "label": names,
        "tags": [names],
        "of": {"kind": names, "number": Value("int64")},
    }
    (tmp_path / "data").mkdir()
    Dataset.from_dict(columns, features=Features(features)).to_parquet(tmp_path / "data" / "test.parquet")
    rows = [row for _, row in split_rows(SplitConfig(hub=str(tmp_path / "data")), split="test")]
    assert [row["label"] for row in rows] == ["positive", "negative", -1]
    assert [row["tags"] for row in rows] == [["negative", "positive"], [], ["positive"]]
    assert rows[0]["of"] == {"kind": "positive", "number": 1}


@given(
    given=st.lists(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\r")), min_size=1, max_size=8)
)
@example(given=["", "NA", " 1", '"', "a\nb", "\u2028", "\ufeffx"])
@ONE_FOLDER
def test_every_format_gives_back_what_was_written(given: list[str], tmp_path: Path) -> None:
    for kind in KINDS:
        assert texts(written(tmp_path / f"t{kind}", *given)) == given


def parquet_bytes() -> bytes:
    stream = io.BytesIO()
    pq.write_table(pa.table({"prompt": ["one", "two"], "m": [[{"role": "user"}], None]}), stream)
    return stream.getvalue()


STARTS = {
    ".jsonl": b'{"prompt": "x"}\n{"m": [1, "\\ud83d"]}\n',
    ".csv": b'a,b\n"x\ny",2\n',
    ".parquet": parquet_bytes(),
}


@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
@settings(ONE_FOLDER, max_examples=150)
def test_no_content_of_a_file_ends_otherwise_than_in_rows_or_one_line(
    kind: str, data: st.DataObject, tmp_path: Path
) -> None:
    content = bytearray(STARTS[kind])
    for _ in range(data.draw(st.integers(0, 4))):
        at = data.draw(st.integers(0, len(content)))
        content[at : at + data.draw(st.integers(0, 8))] = data.draw(st.binary(max_size=12))
    path = tmp_path / f"fuzzed{kind}"
    path.write_bytes(content)
    try:
        found = read(path)
    except DataError as error:
        assert str(path) in str(error) and "\n" not in str(error)
        return
    assert all(isinstance(row, str) or all(isinstance(name, str) for name in row) for row in found)


def test_a_pipe_with_a_writer_is_refused_too(tmp_path: Path) -> None:
    pipe, line = tmp_path / "t.jsonl", b'{"prompt": "x"}\n'
    os.mkfifo(pipe)
    ends = os.open(pipe, os.O_RDWR)  # both at once, so that neither waits for the other
    try:
        os.write(ends, line)
        with pytest.raises(DataError, match="a named pipe"):
            read(pipe)
        assert os.read(ends, 100) == line
    finally:
        os.close(ends)
