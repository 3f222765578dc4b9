"""The report of finished runs as files, and what MLflow is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from cache.disk.durable import replace_file
from configs.places import PAGE
from evaluation.qualities import qualities
from evaluation.report.contents import contents, title_of
from evaluation.report.markdown import markdown_of, note_of
from evaluation.report.page import page_of
from evaluation.results import ModelResults, RunResults
from evaluation.shipping import distils_a_task
from evaluation.side_effects.findings import Audited
from orchestration.comparison.audits import read_audits
from orchestration.comparison.numbers import tracked_name
from orchestration.tracking.tracker import TrackedModel, Tracker

MARKDOWN = "report.md"

TEST_VIEW = "teacher-test"
"""The data set of everything that is measured at the teacher's answers."""


@dataclass(frozen=True, slots=True)
class Published:
    """Where a report lies, and its verdict in Markdown."""

    page: Path
    markdown: Path
    note: str


def write_pages(runs: Sequence[RunResults], directory: Path, audited: Sequence[Audited]) -> Published:
    """Write `report.html` and `report.md` into a directory, each whole or not there; `audited` is of the same runs."""
    title, sections = title_of(runs), contents(runs, audited)
    published = Published(directory / PAGE, directory / MARKDOWN, note_of(sections))
    replace_file(published.page, page_of(title, sections).encode())
    replace_file(published.markdown, markdown_of(title, sections).encode())
    return published


def publish(results: RunResults, *, directory: Path, tracker: Tracker) -> Published:
    """Write the report of one run, and give it with every model and its numbers to the tracker."""
    published = publish_pages(results, directory=directory, tracker=tracker)
    for name, model in tracked_models(results):
        tracker.model(name, model)
    return published


def publish_pages(
    results: RunResults, *, directory: Path, tracker: Tracker, audited: Audited | None = None
) -> Published:
    """Write the report of one run, with audits (those that are kept if none are given), and give it to the tracker."""
    published = write_pages([results], directory, [read_audits(directory) if audited is None else audited])
    tracker.artifact("pipeline", published.page)
    tracker.artifact("pipeline", published.markdown)
    tracker.note("pipeline", published.note)
    return published


def tracked_models(results: RunResults) -> list[tuple[str, TrackedModel]]:
    """Every model once for each data set that it was measured on, with the name of its run."""
    digests = {task.name: task.digest for task in results.tasks}
    measured = qualities(results)
    found = []
    for model in results.models:
        values: dict[str | None, dict[str, float]] = {None: _cost(model)}
        for quality in measured:
            if model.name in quality.measured:
                name = f"test/{tracked_name(quality.metric)}"
                values.setdefault(quality.task, {})[name] = quality.measured[model.name].value
        for task, numbers in values.items():
            dataset = (TEST_VIEW, results.provenance.cache_digest) if task is None else (task, digests[task])
            if task is None and distils_a_task(results):
                continue
            if distils_a_task(results):
                numbers = numbers | values[None]
            kept = {name: value for name, value in numbers.items() if math.isfinite(value)}
            tracked = TrackedModel(model.name, model.role, model.digest, _params(model), kept, dataset)
            found.append((model.name, tracked))
    return found


def _params(model: ModelResults) -> dict[str, object]:
    params = {"role": model.role, "method": model.method, "start": model.start, "parameters": model.parameters}
    return {name: value for name, value in params.items() if value}


def _cost(model: ModelResults) -> dict[str, float]:
    """What it takes to keep and to serve it."""
    found = {"cost/disk_bytes": float(model.disk_bytes)}
    if model.serving is not None:
        found["cost/joules_per_token"] = model.serving.joules_per_token
        found["cost/peak_host_bytes"] = model.serving.peak_host_bytes
        for speed in model.serving.speeds:
            found[f"cost/token_s_batch_{speed.batch}"] = speed.token_s.median
            found[f"cost/tokens_per_s_batch_{speed.batch}"] = speed.tokens_per_s.median
        for text in model.serving.texts:
            found[f"cost/text_s_batch_{text.batch}"] = text.spread.median
    if model.training is not None:
        found["cost/training_s"] = model.training.seconds
    return found
