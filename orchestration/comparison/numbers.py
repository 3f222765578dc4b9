"""The numbers of a row of the comparison, by name; those that are undefined or were not measured have none."""

from __future__ import annotations

import math
import re

from evaluation.closeness import length_ratio, measured
from evaluation.diversity import diversity
from evaluation.exposure import excess_error, own_reverse_kl
from evaluation.metric import Metric
from evaluation.ratios import ratio_stderr
from evaluation.results import LayerLikeness, ModelResults, Spread, TaskFacts
from evaluation.side_effects.findings import Audit
from evaluation.tasks.measuring import measure


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


def exposure_numbers(row: ModelResults) -> dict[str, float]:
    """What its own beginnings cost a model, and how far it is from its teacher on what it wrote itself."""
    if row.exposure is None:
        return {}
    return {"exposure": excess_error(row.exposure).value, "own_reverse_kl": own_reverse_kl(row.exposure).value}


def tokens_per_s(row: ModelResults) -> Spread | None:
    """The speed of a warm engine with the most prompts at a time; None where it was not measured."""
    if row.serving is None or not row.serving.speeds:
        return None
    return max(row.serving.speeds, key=lambda speed: speed.batch).tokens_per_s


def metrics_of(row: ModelResults) -> dict[str, float]:
    """The numbers of a row under their names in MLflow."""
    speed = tokens_per_s(row)
    numbers = {
        **closeness_numbers(row),
        **exposure_numbers(row),
        **diversity(row.answers),
        "tokens_per_s": speed.median if speed else math.nan,
    }
    return {f"eval/test/{name}": value for name, value in numbers.items() if not math.isnan(value)} | {
        "eval/parameters": float(row.parameters)
    }


def likeness_numbers(likeness: LayerLikeness | None) -> dict[str, float]:
    """CKA of each layer of a student with the layer of its teacher at the same relative depth, by name."""
    if likeness is None:
        return {}
    return {f"cka_layer_{ours}": likeness.cka[theirs][ours] for ours, theirs in likeness.matched}


def tracked_name(metric: Metric) -> str:
    """The name of a metric in MLflow, which takes no brackets: entity_f1[PER] is entity_f1_PER there."""
    return re.sub(r"[^\w\-. :/]", "_", metric.name.removesuffix("]"))


def task_metrics_of(row: ModelResults, facts: TaskFacts) -> dict[str, float]:
    """What a model makes of a task and what that takes, under their names in MLflow."""
    examples = next((scores.examples for scores in row.tasks if scores.task == facts.name), ())
    measured = measure(facts.kind, examples, labels=facts.labels) if examples else ()
    numbers = {f"eval/test/{tracked_name(one.metric)}": one.value for one in measured}
    numbers |= {f"eval/test/{name}": value for name, value in likeness_numbers(row.likeness).items()}
    for speed in () if row.serving is None else row.serving.texts:
        numbers[f"eval/text_s_batch_{speed.batch}"] = speed.spread.median
    return {name: value for name, value in numbers.items() if not math.isnan(value)} | {
        "eval/parameters": float(row.parameters)
    }


def audit_metrics(audit: Audit) -> dict[str, dict[str, float]]:
    """What an audit found under its names in MLflow, by student: the number, and how far it is from the teacher's."""
    found: dict[str, dict[str, float]] = {}
    for each in audit.findings:
        if each.unknown is not None:
            continue
        name = f"audit/{audit.audit}/{_slug(each.instrument)}"
        numbers = {name: each.value.value}
        if each.difference is not None:
            numbers[f"{name}_minus_teacher"] = each.difference.value
        known = {key: value for key, value in numbers.items() if not math.isnan(value)}
        found.setdefault(each.model, {}).update(known)
    return found


def _slug(instrument: str) -> str:
    """`membership: loss, found at 1 % false alarms` as `membership_loss_found_at_1_false_alarms`."""
    return "_".join(re.findall(r"[a-z0-9]+", instrument.lower()))
