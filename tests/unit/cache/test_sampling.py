from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from store_builders import OTHER_TEACHER, TEACHER, VOCAB, make_record, open_cache, teacher_dir

from cache.disk.local_storage import LocalStorage
from cache.disk.packing import pack_segment
from cache.disk.publishing import SegmentTerms, Staging
from cache.records import LARGEST_DRAWS, ScoreRequest, TeacherRecord, validate_record
from cache.sampling import check_key, check_kind, sample_rows, sampled_key
from cache.store import TeacherCache
from configs.errors import RecordError

WHOLE = make_record([3, 4, 5, 6, 7], prompt_len=2, k=VOCAB)
DRAWS = 16
GOOD = sample_rows(WHOLE, draws=DRAWS, seed=1)


def arrays(record: TeacherRecord) -> tuple[np.ndarray, np.ndarray]:
    assert record.topk_ids is not None and record.counts is not None
    return record.topk_ids, record.counts


def probabilities(record: TeacherRecord) -> np.ndarray:
    """The teacher's distribution at every position [S, V], in the order of the ids."""
    assert record.topk_ids is not None and record.topk_logprobs is not None
    by_id = np.empty(record.topk_logprobs.shape)
    np.put_along_axis(by_id, record.topk_ids.astype(np.int64), np.exp(record.topk_logprobs.astype(np.float64)), axis=1)
    return by_id / by_id.sum(axis=1, keepdims=True)


def estimate(record: TeacherRecord) -> np.ndarray:
    """counts / N at every position [S, V], in the order of the ids."""
    ids, counts = arrays(record)
    by_id = np.zeros((len(ids), VOCAB))
    for row in range(len(ids)):
        by_id[row, ids[row][counts[row] > 0]] = counts[row][counts[row] > 0]
    return by_id / record.draws


def store(root: Path, records: Sequence[TeacherRecord], *, encoding: str = "sampled") -> TeacherCache:
    open_cache(root)
    packed = pack_segment(records, generations=[], encoding=encoding, vocab=VOCAB)
    terms = SegmentTerms(identity=TEACHER.digest(), vocab=VOCAB, provenance={}, licence=None)
    staging = Staging(LocalStorage(teacher_dir(root)))
    staging.publish(packed, terms)
    staging.drop()
    return open_cache(root)


def assert_same_draws(stored: TeacherRecord | None, original: TeacherRecord) -> None:
    assert stored is not None
    for item in dataclasses.fields(TeacherRecord):
        mine, theirs = getattr(stored, item.name), getattr(original, item.name)
        if isinstance(theirs, np.ndarray):
            np.testing.assert_array_equal(mine, theirs)
            assert mine.dtype == theirs.dtype
        else:
            assert mine == theirs


def test_a_record_of_draws_keeps_the_rules_it_is_made_by() -> None:
    ids, counts = arrays(GOOD)
    validate_record(GOOD, vocab=VOCAB)
    check_key(GOOD, identity_digest=TEACHER.digest())
    assert (GOOD.draws, GOOD.k) == (DRAWS, ids.shape[1])
    assert (counts.sum(axis=1) == DRAWS).all()
    assert (counts > 0).any(axis=0).all(), "as wide as the widest row and no wider"
    assert GOOD.topk_logprobs is None and GOOD.tail_logmass is None
    np.testing.assert_array_equal(GOOD.target_logprobs, WHOLE.target_logprobs)
    np.testing.assert_array_equal(GOOD.target_ranks, WHOLE.target_ranks)


def test_draws_follow_from_the_sequence_the_number_and_the_seed_alone() -> None:
    assert_same_draws(sample_rows(WHOLE, draws=DRAWS, seed=1), GOOD)
    others = [
        sample_rows(WHOLE, draws=DRAWS, seed=2),
        sample_rows(WHOLE, draws=DRAWS + 1, seed=1),
        sample_rows(make_record([3, 4, 5, 6, 8], prompt_len=2, k=VOCAB), draws=DRAWS, seed=1),
    ]
    assert len({GOOD.key, WHOLE.key, *(other.key for other in others)}) == 5
    assert not np.array_equal(estimate(others[0]), estimate(GOOD))


