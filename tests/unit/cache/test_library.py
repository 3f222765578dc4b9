"""The sound segments of a teacher, as they come and go."""

from __future__ import annotations

from pathlib import Path

import pytest
from store_builders import (
    OTHER_TEACHER,
    VOCAB,
    answer,
    assert_same_text,
    make_record,
    make_request,
    open_cache,
    teacher_dir,
)

from configs.errors import CacheError

PROMPTS = [[3, 4, number] for number in range(5, 15)]


def test_a_manifest_moved_to_another_teacher_is_refused(tmp_path: Path) -> None:
    open_cache(tmp_path).put([make_record([3, 4, 5], prompt_len=1)], vocab=VOCAB)
    open_cache(tmp_path, identity=OTHER_TEACHER)
    (manifest,) = (teacher_dir(tmp_path) / "manifests").glob("*.json")
    (teacher_dir(tmp_path, identity=OTHER_TEACHER) / "manifests" / manifest.name).write_bytes(manifest.read_bytes())
    with pytest.raises(CacheError, match="belongs to teacher"):
        open_cache(tmp_path, identity=OTHER_TEACHER)


def test_commits_of_others_are_seen_after_refresh(tmp_path: Path) -> None:
    reader, writer = open_cache(tmp_path), open_cache(tmp_path)
    record, request = answer(make_request(PROMPTS[0]))
    writer.put([(record, request)], vocab=VOCAB)
    assert reader.lookup([request]) == [None]
    reader.refresh()
    assert reader.lookup([request]) == [record.key]


def test_blocks_do_not_alias_the_cache(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    record = make_record([3, 4, 5, 6], prompt_len=2)
    cache.put([record], vocab=VOCAB)
    (first,) = cache.get_many([record.key])
    assert first is not None and first.topk_ids is not None
    first.topk_ids[:] = 0
    first.token_ids[:] = 0
    assert_same_text(cache.get_many([record.key])[0], record)
