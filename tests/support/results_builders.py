"""Results of a comparison for tests, of two kinds.

`run_results` and `model_results` are small and hold numbers that are known; any field can be set. `finished_run` is as
rich as a real experiment, with tasks, speeds, curves and costs; `with_holes` takes from one what was measured.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from belief_builders import random_beliefs

from evaluation.closeness import BINS, COLUMNS, WORDING, closeness_of, joined
from evaluation.exposure import exposure_of
from evaluation.results import (
    Closeness,
    DevScores,
    Exposure,
    FinalScores,
    ModelResults,
    Provenance,
    RunCost,
    RunResults,
    Serving,
    Span,
    Speed,
    Spread,
    StageCost,
    TaskExample,
    TaskFacts,
    TextSpeed,
    Training,
)
from evaluation.text import wording

PROMPTS = (
    "Explain in one sentence why the sky is blue.",
    "Write a polite reply that declines an invitation to dinner.",
    "List three uses of a paper clip.",
    "What is the capital of Australia, and why not Sydney?",
)
ANSWERS = (
    "Sunlight is scattered by the molecules of the air, and short blue waves are scattered far more than long red ones.",
    "Thank you so much for the invitation. I am afraid that I cannot come on Friday, but I would love to another time.",
    "Holding papers together, resetting a small device through its pinhole, and serving as an improvised zip pull.",
    "Canberra is the capital of Australia; it was founded as a compromise between its rivals, Sydney and Melbourne.",
)
INTENTS = ("order", "return", "complaint", "question")
MACHINE = "cpu, 2 cores, float32, vLLM 0.25, K = 64"


def closeness(answers: Sequence[str], references: Sequence[str], *, seed: int = 0) -> Closeness:
    """Made-up beliefs at the teacher's answers, and how close the wording of one's own is."""
    scored = closeness_of(random_beliefs(seed + at, rows=4 + at) for at in range(len(answers)))
    tokens = [len(text.split()) for text in answers], [len(text.split()) for text in references]
    return joined(scored, wording(answers, references, written=tokens[0], referenced=tokens[1]))


def serving(tokens_per_s: float, *, measured_on: str = "2 of 2 CPUs, a processor; bfloat16") -> Serving:
    """One speed, measured once."""
    unknown, speed = Spread(math.nan, math.nan, math.nan, 0), Spread(*[tokens_per_s] * 3, 1)
    return Serving(measured_on, (Speed(8, unknown, unknown, speed),), math.nan, math.nan, math.nan)


def model_results(name: str, **fields: Any) -> ModelResults:
    """A row; `fields` take the place of what is made up."""
    answers = fields.setdefault("answers", ("Paris.", "Four."))
    role = {"teacher": "teacher", "untouched": "untouched"}.get(name, "student")
    made: dict[str, Any] = {
        "role": role,
        "method": "kd" if role == "student" else "",
        "start": "untouched" if role == "student" else None,
        "digest": f"digest of {name}",
        "parameters": 99_000_000,
        "disk_bytes": 198_000_000,
        "closeness": closeness(answers, ("Paris.", "Four.")[: len(answers)]) if answers else None,
        "exposure": None,
        "answer_tokens": tuple(len(answer.split()) for answer in answers),
        "tasks": (),
        "serving": serving(215.4),
        "training": None,
        "failures": (),
    }
    return ModelResults(name=name, **(made | fields))


def run_results(*models: ModelResults, **fields: Any) -> RunResults:
    """A comparison of these models, teacher and student where none is named."""
    made: dict[str, Any] = {
        "experiment": "quickstart",
        "settings": {"teacher.top_k": "16"},
        "prompts": ("Capital of France?", "2 + 2?"),
        "references": ("Paris.", "Four."),
        "reference_tokens": (1, 1),
        "models": models or (model_results("teacher", parameters=134_515_008), model_results("kd")),
        "tasks": (),
        "cost": short_run_cost(),
        "provenance": Provenance("a teacher", "i" * 64, None, "v" * 64, "c" * 64, {}, {"vllm": "1.2"}),
        "rows_set_aside": 2,
        "failures": (),
        "notes": (),
    }
    return RunResults(**(made | fields))


TIMELINE = (
    Span("teacher", "driver", 0, 1.7e9, 1.7e9 + 2),
    Span("ray", "cluster", 0, 1.7e9 + 2, 1.7e9 + 9),
    Span("teacher engines start", "teacher", 0, 1.7e9 + 9, 1.7e9 + 61),
    Span("prompts", "driver", 0, 1.7e9 + 9, 1.7e9 + 44),
    Span("fill", "teacher", 0, 1.7e9 + 61, 1.7e9 + 330),
    Span("teacher", "driver", 1, 1.7e9 + 5000, 1.7e9 + 5000.2),
    Span("train kd", "workers", 1, 1.7e9 + 5001, 1.7e9 + 5100),
)
"""Of a run that was stopped once."""


def short_run_cost() -> RunCost:
    """Two stages, and nothing known of energy and money."""
    stages = (StageCost("teacher", 61.0, math.nan, math.nan), StageCost("fill", 62.4, math.nan, math.nan))
    return RunCost(stages, "", 12_345, 0, math.nan, math.nan, math.nan, math.nan, math.nan, "")


def finished_run(
    *, experiment: str = "quickstart", prompts: int = 40, seed: int = 0, students: Mapping[str, str] | None = None
) -> RunResults:
    """A run as it should be: a teacher, an untouched student, and students by name and method."""
    methods = students or {"seqkd": "seqkd", "kd": "kd", "minillm": "seqkd, minillm"}
    quality = {"teacher": 1.0, "untouched": 0.25} | {name: 0.55 + 0.12 * place for place, name in enumerate(methods)}
    random = np.random.default_rng(seed)
    rows = [_row(index, random) for index in range(60)]
    models = [
        _model(name, role="teacher" if name == "teacher" else "untouched" if name == "untouched" else "student",
               method=methods.get(name, ""), quality=level, prompts=prompts, rows=rows, place=place)
        for place, (name, level) in enumerate(quality.items())
    ]  # fmt: skip
    return RunResults(
        experiment=experiment,
        settings=_settings(methods),
        prompts=tuple(PROMPTS[i % 4] if i < 4 else f"{PROMPTS[i % 4]} ({i})" for i in range(prompts)),
        references=tuple(ANSWERS[i % 4] for i in range(prompts)),
        reference_tokens=tuple(24 + i % 5 for i in range(prompts)),
        models=tuple(models),
        tasks=(task_facts("intents"), replace(task_facts("sentiment"), set_aside=("test row 7: no label",))),
        cost=run_cost(),
        provenance=provenance(experiment),
        rows_set_aside=3,
        failures=(),
        notes=("kd was selected at step 120 of 200 by dev KL",),
        timeline=TIMELINE,
    )


def with_holes(run: RunResults) -> RunResults:
    """The same run with nothing measured but the answers."""
    models = tuple(
        replace(
            model, closeness=None, exposure=None, tasks=(), serving=None, training=None, disk_bytes=0,
            failures=("speed: the engine did not start",),
        )
        for model in run.models
    )  # fmt: skip
    cost = RunCost((StageCost("fill", math.nan, math.nan, math.nan),), "", 0, 0, *[math.nan] * 5, "")
    return replace(run, models=models, tasks=(), cost=cost, notes=(), rows_set_aside=0)


def task_facts(name: str) -> TaskFacts:
    """A task of classification."""
    return TaskFacts(
        name=name,
        digest=f"digest of {name}",
        kind="classification",
        labels=INTENTS,
        metric="accuracy",
        few_shot=2,
        train_rows=200,
        dev_rows=40,
        test_rows=60,
        baseline=0.3,
        exact_copies=1,
        near_copies=2,
        near_duplicate=0.8,
        set_aside=(),
        train_label_counts={"order": 120, "return": 50, "complaint": 20, "question": 10},
        licence="CC0-1.0",
    )


def run_cost() -> RunCost:
    """Four stages, with prices."""
    stages = (
        StageCost("fill", 184.2, 9_200.0, 0.00081),
        StageCost("train kd", 96.0, 5_100.0, 0.00045),
        StageCost("train minillm", 141.0, 7_800.0, 0.00069),
        StageCost("comparison", 75.5, 3_600.0, 0.00032),
    )
    return RunCost(
        stages=stages,
        energy_source="codecarbon 3.3, CPU power estimated from its TDP",
        teacher_tokens=18_400,
        saved_tokens=126_000,
        teacher_hours=0.051,
        saved_hours=0.35,
        saved_joules=63_000.0,
        paid=0.0051,
        saved=0.035,
        currency="EUR",
    )


def provenance(experiment: str) -> Provenance:
    """A teacher without a known licence."""
    return Provenance(
        teacher="smollm2-135m",
        teacher_identity="a1" * 32,
        teacher_licence="Apache-2.0",
        cache_digest="c3" * 32,
        config_digest=experiment.encode().hex().ljust(64, "0")[:64],
        data={"data.train": "d4" * 32, "data.test": "e5" * 32},
        versions={"stillroom": "0.1.0", "torch": "2.13.0", "vllm": "0.25.0"},
    )


def _settings(methods: Mapping[str, str]) -> dict[str, str]:
    settings = {"name": "quickstart", "teacher.model": "smollm2-135m", "teacher.top_k": "64"}
    for place, (name, method) in enumerate(methods.items()):
        settings |= {
            f"students.{name}.init.layers": "8",
            f"students.{name}.stages.0.objective": method.split(", ")[0],
            f"students.{name}.stages.0.learning_rate": f"{1 + place}e-4",
        }
    return settings


def _row(index: int, random: np.random.Generator) -> tuple[int, str, str, float]:
    label = INTENTS[int(random.choice(4, p=(0.5, 0.25, 0.15, 0.1)))]
    return index, label, f"Customer: message number {index} about my {label}.", float(random.random())


def _model(
    name: str, *, role: str, method: str, quality: float, prompts: int, rows: list[tuple[int, str, str, float]], place: int
) -> ModelResults:  # fmt: skip
    random = np.random.default_rng(100 + place)
    teacher = role == "teacher"
    parameters = 134_515_008 if teacher else 28_340_000 + 1000 * place
    return ModelResults(
        name=name,
        role=role,
        method=method,
        start="untouched" if role == "student" else None,
        digest=f"{place:02d}" * 32,
        parameters=parameters,
        disk_bytes=4 * parameters,
        closeness=_closeness(quality, prompts, random),
        exposure=None if teacher else _exposure(quality),
        answers=tuple(_answer(index, quality, random) for index in range(prompts)),
        answer_tokens=tuple(int(20 + 8 * random.random()) for _ in range(prompts)),
        tasks=tuple(_scores(task, quality, rows, random) for task in ("intents", "sentiment")),
        serving=_serving(0.018 if teacher else 0.0046 + 0.0002 * place, 2.1 if teacher else 0.4 + 0.02 * place),
        training=_training(quality, place) if role == "student" else None,
        failures=("exposure: fewer than 8 answers are long enough",) if role == "untouched" else (),
    )


def _answer(index: int, quality: float, random: np.random.Generator) -> str:
    words = ANSWERS[index % 4].split()
    return " ".join(word if random.random() < quality else str(random.choice(words)) for word in words)


def _scores(
    task: str, quality: float, rows: list[tuple[int, str, str, float]], random: np.random.Generator
) -> FinalScores:
    examples = []
    for index, label, shown, difficulty in rows:
        right = difficulty < 0.35 + 0.58 * quality
        unread = not right and random.random() < 0.1
        predicted = label if right else INTENTS[(INTENTS.index(label) + 1) % 4]
        examples.append(
            TaskExample(
                row=index, seed=0, shown=shown, gold=(label,), answer="" if unread else predicted,
                predicted=None if unread else (predicted,), confidence=float(0.5 + 0.45 * random.random()),
                tokens=int(20 + 80 * difficulty),
            )
        )  # fmt: skip
    return FinalScores(task, "text", tuple(examples))


def _closeness(quality: float, prompts: int, random: np.random.Generator) -> Closeness:
    """Answers of about 24 tokens; the farther from the teacher, the more confident and the less right."""
    rows = []
    for _ in range(prompts):
        tokens = 20 + int(8 * random.random())
        kl = tokens * (0.02 + 1.6 * (1 - quality) * (0.6 + 0.8 * random.random()))
        confidence = 0.3 + 0.69 * random.random(tokens)
        hits = (random.random(tokens) < confidence * (0.6 + 0.4 * quality)).astype(np.float64)
        places = np.minimum((confidence * BINS).astype(int), BINS - 1)
        bins = [np.bincount(places, weights=each, minlength=BINS) for each in (np.ones(tokens), confidence, hits)]
        agreed = float(int(tokens * (0.4 + 0.55 * quality)))
        sums = (tokens, kl, 1.2 * kl, agreed, 0.9 * tokens, 1.1 * tokens + kl, ((confidence - hits) ** 2).sum())
        wording = (1.0, 0.3 + 0.6 * quality, tokens * (1.3 - 0.3 * quality), tokens)
        rows.append(tuple(float(each) for each in (*sums, *np.stack(bins, axis=1).ravel(), *wording)))
    return Closeness((*COLUMNS, *WORDING), tuple(rows))


def _exposure(quality: float) -> Exposure:
    """40 answers of which ever fewer reach a position; after its own tokens a model is farther off the longer it goes."""
    random = np.random.default_rng(7)
    own, theirs, gaps = [], [], []
    for answer in range(40):
        place, noise = np.arange(32 - answer // 3), 0.8 + 0.4 * random.random(32 - answer // 3)
        own.append((1 - quality) * (1.4 + place / 20) * noise)
        theirs.append((1 - quality) * 1.4 * noise)
        gaps.append((1 - quality) * (0.5 + noise - 1))
    return exposure_of(own, theirs, gaps)


def _serving(token_s: float, joules: float) -> Serving:
    speeds = tuple(
        Speed(
            batch,
            _spread(token_s * 6),
            _spread(token_s * (1 + batch / 40)),
            _spread(batch / (token_s * (1 + batch / 40))),
        )
        for batch in (1, 8, 32)
    )
    return Serving(MACHINE, speeds, 1.9e9, 0.0, joules)


def _spread(median: float) -> Spread:
    return Spread(median, median * 0.97, median * 1.06, 5)


def _training(quality: float, place: int) -> Training:
    steps = range(0, 201, 5)
    curves = {
        "train/loss": tuple(
            (step, 1.2 * (1 - quality) + 2.4 * math.exp(-step / 40) + 0.03 * (step % 3)) for step in steps
        ),
        "dev/forward_kl": tuple((step, 1.6 * (1 - quality) + 2.0 * math.exp(-step / 55)) for step in range(0, 201, 40)),
        "train/learning_rate": tuple((step, 1e-4) for step in steps),
    }
    return Training(88.0 + 21 * place, 240_000 + 1000 * place, 5_000.0, "cpu, 2 cores", curves)


def text_serving(text_s: Mapping[int, Sequence[float]], *, measured_on: str = "CPU, 2 threads") -> Serving:
    """Seconds a text, round by round, by the number of texts at a time."""
    texts = tuple(TextSpeed(batch, tuple(values)) for batch, values in text_s.items())
    return Serving(measured_on, (), 1e9, 0.0, math.nan, texts)


def task_model(
    name: str,
    *,
    right: int,
    role: str = "student",
    method: str = "logit_mse",
    seeds: int = 1,
    text_s: float = 0.001,
    **fields: Any,
) -> ModelResults:
    """A model with a task head that is right on the first `right` of 100 rows of `task_facts("intents")`, on both splits.

    Under every seed it gives the same answers; wrong ones are the label after the right one.
    """
    examples = tuple(
        _intent(row, seed=seed, right=row < right, confidence=0.9 if row < right else 0.4)
        for seed in range(seeds)
        for row in range(100)
    )
    made: dict[str, Any] = {
        "role": role, "method": method if role == "student" else "", "start": None, "answers": (),
        "closeness": None, "tasks": (FinalScores("intents", "head", examples),),
        "dev": (DevScores("intents", "head", examples),), "seeds": seeds,
        "serving": text_serving({1: [text_s, 1.1 * text_s, 0.9 * text_s], 32: [text_s / 4] * 3}),
    }  # fmt: skip
    return model_results(name, **(made | fields))


def task_run(*models: ModelResults, **fields: Any) -> RunResults:
    """A run of an experiment that distils `task_facts("intents")`."""
    given = {
        "prompts": (),
        "references": (),
        "reference_tokens": (),
        "tasks": (replace(task_facts("intents"), test_rows=100),),
    }
    return run_results(*models, **(given | fields))


def _intent(row: int, *, seed: int, right: bool, confidence: float) -> TaskExample:
    gold = INTENTS[row % 4]
    said = gold if right else INTENTS[(row + 1) % 4]
    return TaskExample(row, seed, f"message {row}", (gold,), "", (said,), confidence, 0)
