"""What the models of a table are measured by: every metric of every task, and their closeness to the teacher."""

from __future__ import annotations

from collections.abc import Mapping

from evaluation.closeness import measured
from evaluation.metric import Measured
from evaluation.report.judged import Quality
from evaluation.results import ModelResults, RunResults, TaskFacts
from evaluation.tasks.measuring import measure

CLOSENESS: Mapping[str, tuple[str, bool]] = {
    "forward_kl": ("KL(teacher‖·)", True),
    "reverse_kl": ("KL(·‖teacher)", True),
    "top1_agreement": ("top-1 agreement", True),
    "topk_agreement": ("top-5 agreement", False),
    "rouge_l": ("Rouge-L with the teacher", False),
    "perplexity": ("perplexity of the teacher's text", False),
    "ece": ("calibration error", False),
    "brier": ("Brier score", False),
}
"""What is shown of a model's closeness, under which title, and whether it stands in the first table."""


def qualities(results: RunResults) -> tuple[Quality, ...]:
    """All of them: tasks first, in their order, the metric that a task is judged by before its others."""
    found: list[Quality] = []
    for facts in results.tasks:
        found += sorted(_of_task(facts, results), key=lambda quality: not quality.headline)
    return (*found, *_of_closeness(results))


def _of_task(facts: TaskFacts, results: RunResults) -> list[Quality]:
    by_metric: dict[str, dict[str, Measured]] = {}
    for model in results.models:
        examples = next((scores.examples for scores in model.tasks if scores.task == facts.name), ())
        if examples:
            for one in measure(facts.kind, examples, labels=facts.labels):
                by_metric.setdefault(one.metric.name, {})[model.name] = one
    return [
        Quality(
            title=facts.name if name == facts.metric else f"{facts.name}, {name}",
            metric=next(iter(models.values())).metric,
            measured=models,
            task=facts.name,
            headline=name == facts.metric,
        )
        for name, models in by_metric.items()
    ]


def _of_closeness(results: RunResults) -> list[Quality]:
    by_model = {model.name: _closeness(model) for model in results.models}
    return [
        Quality(
            title=title,
            metric=next(each[name].metric for each in by_model.values() if name in each),
            measured={model: each[name] for model, each in by_model.items() if name in each},
            task=None,
            headline=headline,
        )
        for name, (title, headline) in CLOSENESS.items()
        if any(name in each for each in by_model.values())
    ]


def _closeness(model: ModelResults) -> dict[str, Measured]:
    return measured(model.closeness) if model.closeness is not None and model.closeness.sums else {}