def test_draws_are_the_same_with_every_version_of_numpy() -> None:
    assert sampled_key(bytes(32), draws=50, seed=7).hex() == (
        "ec7beffbd2294f44ce0010ce86556f7857e6b5430aa54a38cfa92193dc048e2f"
    )
    harmonic = 1 / np.arange(1, VOCAB + 1)
    logprobs = np.tile(np.log(harmonic / harmonic.sum()).astype(np.float32), (3, 1))
    record = dataclasses.replace(
        WHOLE, key=bytes(32), topk_ids=np.tile(np.arange(VOCAB, dtype=np.int32), (3, 1)), topk_logprobs=logprobs
    )
    ids, counts = arrays(sample_rows(record, draws=4, seed=0))
    assert ids.tolist() == [[0, 2, 4, 22], [0, 1, 19, -1], [1, 6, 33, -1]]
    assert counts.tolist() == [[1, 1, 1, 1], [2, 1, 1, 0], [2, 1, 1, 0]]


def test_counts_are_an_unbiased_estimate_of_every_probability() -> None:
    rounds, draws = 300, 40
    true = probabilities(WHOLE)
    mean = np.mean([estimate(sample_rows(WHOLE, draws=draws, seed=seed)) for seed in range(rounds)], axis=0)
    error = np.sqrt(true * (1 - true) / (rounds * draws))
    # The last term stands for ids so rare that their count is no bell curve.
    assert (np.abs(mean - true) < 4 * error + 2 / (rounds * draws)).all()


def test_the_gradient_of_the_forward_kl_is_unbiased_and_that_of_the_best_k_is_not() -> None:
    rounds, draws = 300, 40
    true = probabilities(WHOLE)
    rng = np.random.default_rng(3)
    student = np.exp(rng.normal(size=true.shape))
    student /= student.sum(axis=1, keepdims=True)
    direction = rng.normal(size=true.shape) + 3 * (true < np.sort(true)[:, [-6]])

    def slope(target: np.ndarray) -> float:
        """How the cross-entropy against `target` changes when the student's logits move in one direction."""
        return float(((student * target.sum(axis=1, keepdims=True) - target) * direction).sum())

    slopes = [slope(estimate(sample_rows(WHOLE, draws=draws, seed=seed))) for seed in range(rounds)]
    error = float(np.std(slopes, ddof=1)) / rounds**0.5
    assert abs(np.mean(slopes) - slope(true)) < 4 * error
    best = np.where(true >= np.sort(true)[:, [-6]], true, 0.0)
    assert abs(slope(best / best.sum(axis=1, keepdims=True)) - slope(true)) > 4 * error


def test_ids_that_the_teacher_rules_out_are_never_drawn() -> None:
    logprobs = np.full((3, VOCAB), -np.inf, dtype=np.float32)
    logprobs[:, :2] = np.log([0.75, 0.25])
    record = dataclasses.replace(WHOLE, topk_logprobs=logprobs)
    ids, counts = arrays(sample_rows(record, draws=200, seed=0))
    assert ids.shape == (3, 2)
    np.testing.assert_array_equal(np.sort(ids, axis=1), np.sort(WHOLE.topk_ids[:, :2], axis=1))  # type: ignore[index]
    assert (counts[:, 0] > 120).all()


def test_draws_come_back_as_they_were(tmp_path: Path) -> None:
    wholes = [make_record([3, at, 5, *range(6, 6 + at)], prompt_len=2, k=VOCAB) for at in range(4, 12)]
    records = [sample_rows(whole, draws=DRAWS, seed=5) for whole in wholes]
    assert len({record.k for record in records}) > 1, "rows of several widths share a segment"
    cache = store(tmp_path, records)
    for found, original in zip(cache.get_many([record.key for record in records]), records, strict=True):
        assert_same_draws(found, original)
    view = cache.view([record.key for record in records], dataset="d", k=1)
    (block,) = cache.iter_blocks(view, [np.array([5, 0, 5])])
    for found, at in zip(block, [5, 0, 5], strict=True):
        assert_same_draws(found, records[at])
    assert cache.verify() == []


