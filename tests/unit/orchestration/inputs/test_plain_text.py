"""Plain text beside rollouts, on the driver's side: what is read, what is refused, and what a student is addressed by."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from configs import ConfigError, DataError, DistillConfig
from configs.schema import ModelShape
from configs.stages import StageConfig
from orchestration.inputs.plain_text import PlainTexts, read_plain_texts
from orchestration.inputs.random_models import byte_tokenizer
from orchestration.inputs.real_paths import resolve_paths
from orchestration.outputs.artifacts import Artifacts
from orchestration.pipeline.chain import Student, chain
from orchestration.pipeline.starts import Start

TOKENIZER = byte_tokenizer()
EOS = TOKENIZER.eos_token_id
SHAPE = ModelShape(layers=2, hidden=32, heads=4, kv_heads=2, mlp=48, vocab=300, max_positions=16)


def stage(path: Path | str | None, **pretrain: Any) -> StageConfig:
    block = None if path is None else {"path": str(path), **pretrain}
    return StageConfig.model_validate({"objective": "minillm", "rollout": {"count": 1}, "pretrain": block})


def text_file(path: Path, *rows: object) -> Path:
    lines = [row if isinstance(row, bytes) else json.dumps(row).encode() for row in rows]
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(path: Path, *, positions: int = 16, micro_batch_tokens: int = 64, **pretrain: Any) -> PlainTexts:
    texts = read_plain_texts(
        stage(path, **pretrain),
        key="students.s.stages.0.pretrain",
        tokenizer=TOKENIZER,
        positions=positions,
        micro_batch_tokens=micro_batch_tokens,
    )
    assert texts is not None
    return texts


def test_texts_become_pieces_that_fit_and_end_with_the_end_token(tmp_path: Path) -> None:
    words = ["a stillroom keeps what it distils", "два", "short"]
    path = text_file(tmp_path / "text.jsonl", *({"text": text, "id": 3} for text in words), b"  ")
    for limits, fed in (({}, 16), ({"micro_batch_tokens": 9}, 9), ({"tokens": 5}, 5), ({"positions": 4}, 4)):
        pieces = read(path, **limits).pieces(TOKENIZER)
        assert pieces.predicted.max() == fed
        ids = [pieces.record(at).token_ids.tolist() for at in range(len(pieces.ends))]
        joined: list[list[int]] = []
        for piece in ids:
            # A piece goes on with the last token of the one before, unless a text ended there.
            ongoing = joined and joined[-1][-1] != EOS
            joined = [*joined[:-1], joined[-1] + piece[1:]] if ongoing else [*joined, piece]
        assert [TOKENIZER.decode(text[:-1]) for text in joined] == words
        assert {text[-1] for text in joined} == {EOS}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (
            [{"prompt": "x"}],
            " row 0: no field 'text', only 'prompt'; 1 of 1 rows cannot be used: correct or remove them",
        ),
        ([{"text": "x"}, {"text": " \n"}, {"text": None}], " row 1: empty; 2 of 3 rows cannot be used"),
        ([{"text": 7}], " row 0: not text but int; 1 of 1"),
        ([{"text": "x"}, b'{"text": "x'], " row 1: invalid JSON: "),
        ([{"text": "ends <|eos|>"}], " row 0: special token <|eos|> written as text; 1 of 1"),
        ([b" ", b""], "holds no row: put lines like"),
    ],
)
def test_a_file_with_rows_that_hold_no_text_is_refused(rows: list[object], reason: str, tmp_path: Path) -> None:
    path = text_file(tmp_path / "text.jsonl", *rows)
    with pytest.raises(DataError) as error:
        read(path)
    assert str(error.value).startswith(f"students.s.stages.0.pretrain.path={path}")
    assert reason in str(error.value) and "\n" not in str(error.value)


def test_texts_of_single_tokens_are_refused(tmp_path: Path) -> None:
    endless = byte_tokenizer()
    endless.eos_token = None
    with pytest.raises(DataError, match=r"none of the 2 texts has two tokens.*name another file in pretrain.path"):
        read(text_file(tmp_path / "text.jsonl", {"text": "a"}, {"text": "b"})).pieces(endless)


def test_a_stage_without_plain_text_reads_none() -> None:
    key = "students.s.stages.0.pretrain"
    found = read_plain_texts(stage(None), key=key, tokenizer=TOKENIZER, positions=16, micro_batch_tokens=64)
    assert found is None


def config(path: str) -> DistillConfig:
    return DistillConfig.model_validate(
        {
            "name": "checked",
            "teacher": {"model": {"hub": "a/b"}, "top_k": 16},
            "data": {split: {"hub": "a/b"} for split in ("train", "dev", "test")},
            "students": {
                "s": {"init": {"keep_layers": 1}, "stages": [stage(None).model_dump(), stage(path).model_dump()]}
            },
        }
    )


def test_its_path_is_looked_for_beside_the_configuration(tmp_path: Path) -> None:
    text_file(tmp_path / "text.jsonl", {"text": "x"})
    first, second = resolve_paths(config("text.jsonl"), config_dir=tmp_path).students["s"].stages
    assert first.pretrain is None
    assert second.pretrain is not None and second.pretrain.path == tmp_path / "text.jsonl"


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("gone.jsonl", ": gone.jsonl: found neither "),
        ("empty.jsonl", "=empty.jsonl is empty: put text in it or name another file"),
        ("folder", "=folder is not a file: name a .jsonl, .parquet, .csv or .conll file"),
    ],
)
def test_a_missing_or_empty_file_is_refused_with_its_key(name: str, reason: str, tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    (tmp_path / "folder").mkdir()
    with pytest.raises(ConfigError) as error:
        resolve_paths(config(name), config_dir=tmp_path)
    assert str(error.value).startswith(f"students.s.stages.1.pretrain.path{reason}")


def student(*stages: StageConfig, root: Path) -> Student:
    start = Start("start", root, SHAPE, "a start")
    texts = [None if each.pretrain is None else read(each.pretrain.path) for each in stages]
    learned = {"teacher-train": "d", "teacher-dev": "d"}
    return chain("s", stages=stages, plain=texts, start=start, learned=learned, vocab=9, artifacts=Artifacts(root))


def test_a_student_is_addressed_by_what_the_text_says_and_not_by_its_path(tmp_path: Path) -> None:
    one, same, other = (
        stage(text_file(tmp_path / f"{name}.jsonl", {"text": text}))
        for name, text in (("one", "say this"), ("same", "say this"), ("other", "say that"))
    )
    digests = [student(each, root=tmp_path).digest for each in (one, same, other, stage(None))]
    assert digests[0] == digests[1]
    assert len(set(digests)) == 3
    assert student(stage(None), one, root=tmp_path).digest != student(stage(None), other, root=tmp_path).digest
