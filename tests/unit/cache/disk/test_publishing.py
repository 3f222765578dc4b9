"""What is published can be read by anybody."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import zarr
from store_builders import (
    STOP,
    VOCAB,
    make_record,
    open_cache,
    teacher_dir,
)

from cache.records import TeacherRecord

PROMPTS = [[3, 4, number] for number in range(5, 15)]


def scored(record: TeacherRecord) -> tuple[np.ndarray, np.ndarray]:
    assert record.topk_ids is not None and record.topk_logprobs is not None
    return record.topk_ids, record.topk_logprobs


def test_the_segment_is_plain_zarr(tmp_path: Path) -> None:
    records = [make_record([*prompt, 7, STOP], prompt_len=3) for prompt in PROMPTS]
    report = open_cache(tmp_path).put(records, vocab=VOCAB)
    assert report is not None
    segment = teacher_dir(tmp_path) / "segments" / report.uuid
    group: Any = zarr.open_group(segment, mode="r")
    np.testing.assert_array_equal(group["token_ids"][:], np.concatenate([record.token_ids for record in records]))
    np.testing.assert_array_equal(group["topk_ids"][:], np.concatenate([scored(record)[0] for record in records]))
    np.testing.assert_array_equal(group["row_offsets"][:], np.arange(0, 21, 2))
    steps = np.cumsum(group["topk_dq"][:].astype(np.int64), axis=1)
    logprobs = group["top1_logprob"][:][:, None] - steps / 16
    np.testing.assert_allclose(logprobs, np.concatenate([scored(record)[1] for record in records]), atol=0.035)
    described = json.loads((segment / "topk_ids" / "zarr.json").read_text())
    codecs = described["codecs"][0]["configuration"]["codecs"]
    assert [codec["name"] for codec in codecs] == ["bytes", "blosc", "crc32c"]
