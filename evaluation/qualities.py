"""What the models of a table are measured by: every metric of every task, and their closeness to the teacher.

A table, its marks and the sentences below it speak of the same differences: a quality makes each of them once, with
Holm's correction over all students that are held against one baseline, and whoever asks again gets the same.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from evaluation.closeness import measured
from evaluation.metric import Measured, Metric
from evaluation.results import ModelResults, RunResults, TaskFacts
from evaluation.statistics import Difference, Resampling, compare_models
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

DIVERGENCES = ("forward_kl", "reverse_kl")
"""By which of the metrics of closeness a student is held against others."""

WORDS = "rouge_l"
"""By what instead where one has another tokenizer, and so no divergence from its teacher."""


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """One kind of number for all models that it was measured of. `task` is None for closeness to the teacher.

    `headline` ones stand in the first table, and are held against the baselines. `floor` is what the best constant
    answer scores, None for what is no task.
    """

    title: str
    metric: Metric
    measured: Mapping[str, Measured]
    task: str | None
    headline: bool
    floor: float | None = None
    how: Resampling = field(default_factory=Resampling)
    _found: dict[tuple[str, ...], Mapping[str, Difference]] = field(default_factory=dict, init=False, repr=False)

    def against(self, baseline: str, students: Sequence[str]) -> Mapping[str, Difference]:
        """What sets each of these students apart from a baseline, corrected over them.

        A model that answered other examples cannot be compared with it, and is left out.
        """
        key = (baseline, *students)
        if key not in self._found:
            base = self.measured.get(baseline)
            able = {
                name: self.measured[name]
                for name in students
                if base is not None and name in self.measured and self.measured[name].sums.shape == base.sums.shape
            }
            self._found[key] = compare_models(base, able, self.how) if base is not None and able else {}
        return self._found[key]


def qualities(results: RunResults, *, how: Resampling | None = None) -> tuple[Quality, ...]:
    """All of them: tasks first, in their order, the metric that a task is judged by before its others."""
    how = how or Resampling()
    found: list[Quality] = []
    for facts in results.tasks:
        found += sorted(_of_task(facts, results, how), key=lambda quality: not quality.headline)
    return (*found, *_of_closeness(results, how))


def closeness_title(title: str, results: RunResults) -> str:
    """The title of a divergence, which names the teachers where students learned from several; any other as it is."""
    of_several = bool(results.held_against) and title in (CLOSENESS[name][0] for name in DIVERGENCES)
    return title.replace("teacher", "teachers") if of_several else title


def _of_task(facts: TaskFacts, results: RunResults, how: Resampling) -> list[Quality]:
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
            floor=facts.baseline if name == facts.metric else None,
            how=how,
        )
        for name, models in by_metric.items()
    ]


def _of_closeness(results: RunResults, how: Resampling) -> list[Quality]:
    by_model = {model.name: _closeness(model) for model in results.models}
    by_words = any(WORDS in each and not set(DIVERGENCES) & each.keys() for each in by_model.values())
    return [
        Quality(
            title=closeness_title(title, results),
            metric=next(each[name].metric for each in by_model.values() if name in each),
            measured={model: each[name] for model, each in by_model.items() if name in each},
            task=None,
            headline=headline or (by_words and name == WORDS),
            how=how,
        )
        for name, (title, headline) in CLOSENESS.items()
        if any(name in each for each in by_model.values())
    ]


def _closeness(model: ModelResults) -> dict[str, Measured]:
    return measured(model.closeness) if model.closeness is not None and model.closeness.sums else {}