def test_a_writer_takes_one_kind_and_no_draws_as_an_answer(tmp_path: Path) -> None:
    cache = open_cache(tmp_path)
    wide = sample_rows(make_record([3, 9, 8, 7], prompt_len=2, k=VOCAB), draws=40, seed=0)
    with cache.writer(vocab=VOCAB, encoding="sampled") as writer:
        for refused in (WHOLE, make_record([3, 4], prompt_len=1, k=0)):
            with pytest.raises(RecordError, match="writer of its own"):
                writer.add(refused)
        with pytest.raises(RecordError, match="draws answer no generation"):
            writer.add(GOOD, generation_key=bytes(32))
        with pytest.raises(RecordError, match="draws and seed"):
            writer.add(dataclasses.replace(GOOD, sampling_seed=9))
        writer.add(GOOD)
        writer.add(wide)
    with pytest.raises(RecordError, match="writer of its own"):
        cache.put([GOOD], vocab=VOCAB)
    assert cache.stats().records == 2
    for found, original in zip(open_cache(tmp_path).get_many([wide.key, GOOD.key]), (wide, GOOD), strict=True):
        assert_same_draws(found, original)


def test_a_request_for_log_probabilities_is_never_answered_by_draws(tmp_path: Path) -> None:
    cache = store(tmp_path, [GOOD])
    request = ScoreRequest(tuple(WHOLE.token_ids.tolist()), WHOLE.prompt_len)
    for k in (0, 1, 4, VOCAB):
        assert cache.lookup([request], k=k) == [None]
        assert cache.missing([request], k=k).score == ((0, request),)
    assert cache.get_many([WHOLE.key]) == [None]
    both = store(tmp_path, [WHOLE], encoding="full")
    assert both.lookup([request], k=VOCAB) == [WHOLE.key]
    stored, drawn = both.get_many([WHOLE.key, GOOD.key])
    assert stored is not None and stored.counts is None and stored.draws == 0
    np.testing.assert_array_equal(stored.topk_logprobs, WHOLE.topk_logprobs)
    assert_same_draws(drawn, GOOD)


def test_draws_and_log_probabilities_are_read_side_by_side(tmp_path: Path) -> None:
    store(tmp_path, [GOOD])
    cache = store(tmp_path, [WHOLE], encoding="full")
    whole, drawn = cache.get_many([WHOLE.key, GOOD.key], k=2)
    assert whole is not None and (whole.k, whole.counts) == (2, None)
    assert_same_draws(drawn, GOOD)


def test_what_cannot_be_drawn_from() -> None:
    refused: list[tuple[str, Callable[[], TeacherRecord]]] = [
        ("less than the vocabulary", lambda: sample_rows(make_record([3, 4, 5], prompt_len=2), draws=4, seed=0)),
        ("no log-prob", lambda: sample_rows(make_record([3, 4, 5], prompt_len=2, k=0), draws=4, seed=0)),
        ("no log-prob", lambda: sample_rows(GOOD, draws=4, seed=0)),
        ("no response", lambda: sample_rows(make_record([3, 4], prompt_len=2, k=VOCAB), draws=4, seed=0)),
        ("draws=0", lambda: sample_rows(WHOLE, draws=0, seed=0)),
        ("draws=65535", lambda: sample_rows(WHOLE, draws=LARGEST_DRAWS + 1, seed=0)),
        ("seed=-1", lambda: sample_rows(WHOLE, draws=4, seed=-1)),
        ("seed=9223372036854775808", lambda: sample_rows(WHOLE, draws=4, seed=2**63)),
    ]
    for reason, make in refused:
        with pytest.raises(RecordError, match=reason):
            make()


