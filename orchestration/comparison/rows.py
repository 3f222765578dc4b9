"""A row of the comparison, put together from what examinations keep of a model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

from safetensors import safe_open

from configs.model_files import weight_files
from evaluation.results import ModelResults
from orchestration.comparison.examination import Candidate, Finding
from orchestration.outputs.artifacts import Artifacts


def row_of(candidate: Candidate, findings: Sequence[Finding], *, failures: Sequence[str]) -> ModelResults:
    """Everything that is kept of a model; `failures` says what could not be measured now."""
    row = ModelResults(
        name=candidate.name,
        role=candidate.role,
        method=candidate.method,
        start=candidate.start,
        digest=candidate.digest,
        parameters=candidate.parameters,
        disk_bytes=bytes_on_disk(candidate.directory),
        closeness=None,
        exposure=None,
        answers=(),
        answer_tokens=(),
        tasks=(),
        serving=None,
        training=None,
        failures=tuple(failures),
    )
    for finding in findings:
        row = finding.add(row, candidate)
    return row


def bytes_on_disk(directory: Path) -> int:
    """What all files of a model take; links count as what they lead to."""
    return sum(path.stat().st_size for path in directory.rglob("*") if path.is_file())


def stored_parameters(directory: Path) -> int:
    """How many parameters the files of a model hold.

    Raises:
        ModelError: there are no weights.
    """
    found = 0
    for path in weight_files(directory):
        with safe_open(path, framework="numpy") as stored:
            names = stored.keys()  # it is no mapping
            found += sum(math.prod(stored.get_slice(name).get_shape()) for name in names)
    return found


def evidence_of(candidate: Candidate, findings: Sequence[Finding], *, artifacts: Artifacts) -> dict[str, str]:
    """Where what was measured of a model is kept, in words by digest."""
    found = {}
    for finding in findings:
        address = finding.address(candidate)
        if address is not None and artifacts.holds_evaluation(address):
            found[address] = f"what {finding.title} found of {candidate.name}"
    return found
