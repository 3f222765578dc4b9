"""The trained student as a plain transformers directory.

Weights are stored in the dtype the student was trained in: a stage in bfloat16 computes every loss with bfloat16
weights (the float32 copies belong to the optimiser), so bfloat16 is what was measured, and a float32 file would be
another model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import yaml
from torch import Tensor
from transformers import GenerationConfig

from cache.disk.failpoints import failpoint
from cache.views import CacheView
from configs.model_files import CARD, mended_generation_config, read_generation_config
from configs.stages import StageConfig
from configs.task_features import FeatureTerm
from configs.teachers import BETWEEN
from student_train.files import copy_companions, staged_directory
from student_train.job import StepMetrics
from student_train.papers import Papers, write_papers

EXPORT_FAILPOINTS = ("export-before-commit", "export-after-commit")
"""Where a test may kill the process: before and after the model appears under its name."""


@dataclass(frozen=True, slots=True, eq=False)
class ModelCard:
    """What the README of an exported student says about where it comes from.

    `combined` says how several teachers were, "" of one; `start` says in words what the student was before. `measured`
    are the held-out metrics in their order.
    """

    teacher: str
    licence: str | None
    combined: str
    start: str
    view: CacheView
    stage: StageConfig
    steps: int
    selected_step: int
    measured: Sequence[StepMetrics]


def export_student(
    model: Any,
    weights: Mapping[str, Tensor],
    *,
    start: Path,
    out: Path,
    card: ModelCard,
    papers: Sequence[Papers] = (),
) -> Path:
    """Write `weights` with the model's config, and tokenizer and generation config from `start`, to `out`.

    `out` appears whole or not at all; an existing one is replaced. Tied weights are stored once. `papers` are the
    licences of its teachers.
    """
    with staged_directory(out) as staging:
        write_model(model, weights, start=start, folder=staging)
        (staging / CARD).write_text(card_text(card), encoding="utf-8")
        write_papers(staging, papers)
        failpoint("export-before-commit")
    failpoint("export-after-commit")
    return out


def write_model(model: Any, weights: Mapping[str, Tensor], *, start: Path, folder: Path) -> None:
    """Fill `folder` with `weights`, the model's config, and the other files of `start`.

    The generation config is repaired first: transformers reads contradictory ones, but refuses to write them.
    """
    copy_companions(start, folder)
    model.generation_config = _writable(model.generation_config, said=read_generation_config(start))
    model.save_pretrained(folder, state_dict=dict(weights), safe_serialization=True)


def _writable(loaded: GenerationConfig, *, said: Mapping[str, Any]) -> GenerationConfig:
    """The generation config of a start in a form that can be saved; if need be, its token ids alone."""
    source = said or loaded.to_dict()
    ids = {key: value for key, value in source.items() if key.endswith("token_id") and value not in (-1, None)}
    for wanted in (mended_generation_config(source), ids):
        try:
            made = GenerationConfig.from_dict(wanted)
            made.validate(strict=True)
        except (ValueError, TypeError, AttributeError):
            continue
        return made
    return GenerationConfig()


def card_text(card: ModelCard) -> str:
    """The model card: Markdown behind the front matter that model hubs read."""
    stage, view = card.stage, card.view
    front = {
        "base_model": base_models(card.teacher),
        "library_name": "transformers",
        "license": licence_id(card.licence),
        "pipeline_tag": "text-generation",
        "tags": ["distillation", "stillroom", stage.objective],
    }
    settings = ", ".join(
        f"{name} {getattr(stage, name)}"
        for name in ("learning_rate", "schedule", "warmup_steps", "weight_decay", "gradient_clip", "tokens_per_step")
    )
    return f"""---
{yaml.safe_dump(front, allow_unicode=True).strip()}
---

# Student of {card.teacher}

Trained for {card.steps} steps with the objective `{stage.objective}` on what its teacher said and believed; these are
the weights after step {card.selected_step} (`select: {stage.select}`).

- Teacher: {card.teacher}{f" ({card.combined})" if card.combined else ""}
- {licence_line(card.licence)}
- Start: {card.start}
- Objective: {stage.method.card(stage)}{features_learned(stage.features)}
- Data: {view.dataset}, {len(view):,} sequences with {view.response_tokens:,} response tokens
- Cache view (SHA-256): `{view.digest}`
- Settings: {settings}, seed {stage.seed}, dtype {stage.dtype}{"" if stage.lora is None else _lora(stage)}
- Made with Stillroom {version("stillroom")}
{held_out_table(card.measured, selected_step=card.selected_step)}"""


def features_learned(terms: Sequence[FeatureTerm]) -> str:
    """What is learned from inside the teacher beside an objective, term by term."""
    return "".join(
        f"; `{term.kind}`, {term.feature.learns} ({'attention' if term.reads_attention else term.where}), at weight "
        f"{term.weight:g}"
        for term in terms
    )


def base_models(teacher: str) -> str | list[str]:
    """The teachers as model hubs read them: what is said in brackets of one behind a server is for people."""
    labels = [label.partition(" (revision ")[0] for label in teacher.split(BETWEEN)]
    return labels[0] if len(labels) == 1 else labels


def licence_id(licence: str | None) -> str:
    """A licence as model hubs read it; several that differ, or one that is used all the same, are in the text alone."""
    if licence is None:
        return "unknown"
    return "other" if ";" in licence or "(" in licence else licence.lower()


def licence_line(licence: str | None) -> str:
    """What the licence of a teacher means for its student."""
    said = licence or "not stated by the configuration: find out before you pass this model on"
    return f"""\
Teacher's licence: {said}. This student was made from the teacher's output (and perhaps its weights); terms that
  the licence sets for derived models, such as naming, notices and limits of use, apply to it too."""


def held_out_table(measured: Sequence[StepMetrics], *, selected_step: int) -> str:
    """A table of the held-out metrics at the start and at the selected step; nothing where none were measured."""
    by_step = {at.step: at.values for at in measured}
    if not by_step or selected_step not in by_step:
        return ""
    first, chosen = by_step[min(by_step)], by_step[selected_step]
    rows = "".join(f"| {name} | {first[name]:.4f} | {chosen[name]:.4f} |\n" for name in chosen if name in first)
    return f"""
| held-out metric | step {min(by_step)} | step {selected_step} |
|---|---|---|
{rows}"""


def _lora(stage: StageConfig) -> str:
    assert stage.lora is not None
    return f", LoRA of rank {stage.lora.rank} and alpha {stage.lora.alpha:g}, merged"
