"""One forward pass for all engines: computed once, kept by teacher and sequence, and made anew when it is damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from orchestration.cluster.reference import ReferenceJob, kept_reference
from teacher_server.reference import ReferenceRows

SEQUENCES = ((3, 4, 5, 6), (3, 4, 7))


def rows_of(sequence: tuple[int, ...]) -> ReferenceRows:
    return ReferenceRows(-np.arange(1, len(sequence), dtype=np.float32) / 8, np.asarray(sequence[1:], dtype=np.int32))


class Computing:
    """A forward pass that is counted."""

    def __init__(self) -> None:
        self.jobs: list[ReferenceJob] = []

    def __call__(self, job: ReferenceJob, *, report: Any) -> list[ReferenceRows]:
        self.jobs.append(job)
        report(1, 2)
        return [rows_of(sequence) for sequence in job.sequences]


def reference(folder: Path, sequences: tuple[tuple[int, ...], ...], compute: Computing, **changed: Any) -> list[Any]:
    arguments: dict[str, Any] = {
        "model_dir": Path("/model"), "dtype": "float32", "log_dir": folder, "report": lambda done, total: None,
    }  # fmt: skip
    return kept_reference(sequences, folder=folder, compute=compute, **(arguments | changed))


def test_what_was_computed_once_is_read_from_then_on(tmp_path: Path) -> None:
    compute = Computing()
    first = reference(tmp_path, SEQUENCES, compute)
    again = reference(tmp_path, SEQUENCES[::-1], compute)
    assert [job.sequences for job in compute.jobs] == [SEQUENCES]
    for kept, computed in zip(again[::-1], first, strict=True):
        assert kept.target_logprobs.tolist() == computed.target_logprobs.tolist()
        assert kept.best_ids.tolist() == computed.best_ids.tolist()


def test_only_what_is_new_is_computed_and_each_dtype_by_itself(tmp_path: Path) -> None:
    compute = Computing()
    reference(tmp_path, SEQUENCES[:1], compute)
    reference(tmp_path, (*SEQUENCES, SEQUENCES[1]), compute)
    reference(tmp_path, SEQUENCES[:1], compute, dtype="bfloat16")
    assert [job.sequences for job in compute.jobs] == [SEQUENCES[:1], SEQUENCES[1:], SEQUENCES[:1]]


@pytest.mark.parametrize("damage", [b"", b"PK", b"nonsense" * 9])
def test_what_is_damaged_is_computed_anew(damage: bytes, tmp_path: Path) -> None:
    compute = Computing()
    reference(tmp_path, SEQUENCES[:1], compute)
    (kept,) = tmp_path.glob("*.npz")
    whole = kept.read_bytes()
    kept.write_bytes(damage)
    reference(tmp_path, SEQUENCES[:1], compute)
    assert len(compute.jobs) == 2 and kept.read_bytes() == whole
    kept.write_bytes(whole[:-9])
    assert reference(tmp_path, SEQUENCES[:1], compute)[0].best_ids.tolist() == [4, 5, 6]


def test_rows_of_an_earlier_release_are_read_and_those_of_a_later_one_computed_anew(tmp_path: Path) -> None:
    compute = Computing()
    [rows] = reference(tmp_path, SEQUENCES[:1], compute)
    (kept,) = tmp_path.glob("*.npz")
    with np.load(kept) as stored:
        assert str(stored["schema"]) == "stillroom/reference/1"
    np.savez(kept, target_logprobs=rows.target_logprobs, best_ids=rows.best_ids)
    reference(tmp_path, SEQUENCES[:1], compute)
    assert len(compute.jobs) == 1
    np.savez(
        kept, schema=np.array("stillroom/reference/2"), target_logprobs=rows.target_logprobs, best_ids=rows.best_ids
    )
    reference(tmp_path, SEQUENCES[:1], compute)
    assert len(compute.jobs) == 2


def test_a_place_that_cannot_be_written_costs_only_the_keeping(tmp_path: Path) -> None:
    (tmp_path / "taken").touch()
    assert len(reference(tmp_path / "taken" / "below", SEQUENCES, Computing())) == 2
