"""A row of the comparison, put together from what examinations keep, and its numbers under their names in MLflow."""

from __future__ import annotations

import math
from collections.abc import Sequence

from evaluation.closeness import length_ratio, measured
from evaluation.diversity import diversity
from evaluation.ratios import ratio_stderr
from evaluation.results import ModelResults, Spread
from orchestration.comparison.examination import Candidate, Examination
from orchestration.outputs.artifacts import Artifacts


def row_of(candidate: Candidate, examinations: Sequence[Examination], *, failures: Sequence[str]) -> ModelResults:
    """Everything that is kept of a model; `failures` says what could not be measured now."""
    row = ModelResults(
        name=candidate.name,
        role=candidate.role,
        method=candidate.method,
        start=candidate.start,
        digest=candidate.digest,
        parameters=candidate.parameters,
        disk_bytes=sum(path.stat().st_size for path in candidate.directory.rglob("*") if path.is_file()),
        closeness=None,
        exposure=None,
        answers=(),
        answer_tokens=(),
        tasks=(),
        serving=None,
        training=None,
        failures=tuple(failures),
    )
    for examination in examinations:
        row = examination.add(row, candidate)
    return row


def evidence_of(candidate: Candidate, examinations: Sequence[Examination], *, artifacts: Artifacts) -> dict[str, str]:
    """Where what was measured of a model is kept, in words by digest."""
    found = {}
    for examination in examinations:
        address = examination.address(candidate)
        if address is not None and artifacts.holds_evaluation(address):
            found[address] = f"what {examination.title} found of {candidate.name}"
    return found


def closeness_numbers(row: ModelResults) -> dict[str, float]:
    """The metrics of a model at the teacher's answers by name; without those that are undefined."""
    if row.closeness is None:
        return {}
    found = measured(row.closeness)
    numbers = {name: each.value for name, each in found.items()}
    if "forward_kl" in found:
        sums = found["forward_kl"].sums
        numbers["forward_kl_stderr"] = ratio_stderr(sums[:, 0], sums[:, 1])
    numbers["length_ratio"] = length_ratio(row.closeness)
    return {name: value for name, value in numbers.items() if not math.isnan(value)}


def tokens_per_s(row: ModelResults) -> Spread | None:
    """The speed of a warm engine with the most prompts at a time; None where it was not measured."""
    if row.serving is None or not row.serving.speeds:
        return None
    return max(row.serving.speeds, key=lambda speed: speed.batch).tokens_per_s


def metrics_of(row: ModelResults) -> dict[str, float]:
    """The numbers of a row under their names in MLflow."""
    speed = tokens_per_s(row)
    numbers = {**closeness_numbers(row), **diversity(row.answers), "tokens_per_s": speed.median if speed else math.nan}
    return {f"eval/test/{name}": value for name, value in numbers.items() if not math.isnan(value)} | {
        "eval/parameters": float(row.parameters)
    }
