"""What a model with a task head predicts for the examples of a task, as it is kept: on dev, and on test.

Nothing is asked twice: answers are kept under the digests of model and task, whichever experiment wanted them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from configs import ModelError
from configs.task import TaskConfig, TaskKind
from evaluation.results import TaskExample
from evaluation.tasks.examples import Example
from evaluation.tasks.label_names import LabelNames
from evaluation.tasks.spans import spans_of
from orchestration.inputs.tasks import LoadedTask
from orchestration.outputs.artifacts import Artifacts, digest_of
from orchestration.outputs.fields import to_fields
from student_train.models.predicting import PredictedClass, PredictedSpan, PredictedTags, Prediction

MEASURES = 1
"""Raised by hand when a release reads the same predictions differently."""

ANSWERED_BY = "head"

Split = Literal["dev", "test"]


class AnswersTexts(Protocol):
    """A loaded model (`student_train.models.predicting.Predictor`)."""

    kind: TaskKind
    labels: tuple[str, ...]

    @property
    def parameters(self) -> int:
        """How many it has."""
        ...

    def predict(self, inputs: Sequence[Sequence[str]]) -> list[Prediction]:
        """What it says of each input."""
        ...


@dataclass(frozen=True, slots=True)
class KeptPredictions:
    """What is kept of a model and a split; `cut` texts are longer than the model reads."""

    examples: tuple[TaskExample, ...]
    parameters: int
    cut: int
    digest: str


def address(model: str, task: LoadedTask, split: Split) -> str:
    """What predictions are kept under; `model` is the digest of the model's directory."""
    return digest_of(predictions_of=model, task=task.facts.digest, split=split, measures=MEASURES)


def predictions(
    directory: Path, digest: str, *, task: LoadedTask, artifacts: Artifacts, opened: Callable[[Path], AnswersTexts]
) -> dict[Split, KeptPredictions]:
    """What a model says of both splits; it is loaded only where something of that is not kept.

    Raises:
        ModelError: it does not load, or has another task's head.
        DataError: it cannot read an example.
    """
    splits: dict[Split, tuple[Example, ...]] = {"dev": task.dev, "test": task.test}
    addresses = {split: address(digest, task, split) for split in splits}
    found = {split: artifacts.read_evaluation(at, KeptPredictions) for split, at in addresses.items()}
    missing = [split for split, kept in found.items() if kept is None]
    model = opened(directory) if missing else None
    for split in missing:
        assert model is not None
        examples, cut = answers_of(model, splits[split], task=task.config)
        kept = KeptPredictions(examples, model.parameters, cut, addresses[split])
        artifacts.write_evaluation(kept.digest, to_fields(kept))
        found[split] = kept
    return {split: kept for split, kept in found.items() if kept is not None}


def answers_of(
    model: AnswersTexts, examples: Sequence[Example], *, task: TaskConfig
) -> tuple[tuple[TaskExample, ...], int]:
    """What a model makes of the examples of a task, under seed 0, and how many of them it does not see whole.

    The confidence is the probability of all that was predicted: of several tags, their product.

    Raises:
        ModelError: its head is one for other tasks, or knows other labels.
        DataError: it cannot read an example.
    """
    if model.kind != task.kind:
        raise ModelError(f"its head does {model.kind}, not {task.kind}: name another model or task")
    named = _label_names(model, task) if task.kind == "classification" else {}
    said = model.predict([input_of(example, task.kind) for example in examples])
    answers = []
    for example, one in zip(examples, said, strict=True):
        text, predicted, confidence = _answer(one, named)
        answers.append(
            TaskExample(
                row=example.row,
                seed=0,
                shown=example.text,
                gold=example.gold,
                answer=text,
                predicted=predicted,
                confidence=confidence,
                tokens=0,
                pair=example.pair,
            )
        )
    return tuple(answers), sum(isinstance(one, PredictedClass) and one.cut for one in said)


def input_of(example: Example, kind: TaskKind) -> Sequence[str]:
    """What a model is given of an example."""
    match kind:
        case "tagging":
            return example.tokens
        case "extractive_qa":
            return example.parts[0], example.context
        case _:
            return example.parts


def _label_names(model: AnswersTexts, task: TaskConfig) -> dict[str, str]:
    """The label of the task that each of a head's labels means."""
    names = LabelNames.of(task)
    found = {label: names.named(label) or label for label in model.labels}
    if set(found.values()) != set(task.verbalisers) or len(found) != len(task.verbalisers):
        raise ModelError(
            f"its head knows the labels {', '.join(model.labels)}, and task {task.name} has "
            f"{', '.join(task.verbalisers)}: make id2label in its config.json say those of the task"
        )
    return found


def _answer(said: Prediction, named: dict[str, str]) -> tuple[str, tuple[str, ...], float]:
    """The text of an answer, what is read from it, and how sure the model is of it."""
    match said:
        case PredictedClass():
            return "", (named[said.label],), said.probability
        case PredictedTags():
            known = [probability for probability in said.probabilities if probability is not None]
            return "", tuple(map(str, spans_of(said.tags))), math.prod(known)
        case PredictedSpan():
            return said.text, (said.text,), said.probability
