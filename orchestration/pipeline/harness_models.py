"""Models on the tasks of lm-evaluation-harness, through the same engines as everything else.

What is found stands apart from the project's own tasks: it has the harness's prompts, metrics and standard errors, and
is not kept, because a task of a hub is not known by its content.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from configs import DataError, DistillError, ModelError
from orchestration.comparison.continuations import Continuations
from orchestration.comparison.harness_lines import HarnessLine
from orchestration.comparison.lm_harness import Harness, HarnessModel
from orchestration.inputs.models import locate_model
from orchestration.inputs.templates import ChatTemplates, Unrendered
from orchestration.outputs.console import Console
from orchestration.pipeline.evaluate_models import Engines, Place, Subject, candidate_of, engines_at
from teacher_server.heads import head_of


@dataclass(frozen=True, slots=True)
class HarnessAsking:
    """Which tasks, from where besides the harness's own, and how: see `Harness`."""

    names: tuple[str, ...]
    folder: Path | None = None
    chat: bool = False
    limit: int | None = None


@dataclass(slots=True)
class HarnessFound:
    """Lines by model, contexts that lost their beginning by model and task, and what could not be measured."""

    lines: dict[str, tuple[HarnessLine, ...]] = field(default_factory=dict)
    shortened: dict[tuple[str, str], int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)


def harness_models(
    subjects: Sequence[Subject], asking: HarnessAsking, *, place: Place, console: Console
) -> HarnessFound:
    """Put every task to every model.

    Raises:
        ConfigError: the harness knows no such task. Nothing was started.
    """
    harness = Harness(asking.folder, log=place.log_dir / "harness.log")
    harness.check(asking.names)
    found = HarnessFound()
    with engines_at(place) as engines, console.stage("models", total=len(subjects), unit="models") as stage:
        for number, subject in enumerate(subjects):
            stage.update(number, note=subject.name)
            try:
                _put(subject, asking, harness=harness, engines=engines, found=found)
            except DistillError as error:
                found.failures.append(f"{subject.name}: {error}")
        stage.summary = f"{sum(map(len, found.lines.values()))} values"
    return found


def _put(subject: Subject, asking: HarnessAsking, *, harness: Harness, engines: Engines, found: HarnessFound) -> None:
    place = engines.place
    directory = locate_model(subject.source, models_root=place.models_root)
    if head_of(directory) is not None:
        raise ModelError("it has a task head and writes no text: put tasks of the project to it, with --task")
    candidate, files = candidate_of(subject, directory, place=place)
    if asking.chat and not files.tokenizer.chat_template:
        raise ModelError("it has no chat template: leave --harness-chat out, or add one")
    asked = Continuations(files, engines.serve(candidate, files), longest=place.longest(files.shape))
    with ChatTemplates(subject.asking, files.tokenizer) as templates:
        model = HarnessModel(asked, render=lambda messages: _rendered(templates, messages))
        for name in asking.names:
            before = asked.shortened
            try:
                lines = harness.run(name, model, chat=asking.chat, limit=asking.limit)
            except DistillError as error:
                found.failures.append(f"{subject.name}: {name}: {error}")
                continue
            found.lines[subject.name] = (*found.lines.get(subject.name, ()), *lines)
            if asked.shortened > before:
                found.shortened[subject.name, name] = asked.shortened - before


def _rendered(templates: ChatTemplates, messages: Sequence[Mapping[str, Any]]) -> str:
    try:
        return templates.render(messages, tools=None, opens_answer=True)
    except Unrendered as error:
        raise DataError(f"refused by the chat template: {error}") from error