def changed(name: str, edit: Callable[[np.ndarray], None]) -> TeacherRecord:
    array = getattr(GOOD, name).copy()
    edit(array)
    return dataclasses.replace(GOOD, **{name: array})


def one_more(array: np.ndarray) -> None:
    array[0, 0] += 1


BROKEN: dict[str, Callable[[], TeacherRecord]] = {
    "all rows have the same number": lambda: changed("counts", one_more),
    "count above 0": lambda: changed("topk_ids", lambda array: array[:, -1].fill(-1)),
    "not in order": lambda: tied(),
    "twice": lambda: dataclasses.replace(GOOD, **doubled()),
    "has ids, counts": lambda: dataclasses.replace(GOOD, target_ranks=None),
    "no top-k log-prob": lambda: dataclasses.replace(GOOD, tail_logmass=WHOLE.tail_logmass),
    "names the sequence": lambda: dataclasses.replace(GOOD, sampled_from=None),
    "sampling_seed=None": lambda: dataclasses.replace(GOOD, sampling_seed=None),
    "for 4 response": lambda: dataclasses.replace(GOOD, prompt_len=1),
    "rank below 1": lambda: changed("target_ranks", lambda array: array.fill(0)),
    "outside the vocabulary": lambda: dataclasses.replace(GOOD, **single(VOCAB)),
    "are empty": lambda: dataclasses.replace(
        GOOD, topk_ids=np.empty((3, 0), np.int32), counts=np.empty((3, 0), np.int32)
    ),
    "has no counts": lambda: dataclasses.replace(WHOLE, sampling_seed=3),
}


def tied() -> TeacherRecord:
    """Two ids drawn equally often, the larger first."""
    return dataclasses.replace(
        GOOD,
        topk_ids=np.tile(np.array([9, 8], dtype=np.int32), (3, 1)),
        counts=np.full((3, 2), DRAWS // 2, dtype=np.int32),
    )


def doubled() -> dict[str, np.ndarray]:
    return {
        "topk_ids": np.tile(np.array([9, 9], dtype=np.int32), (3, 1)),
        "counts": np.tile(np.array([DRAWS - 1, 1], dtype=np.int32), (3, 1)),
    }


def single(token: int) -> dict[str, np.ndarray]:
    return {
        "topk_ids": np.full((3, 1), token, dtype=np.int32),
        "counts": np.full((3, 1), DRAWS, dtype=np.int32),
    }


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_named(rule: str) -> None:
    with pytest.raises(RecordError, match=rule):
        validate_record(BROKEN[rule](), vocab=VOCAB)


def test_the_key_ties_the_draws_to_their_sequence_and_teacher() -> None:
    check_key(WHOLE, identity_digest=TEACHER.digest())
    wrong = [
        (WHOLE, OTHER_TEACHER, "tokens and teacher"),
        (GOOD, OTHER_TEACHER, "another sequence or teacher"),
        (dataclasses.replace(GOOD, sampled_from=bytes(32)), TEACHER, "another sequence"),
        (dataclasses.replace(GOOD, sampling_seed=2), TEACHER, "draws and seed"),
        (dataclasses.replace(GOOD, **single(3), key=WHOLE.key), TEACHER, "draws and seed"),
    ]
    for record, teacher, reason in wrong:
        with pytest.raises(RecordError, match=reason):
            check_key(record, identity_digest=teacher.digest())


def test_a_segment_holds_draws_or_log_probabilities() -> None:
    check_kind(GOOD, encoding="sampled")
    check_kind(WHOLE, encoding="topk-u8")
    check_kind(make_record([3, 4], prompt_len=1, k=0), encoding="topk-f16")
    for record, encoding in (
        (GOOD, "topk-u8"),
        (WHOLE, "sampled"),
        (make_record([3, 4], prompt_len=1, k=0), "sampled"),
    ):
        with pytest.raises(RecordError, match="writer of its own"):
            check_kind(record, encoding=encoding)
