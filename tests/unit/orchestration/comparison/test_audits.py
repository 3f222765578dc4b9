"""An audit is read back as it was written; what is damaged, older or made from something else is told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from evaluation.side_effects.findings import Audit, Audited, Finding, unknown
from evaluation.statistics import Estimate
from evaluation.statistics.intervals import Interval
from orchestration.comparison.audits import AUDIT as AUDIT_SCHEMA
from orchestration.comparison.audits import audit_path, read_audit, read_audits, write_audit
from orchestration.outputs.artifacts import write_json
from orchestration.outputs.kept import OutdatedError, sealed

AUC = Estimate(0.61, Interval(0.52, 0.7, "bca", 0.0), 80)
FINDING = Finding("privacy", "membership: loss", "kd", "kd", AUC, AUC, None, AUC, "fraction", "0.5 is a guess", None)
NOTHING = unknown(
    audit="privacy", instrument="overlap", model="kd", method="kd", unit="fraction", meaning="m", why="no rows"
)
AUDIT = Audit("privacy", {"model of kd": "ab" * 32}, (FINDING, NOTHING), ("a note",))


def test_it_is_read_back_the_same(tmp_path: Path) -> None:
    assert read_audit(tmp_path, "privacy") is None
    path = write_audit(AUDIT, tmp_path)
    assert path == audit_path(tmp_path, "privacy") == tmp_path / "audits" / "privacy.json"
    found = read_audit(tmp_path, "privacy", rests_on=AUDIT.rests_on)
    # NaN is not equal to itself, and its text is.
    assert repr(found) == repr(AUDIT)
    assert repr(read_audits(tmp_path)) == repr(Audited({"privacy": AUDIT}))


def test_one_that_was_made_from_other_weights_is_not_used_again(tmp_path: Path) -> None:
    write_audit(AUDIT, tmp_path)
    with pytest.raises(OutdatedError, match="belongs to"):
        read_audit(tmp_path, "privacy", rests_on={"model of kd": "cd" * 32})


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda raw: raw | {"schema": "stillroom/audit/0"}, "written by another version"),
        (lambda raw: raw | {"notes": []}, "edited or damaged"),
        (lambda raw: [raw], "not a JSON object"),
    ],
)
def test_what_cannot_be_read_is_told_and_hides_nothing_else(tmp_path: Path, change: object, said: str) -> None:
    path = write_audit(AUDIT, tmp_path)
    write_audit(Audit("bias", {}, (), ()), tmp_path)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))  # type: ignore[operator]
    with pytest.raises(OutdatedError, match=said):
        read_audit(tmp_path, "privacy")
    found = read_audits(tmp_path)
    assert list(found.audits) == ["bias"]
    assert len(found.unreadable) == 1 and said in found.unreadable[0] and "audit the run again" in found.unreadable[0]


def test_a_sealed_file_of_other_fields_or_another_name_is_no_audit(tmp_path: Path) -> None:
    raw = json.loads(write_audit(AUDIT, tmp_path).read_text())
    digest = raw.pop("digest")
    raw["findings"][0]["value"]["interval"]["method"] = "guess"
    fields = {name: value for name, value in raw.items() if name not in ("schema", "sha256")}
    write_json(audit_path(tmp_path, "privacy"), sealed(AUDIT_SCHEMA, digest, fields))
    with pytest.raises(OutdatedError, match=r"findings\.0\.value\.interval\.method is not of its type"):
        read_audit(tmp_path, "privacy")
    audit_path(tmp_path, "bias").write_bytes(write_audit(AUDIT, tmp_path).read_bytes())
    with pytest.raises(OutdatedError, match="is the audit privacy"):
        read_audit(tmp_path, "bias")
