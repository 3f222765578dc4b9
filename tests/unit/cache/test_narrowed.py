"""The same answers behind the prompts of a student that was shown less."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from narrowed_builders import narrowed_view, shorter_prompts
from training_jobs import IDENTITY, make_job

from cache.narrowed import NarrowedCache, NarrowedView
from cache.store import TeacherCache
from cache.views import CacheView
from configs.errors import CacheError
from student_train.job import TrainJob


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> TrainJob:
    return make_job(tmp_path_factory.mktemp("job"))


@pytest.fixture(scope="module")
def cache(job: TrainJob) -> TeacherCache:
    return TeacherCache.open(job.cache_root, IDENTITY)


@pytest.fixture(scope="module")
def wide(job: TrainJob) -> CacheView:
    return CacheView.load(job.train_view)


@pytest.fixture(scope="module")
def narrow(job: TrainJob) -> NarrowedView:
    return narrowed_view(job, job.train_view)


def test_what_was_believed_stands_at_the_same_tokens_behind_another_prompt(
    cache: TeacherCache, wide: CacheView, narrow: NarrowedView
) -> None:
    prompts = shorter_prompts(wide, cache=cache)
    rows = [np.array([5, 0, 11]), np.array([], dtype=np.int64), np.array([3])]
    told = list(cache.iter_blocks(wide, rows))
    read = list(NarrowedCache(cache, [narrow]).iter_blocks(narrow.rows, rows, prefetch=2))
    assert [len(block) for block in read] == [3, 0, 1]
    for block, block_told in zip(read, told, strict=True):
        for ours, theirs in zip(block, block_told, strict=True):
            asked = tuple(theirs.token_ids[: theirs.prompt_len].tolist())
            assert tuple(ours.token_ids[: ours.prompt_len].tolist()) == prompts[asked] != asked
            assert np.array_equal(ours.response_ids, theirs.response_ids) and ours.key == theirs.key
            for name in ("topk_ids", "topk_logprobs", "tail_logmass", "target_logprobs"):
                assert np.array_equal(getattr(ours, name), getattr(theirs, name))


def test_what_stands_for_it_has_the_lengths_of_the_student(narrow: NarrowedView, wide: CacheView) -> None:
    answers = np.asarray(wide.lengths) - np.asarray(wide.prompt_len)
    assert np.array_equal(np.asarray(narrow.rows.lengths) - np.asarray(narrow.rows.prompt_len), answers)
    assert narrow.rows.response_tokens == wide.response_tokens
    assert not np.array_equal(narrow.rows.prompt_len, wide.prompt_len)
    assert np.array_equal(narrow.rows.keys, wide.keys)


def test_the_cache_reads_no_row_of_the_teachers_by_lengths_of_the_student(
    cache: TeacherCache, narrow: NarrowedView
) -> None:
    with pytest.raises(CacheError):
        list(cache.iter_blocks(narrow.rows, [np.array([0])]))


def test_its_name_is_over_what_the_teacher_saw_and_over_what_the_student_reads(narrow: NarrowedView) -> None:
    other_prompt = narrow.token_ids.copy()
    other_prompt[0] += 1
    changed = [
        replace(narrow, token_ids=other_prompt),
        replace(narrow, view=replace(narrow.view, dataset="another")),
    ]
    digests = {narrow.rows.digest, narrow.view.digest, *(each.rows.digest for each in changed)}
    assert len(digests) == 4


def test_views_that_were_not_narrowed_are_read_as_they_are(
    cache: TeacherCache, wide: CacheView, narrow: NarrowedView
) -> None:
    ((ours,),) = NarrowedCache(cache, [narrow]).iter_blocks(wide, [np.array([4])])
    ((theirs,),) = cache.iter_blocks(wide, [np.array([4])])
    assert np.array_equal(ours.token_ids, theirs.token_ids) and ours.prompt_len == theirs.prompt_len


def test_an_answer_that_differs_in_one_token_is_refused(cache: TeacherCache, narrow: NarrowedView) -> None:
    shifted = narrow.token_ids.copy()
    last = int(narrow.token_offsets[5]) - 1
    shifted[last] = shifted[last] + 1
    broken = replace(narrow, token_ids=shifted)
    reader = NarrowedCache(cache, [broken])
    assert len(list(reader.iter_blocks(broken.rows, [np.array([3, 5])]))) == 1
    with pytest.raises(CacheError, match="train: the answer of row 4 is not the one that was narrowed: run the fill"):
        list(reader.iter_blocks(broken.rows, [np.array([3, 4])]))


def test_answers_of_other_lengths_are_refused(narrow: NarrowedView) -> None:
    prompts = narrow.prompt_len.copy()
    prompts[2] += 1
    with pytest.raises(CacheError, match="train cannot be narrowed: answers are not as long as the teacher's"):
        replace(narrow, prompt_len=prompts)
    with pytest.raises(CacheError, match="train cannot be narrowed: its offsets or prompts are not those of rows"):
        replace(narrow, token_ids=narrow.token_ids[:-1])


def test_a_prompt_that_nobody_has_is_refused(cache: TeacherCache, wide: CacheView) -> None:
    prompts = shorter_prompts(wide, cache=cache)
    del prompts[next(iter(prompts))]
    with pytest.raises(CacheError, match="what the teacher saw in one row is none of ours"):
        NarrowedView.of(wide, cache=cache, prompts=prompts)


def test_it_comes_back_as_it_was_saved(narrow: NarrowedView, tmp_path: Path) -> None:
    path = tmp_path / "views" / "train.narrowed"
    narrow.save(path)
    again = NarrowedView.load(path)
    assert again.rows.digest == narrow.rows.digest
    assert np.array_equal(again.token_ids, narrow.token_ids) and again.view.digest == narrow.view.digest


def test_what_is_damaged_or_not_there_is_said_in_one_line(narrow: NarrowedView, tmp_path: Path) -> None:
    path = tmp_path / "train.narrowed"
    with pytest.raises(CacheError, match=r"no narrowed view can be read there .*: run the fill again"):
        NarrowedView.load(path)
    narrow.save(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:-40])
    with pytest.raises(CacheError, match=r"no narrowed view can be read there"):
        NarrowedView.load(path)
    at = whole.index(narrow.rows.digest.encode())
    other = b"0" if whole[at : at + 1] != b"0" else b"1"
    path.write_bytes(whole[:at] + other + whole[at + 1 :])
    with pytest.raises(CacheError, match="differs from its digest: delete it and run again"):
        NarrowedView.load(path)
