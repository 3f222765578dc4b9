"""What lies in the two directories of a stage: weights, rollouts and meetings, each whole or not there."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from student_builders import VOCAB, record
from training_jobs import IDENTITY, keyed

from cache.store import TeacherCache
from configs.errors import EngineError, TrainingError
from student_train.handoff.rollouts import Rollout, RolloutExchange, minibatches

BEHAVIOUR = np.array([-0.5, -1.5, -2.5, -3.5], dtype=np.float32)


def rollout_of(folder: Path, *, number: int = 3, behaviour: np.ndarray | None = None) -> Rollout:
    """Two rows of one and three response tokens; the second was sampled twice."""
    rows = [keyed(record(1, response=1)), keyed(record(2, response=3))]
    cache = TeacherCache.open(folder / "cache", IDENTITY)
    cache.put(rows, vocab=VOCAB)
    return Rollout(
        number=number,
        version=number - 1,
        view=cache.view([row.key for row in rows], dataset="rollout", k=8),
        samples=np.array([0, 1, 1]),
        drawn_by_teacher=np.array([True, False, False, True]),
        engine_logprobs=np.array([np.nan, -1.0, -2.0, np.nan], dtype=np.float32),
        metrics={"rollout/scoring_passes": 1.0},
        behaviour_logprobs=behaviour,
    )


@pytest.mark.parametrize("behaviour", [None, BEHAVIOUR], ids=["own", "of another training"])
def test_a_committed_rollout_reads_back_the_same(behaviour: np.ndarray | None, tmp_path: Path) -> None:
    exchange, rollout = RolloutExchange(tmp_path / "work"), rollout_of(tmp_path, behaviour=behaviour)
    assert not exchange.has_rollout(3)
    exchange.commit(rollout)
    assert exchange.has_rollout(3) and not exchange.has_rollout(2)
    found = exchange.rollout(3)
    assert (found.number, found.version, found.metrics) == (3, 2, {"rollout/scoring_passes": 1.0})
    assert found.view.digest == rollout.view.digest
    for name in ("samples", "drawn_by_teacher", "engine_logprobs"):
        np.testing.assert_array_equal(getattr(found, name), getattr(rollout, name))
    if behaviour is None:
        assert found.behaviour_logprobs is None
    else:
        np.testing.assert_array_equal(found.behaviour_logprobs, behaviour)


def test_what_was_learned_from_has_one_digest_wherever_it_lies(tmp_path: Path) -> None:
    digests = []
    for number, behaviour in enumerate((BEHAVIOUR, BEHAVIOUR, BEHAVIOUR + 1)):
        exchange = RolloutExchange(tmp_path / str(number))
        exchange.commit(rollout_of(tmp_path, number=0))
        exchange.keep_behaviour(0, behaviour)
        digests.append(exchange.digest(1))
    assert digests[0] == digests[1] != digests[2]


def test_behaviour_that_was_never_kept_is_named(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"behaviour-004\.npz is missing: rollout 4 cannot be learned from"):
        RolloutExchange(tmp_path).read_behaviour(4)


def test_cleaning_removes_what_is_unfinished_on_its_own_side_alone(tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path / "work")
    exchange.keep_behaviour(0, BEHAVIOUR)
    exchange.commit(rollout_of(tmp_path, number=0))
    kept = sorted((tmp_path / "work").rglob("*"))
    for side in ("policies", "rollouts"):
        (tmp_path / "work" / side / ".staging-rollout-001-abc").mkdir()
        (tmp_path / "work" / side / ".behaviour-001.npz.abc.tmp").touch()
    exchange.clean(side="policies")
    assert os.listdir(tmp_path / "work/policies") == ["behaviour-000.npz"]
    assert len(os.listdir(tmp_path / "work/rollouts")) == 3
    exchange.clean(side="rollouts")
    assert sorted((tmp_path / "work").rglob("*")) == kept


def test_a_pass_takes_every_sequence_once_in_an_order_of_its_own(tmp_path: Path) -> None:
    rollout = rollout_of(tmp_path)
    passes = [minibatches(rollout, seed=0, epoch=epoch, parts=2) for epoch in range(8)]
    for parts in passes:
        assert [len(part) for part in parts] == [2, 1]
        assert sorted(np.concatenate(parts).tolist()) == [0, 1, 1]
    assert len({tuple(np.concatenate(parts).tolist()) for parts in passes}) > 1
    again = minibatches(rollout, seed=0, epoch=0, parts=2)
    assert [part.tolist() for part in again] == [part.tolist() for part in passes[0]]


@pytest.mark.parametrize("first", [8, 98, 997, 9_998])
def test_new_weights_stay_where_a_number_gets_one_digit_more(first: int, tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path)
    for version in range(first, first + 5):
        exchange.publish(version, write=lambda folder: (folder / "weights").touch())
        # The one before may be loaded just now; those before it are gone.
        shown = [each for each in range(first, version + 1) if exchange.has_policy(each)]
        assert shown == [each for each in (version - 1, version) if each >= first]
    exchange.withdraw_policies()
    assert list((tmp_path / "policies").iterdir()) == []


@pytest.mark.parametrize("damage", ["cut", "flipped", "empty", "not an archive", "without the array", "a folder"])
def test_a_damaged_file_of_a_rollout_is_named(damage: str, tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path)
    exchange.keep_behaviour(7, np.arange(500, dtype=np.float32))
    path = exchange.behaviour(7)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    {
        "cut": lambda: path.write_bytes(content[:900]),
        "flipped": lambda: path.write_bytes(content),
        "empty": lambda: path.write_bytes(b""),
        "not an archive": lambda: path.write_bytes(b"[" * 4000),
        "without the array": lambda: np.savez(path, other=np.zeros(1)),
        "a folder": lambda: (path.unlink(), path.mkdir()),
    }[damage]()
    with pytest.raises(TrainingError, match=r"behaviour-007\.npz is damaged \("):
        exchange.read_behaviour(7)


def test_a_meeting_that_failed_is_not_held(tmp_path: Path) -> None:
    exchange = RolloutExchange(tmp_path)
    with pytest.raises(EngineError), exchange.meeting(1, receivers=1):
        raise EngineError("it died")
    assert exchange.meetings(1) == []
