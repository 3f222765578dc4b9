"""What is written down of a student and of a run is read back as it was, and as nothing else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from orchestration.lineage.records import (
    FILE,
    Foundation,
    from_summary,
    lineage_of,
    read_foundation,
    to_summary,
    write_foundation,
)
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.kept import OutdatedError, sealed


def test_places_below_the_run_root_are_seen_from_there(tmp_path: Path) -> None:
    run = tmp_path / "runs" / "e-1"
    lineage = lineage_of(
        run=run,
        run_root=tmp_path / "runs",
        start=tmp_path / "models" / "own",
        start_model="ab" * 32,
        learned={run / "views" / "train.npz": "cd" * 32},
    )
    assert (lineage.run, lineage.start) == ("e-1", str(tmp_path / "models" / "own"))
    assert lineage.learned == {"views/train.npz": "cd" * 32}
    assert from_summary(json.loads(json.dumps(to_summary(lineage, made_of={"start": "x"})))) == lineage


@pytest.mark.parametrize("raw", ["text", {"run": "e-1"}])
def test_a_lineage_of_other_fields_is_refused(raw: object) -> None:
    with pytest.raises(ValueError, match=r"lineage is not of its type|missing or unknown"):
        from_summary({"lineage": raw})
    assert from_summary({}) is None


def test_a_foundation_is_read_back_or_refused(tmp_path: Path) -> None:
    assert read_foundation(tmp_path) is None
    kept = Foundation("ab" * 32, {"data.train.path": "cd" * 32})
    write_foundation(kept, tmp_path, experiment="ef" * 32)
    assert read_foundation(tmp_path) == kept
    write_json(tmp_path / FILE, sealed("stillroom/foundation/1", "ef" * 32, {"config": 3}))
    with pytest.raises(OutdatedError, match="does not say what a run rests on"):
        read_foundation(tmp_path)
